"""The Debian packages of the guest, fetched and unpacked into a folder without installing anything.

The machine's own apt lists name the versions. If they are missing or too old to download from, private lists are
fetched into the work folder, so that neither root nor a change to the machine is needed.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.guest.tools import GuestError, run

KERNEL = "linux-image-cloud-amd64"
AGENT = "qemu-guest-agent"
BOOT_LOADER = "systemd-boot-efi"
SHELL = "busybox-static"

_DEPENDS = ("-o", "APT::Cache::ShowFull=false", "--important", "--no-recommends", "--no-suggests")
_DEPENDENCY = re.compile(r"^\s+\|?(?:Pre)?Depends: (\S+)$", re.MULTILINE)
_LIBRARY = re.compile(r"^(lib|zlib)")


@dataclass
class Packages:
    """apt for one work folder.

    ``options`` are given to every apt command (tests aim it at another release's lists with them).
    """

    work: Path
    options: Sequence[str] = field(default_factory=list)

    def fetch(self, progress: Callable[[str], None]) -> dict[str, str]:
        """Unpack everything that the guest is made of into ``root``; name and version of each package."""
        self.archives.mkdir(parents=True, exist_ok=True)
        try:
            self._download()
        except GuestError:
            progress("guest: the machine's package lists do not serve; fetching private ones")
            self._use_private_lists()
            self._download()
        return dict(self._unpack(archive) for archive in sorted(self.archives.glob("*.deb")))

    @property
    def archives(self) -> Path:
        """Where the .deb files are."""
        return self.work / "archives"

    @property
    def root(self) -> Path:
        """Where the packages' files are."""
        return self.work / "packages"

    def _download(self) -> None:
        kernel = self._dependencies([KERNEL])
        kernels = [name for name in kernel if name.startswith("linux-image-")]
        names = [*kernels, AGENT, BOOT_LOADER, SHELL, *self._libraries(AGENT)]
        self._apt("apt-get", "download", "-q", *names, cwd=self.archives)

    def _libraries(self, package: str) -> list[str]:
        """The library packages that ``package`` needs, at any depth (no interpreters, no maintenance tools)."""
        known: set[str] = set()
        frontier = [package]
        while frontier:
            wanted = {name for name in self._dependencies(frontier) if _LIBRARY.match(name) and "perl" not in name}
            frontier = sorted(wanted - known)
            known |= wanted
        return sorted(known)

    def _dependencies(self, packages: Iterable[str]) -> list[str]:
        found = _DEPENDENCY.findall(self._apt("apt-cache", *_DEPENDS, "depends", *packages))
        return [name for name in found if not name.startswith("<")]

    def _unpack(self, archive: Path) -> tuple[str, str]:
        run("dpkg-deb", "--extract", str(archive), str(self.root))
        shown = run("dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(archive))
        name, version = shown.decode().split()
        return name, version

    def _use_private_lists(self) -> None:
        state, cache = self.work / "apt-state", self.work / "apt-cache"
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        self.options = [*self.options, "-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}"]
        self._apt("apt-get", "update", "-q")

    def _apt(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        return run(tool, *self._apt_options(), *arguments, cwd=cwd).decode()

    def _apt_options(self) -> list[str]:
        # As root apt would fetch as the user _apt, who may not write into the work folder.
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        return [*sandbox, *self.options]
