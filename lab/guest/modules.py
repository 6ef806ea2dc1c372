"""Which kernel modules the guest loads and in which order, read from the modules themselves.

A Debian kernel package carries no ``modules.dep`` (its installation makes it), so the ``depends=`` notes inside the
modules are used. That also keeps the order right (virtio_ring before virtio) when a newer kernel splits a driver.
"""

import lzma
import re
from collections.abc import Iterable
from pathlib import Path

from lab.guest.tools import GuestError

WANTED = (
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "button",
    "evdev",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
)

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def depends(module: bytes) -> list[str]:
    """The modules that must be loaded before ``module`` (the uncompressed ELF file), by canonical name."""
    found = _DEPENDS.search(module)
    if found is None or not found[1]:
        return []
    return [canonical(name) for name in found[1].decode().split(",")]


def canonical(name: str) -> str:
    """The kernel's spelling of a module name: files use ``-`` and ``_`` as they like."""
    return name.replace("-", "_")


def load_order(tree: Path, wanted: Iterable[str] = WANTED) -> list[tuple[str, bytes]]:
    """Name and uncompressed content of ``wanted`` and all they need, each after what it needs.

    ``tree`` is ``lib/modules/<version>``. What is built into the kernel is left out; what the kernel has in
    neither form raises GuestError.
    """
    files = {canonical(path.name.partition(".")[0]): path for path in sorted(tree.rglob("*.ko*"))}
    listed = (tree / "modules.builtin").read_text().splitlines()
    built_in = {canonical(Path(line).name.partition(".")[0]) for line in listed}
    order: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in order or name in built_in:
            return
        if name not in files:
            raise GuestError(f"{tree.name} has no module {name}")
        content = _content(files[name])
        for dependency in depends(content):
            visit(dependency)
        order[name] = content

    for name in wanted:
        visit(name)
    return list(order.items())


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
