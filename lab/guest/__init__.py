"""A small bootable guest for the lab's virtual machines, built from Debian packages.

Real firmware, a real kernel and a real guest agent, so that what tests see of a VM from inside is true; small and
quick, so that dozens run under plain emulation. What the guest does is in README.md beside this file.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.guest import disk, initramfs
from lab.guest.disk import VIRTUAL_SIZE
from lab.guest.packages import Packages
from lab.guest.tools import GuestError

__all__ = ["VIRTUAL_SIZE", "GuestError", "GuestImage", "build", "recipe_hash"]

_RECIPE = Path(__file__).parent
_IMAGE = "guest.qcow2"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class GuestImage:
    """The built image: a compressed qcow2 of ``size`` bytes whose content has the hexadecimal ``sha256``.

    The guest sees a disk of ``VIRTUAL_SIZE`` bytes.
    """

    path: Path
    sha256: str
    size: int


def build(cache: Path | None = None, progress: Callable[[str], None] = print) -> GuestImage:
    """The guest image, built if the cache does not hold the one of this recipe.

    ``cache`` is the lab's cache folder (default ``$XDG_CACHE_HOME/hostler-lab``). Without a change to the recipe
    neither apt nor the network is asked. Two calls at once build once. Raises ``GuestError`` with what is missing.
    """
    base = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hostler-lab"
    folder = base / "guest" / recipe_hash()
    cached = _load(folder)
    if cached:
        return cached
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent / ".lock"):
        return _load(folder) or _fill(folder, progress)


def recipe_hash() -> str:
    """Names the image: a digest of the files that decide what is in it, except the packages."""
    digest = hashlib.sha256()
    for path in _recipe_files():
        content, mode = path.read_bytes(), path.stat().st_mode & 0o111
        digest.update(f"{path.relative_to(_RECIPE)} {mode:o} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _recipe_files() -> list[Path]:
    data = [path for folder in ("root", "boot", "programs") for path in (_RECIPE / folder).rglob("*")]
    files = [path for path in data if path.is_file()]
    return sorted([*files, *_RECIPE.glob("*.py")])


def _load(folder: Path) -> GuestImage | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        path = folder / _IMAGE
        if path.stat().st_size != manifest["size"]:
            return None
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return GuestImage(path, manifest["sha256"], manifest["size"])


def _fill(folder: Path, progress: Callable[[str], None]) -> GuestImage:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder.parent) as temporary:
        work = Path(temporary)
        progress("guest: fetching Debian packages")
        packages = Packages(work)
        versions = packages.fetch(progress)
        progress("guest: writing the image")
        result = work / "result"
        result.mkdir()
        image = result / _IMAGE
        _write_image(image, work, packages.root)
        with image.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        manifest = {"sha256": sha256, "size": image.stat().st_size, "packages": versions}
        (result / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        # What is there can only be the remains of an image that does not match its manifest.
        shutil.rmtree(folder, ignore_errors=True)
        result.rename(folder)
    built = _load(folder)
    if built is None:
        raise GuestError(f"{folder} was changed while the guest image was being put there")
    progress(f"guest: {built.size / 2**20:.1f} MiB in {time.monotonic() - started:.1f} s")
    return built


def _write_image(image: Path, work: Path, packages: Path) -> None:
    tree, archive = work / "tree", work / "initrd"
    initramfs.assemble(packages, tree)
    initramfs.pack(tree, archive)
    kernel = packages / "boot" / f"vmlinuz-{initramfs.kernel_version(packages)}"
    uefi_loader = initramfs.find(packages, "usr/lib/systemd/boot/efi/systemd-bootx64.efi")
    disk.write(image, work, kernel, archive, uefi_loader)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
