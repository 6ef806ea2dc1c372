"""Bytes of which most are zero: what is zero takes no memory, and copies share what they have in common."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 65536
"""Bytes that are kept together. As large as a qcow2 cluster, so that converting an image copies no bytes."""
_PAGE = 4096


class SparseBytes:
    """A mutable sequence of bytes."""

    __slots__ = ("_blocks", "allocated", "size")

    def __init__(self, data: bytes = b"", size: int = 0) -> None:
        """data, and zeros behind it up to size bytes in all."""
        self._blocks: dict[int, bytes] = {}
        self.size = 0
        self.allocated = 0
        """Bytes that it takes on a file system, whole pages."""
        self.write(0, data)
        self.resize(max(size, self.size))

    def copy(self) -> SparseBytes:
        """The same bytes, to be changed apart from these."""
        twin = SparseBytes()
        twin._blocks = dict(self._blocks)
        twin.size, twin.allocated = self.size, self.allocated
        return twin

    def read(self, offset: int, length: int) -> bytes:
        """At most length bytes from offset on; none behind the end."""
        ends = min(offset + length, self.size)
        parts = []
        while offset < ends:
            number, begin = divmod(offset, BLOCK)
            taken = min(BLOCK - begin, ends - offset)
            parts.append(self._blocks.get(number, b"")[begin : begin + taken].ljust(taken, b"\0"))
            offset += taken
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Replace what lies there; writing behind the end makes it longer, with zeros between."""
        if not data:
            return
        self.size = max(self.size, offset + len(data))
        done = 0
        while done < len(data):
            number, begin = divmod(offset + done, BLOCK)
            piece = data[done : done + BLOCK - begin]
            if len(piece) < BLOCK:
                before = self._blocks.get(number, b"")
                piece = before[:begin].ljust(begin, b"\0") + piece + before[begin + len(piece) :]
            done += BLOCK - begin
            self.put(number, piece)

    def resize(self, size: int) -> None:
        """Cut off what lies behind size, or add zeros."""
        if size < self.size:
            last, kept = divmod(size, BLOCK)
            for number in [number for number in self._blocks if number >= last]:
                self.put(number, self._blocks[number][:kept] if number == last else b"")
        self.size = size

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """(number, bytes) of each block that is not all zero, in order; zeros at a block's end are left out."""
        return iter(sorted(self._blocks.items()))

    def block(self, number: int) -> bytes:
        """One block, without the zeros at its end."""
        return self._blocks.get(number, b"")

    def put(self, number: int, block: bytes) -> None:
        """Replace a block, without making the whole longer."""
        before = self._blocks.pop(number, b"")
        block = block.rstrip(b"\0")
        if block:
            self._blocks[number] = block
        self.allocated += _pages(block) - _pages(before)


def _pages(block: bytes) -> int:
    return -(-len(block) // _PAGE) * _PAGE
