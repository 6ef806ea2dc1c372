"""Which files a QEMU holds open, named so that the same file is the same whichever host looks at it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.hosts.init import VIEW
from lab.state import Process

FileIdentity = tuple[int, int]


@dataclass(frozen=True)
class OpenFile:
    """A regular file that a process holds open.

    `path` as the process sees it; `identity` is device and inode of the file behind it (for the shared storage:
    of the backing folder, not of the host's view).
    """

    path: str
    identity: FileIdentity
    writable: bool


class Devices:
    """Turns the device number of a host's view of the shared storage into that of the folder behind it.

    `shared` is that folder, `init` the host's first process.
    """

    def __init__(self, shared: Path, init: Process) -> None:
        self._shared = shared.stat().st_dev
        try:
            self._view: int | None = Path(f"/proc/{init.pid}/root{VIEW}").stat().st_dev
        except OSError:
            # The process behind the view is dead: so is every file in it.
            self._view = None

    def identity(self, status: os.stat_result) -> FileIdentity:
        """A view hands inode numbers through as they are."""
        return (self._shared if status.st_dev == self._view else status.st_dev, status.st_ino)


def open_files(pid: int, devices: Devices) -> Iterator[OpenFile]:
    """The regular files that this process holds open now; nothing if it has ended."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        descriptors = list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return
    for descriptor in descriptors:
        try:
            status = descriptor.stat()
            flags = _flags(Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text())
            path = str(descriptor.readlink())
        except OSError:
            # Closed in between, or its storage is gone: then nothing is written through it either.
            continue
        if stat.S_ISREG(status.st_mode):
            yield OpenFile(path, devices.identity(status), flags & os.O_ACCMODE != os.O_RDONLY)


def _flags(text: str) -> int:
    """The flags of open(2) in the text of /proc/PID/fdinfo/N."""
    return next(int(line.split()[1], 8) for line in text.splitlines() if line.startswith("flags:"))
