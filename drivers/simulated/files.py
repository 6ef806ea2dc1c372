"""Files: what lies on a store, whoever mounts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from drivers.errors import AlreadyExists, Refused, StorageFull
from drivers.simulated import qcow2
from drivers.simulated.sparse import SparseBytes

if TYPE_CHECKING:
    from drivers.simulated.qemu import Qemu


class File:
    """One file. Who has it open keeps it when its name is deleted, as on any file system."""

    __slots__ = ("busy", "content", "reserved", "unlinked", "writers")

    def __init__(self, content: SparseBytes, reserved: int = 0) -> None:
        self.content = content
        self.reserved = reserved
        """Bytes that were allocated for it in advance."""
        self.busy = False
        """Whether a copy is writing it right now."""
        self.writers: tuple[Qemu, ...] = ()
        """Processes that have it open for writing, on whatever machine."""
        self.unlinked = False
        """Whether its name was deleted: it takes no room then that anybody counts."""

    @property
    def format(self) -> str:
        """qcow2 or raw, as a look at its first bytes tells."""
        return "raw" if qcow2.capacity(self.content) is None else "qcow2"

    @property
    def capacity(self) -> int:
        """Bytes that a guest sees."""
        size = qcow2.capacity(self.content)
        return self.content.size if size is None else size

    @property
    def allocation(self) -> int:
        """Bytes that it takes on the store."""
        return max(self.reserved, self.content.allocated)

    def shown(self, until: int | None = None, below: SparseBytes | None = None) -> SparseBytes:
        """What a guest sees (of its first `until` bytes at least), not to be changed; below: what the next layer shows.

        Raises Refused for a qcow2 image that cannot be read, and for one that lacks the layer below.
        """
        if self.format == "raw":
            return self.content
        try:
            return qcow2.read(self.content, until, below)
        except qcow2.Damaged as error:
            raise Refused(f"qemu-img: {error}", reason="OperationFailed") from error


class Store:
    """The files of one file system. Machines that mount it see the same files at once."""

    __slots__ = ("_note", "_used", "capacity", "files", "name", "taken")

    def __init__(self, name: str, capacity: int, note: Callable[[str], None]) -> None:
        """note: told of each file that is made or deleted."""
        self.name = name
        self.capacity = capacity
        self.files: dict[str, File] = {}
        """By name. To be read; `create`, `write`, `replace` and `delete` change them."""
        self.taken = 0
        """Bytes that somebody else takes: set it to make the store full."""
        self._used = 0
        self._note = note

    @property
    def available(self) -> int:
        """Bytes that are free."""
        return max(0, self.capacity - self.taken - self._used)

    def create(self, name: str, file: File) -> File:
        """Add a file. Raises AlreadyExists, StorageFull."""
        if name in self.files:
            raise AlreadyExists(f"storage volume {name!r} exists already", reason="AlreadyExists")
        self._need(file.allocation)
        self.files[name] = file
        self._used += file.allocation
        self._note(f"file {name} made")
        return file

    def write(self, file: File, offset: int, data: bytes) -> None:
        """Write into a file, which grows with it. Raises StorageFull, and then nothing is written."""
        before = file.allocation
        if not file.unlinked and len(data) > self.available:
            # Only then is it worth finding out how much of it falls on what is there already.
            trial = file.content.copy()
            trial.write(offset, data)
            self._need(max(file.reserved, trial.allocated) - before)
        file.content.write(offset, data)
        self._count(file, file.allocation - before)

    def replace(self, file: File, content: SparseBytes) -> None:
        """Give a file other bytes. Raises StorageFull, and then it keeps those that it has."""
        growth = max(file.reserved, content.allocated) - file.allocation
        if not file.unlinked:
            self._need(growth)
        file.content = content
        self._count(file, growth)

    def grow(self, file: File, size: int) -> None:
        """Make a file larger for whoever reads it as the image that it is. Raises StorageFull."""
        if file.format == "raw":
            file.content.resize(size)
        elif (below := qcow2.backing(file.content)) is not None:
            self.replace(file, qcow2.overlay(qcow2.own_blocks(file.content), size, below))
        else:
            self.replace(file, qcow2.write(file.shown(), size))

    def delete(self, name: str) -> None:
        """Delete a file that is there. Its room is free at once, whoever has it open."""
        file = self.files.pop(name)
        self._used -= file.allocation
        file.unlinked = True
        self._note(f"file {name} deleted")

    def _count(self, file: File, growth: int) -> None:
        if not file.unlinked:
            self._used += growth

    def _need(self, growth: int) -> None:
        if growth > 0 and growth > (available := self.available):
            raise StorageFull(f"no space left on device: {growth} bytes needed, {available} free", reason="StorageFull")
