"""qcow2 images as qemu-img writes them: header, refcounts, L1 and L2 tables, clusters; whole ones and overlays. Pure.

The layout is QEMU's docs/interop/qcow2. What is written here is a whole image that `qemu-img check` takes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from drivers import overlays
from drivers.overlays import BACKING_FORMAT, HEADER_BYTES, MAGIC, Backing
from drivers.simulated.sparse import BLOCK, SparseBytes

SECTOR = 512
_CLUSTER_BITS = 16
_L2_ENTRIES = BLOCK // 8
_OFFSET = 0x00FFFFFFFFFFFE00
_COPIED = 1 << 63
_COMPRESSED = 1 << 62
_ZERO = 1
_REFCOUNTS = BLOCK // 2
"""Clusters that one cluster of 16-bit reference counts covers."""


_HEADER_BYTES = 104


class Damaged(Exception):
    """An image that QEMU could not read either."""


def capacity(content: SparseBytes) -> int | None:
    """Virtual size of a qcow2 image, None for a file that is none."""
    head = content.read(0, 32)
    return int(struct.unpack_from(">Q", head, 24)[0]) if len(head) == 32 and head.startswith(MAGIC) else None


def backing(image: SparseBytes) -> Backing | None:
    """The layer below an image; None for one that needs none, and for a file that is no qcow2."""
    return overlays.backing(image.read(0, HEADER_BYTES))


def write(content: SparseBytes, size: int) -> SparseBytes:
    """An image of size bytes, rounded up to whole sectors as qemu-img does, that shows content to a guest."""
    size = -(-size // SECTOR) * SECTOR
    return _laid_out(content.blocks(), size) if content.allocated else _empty(size).copy()


def overlay(own: Mapping[int, bytes], size: int, below: Backing | None) -> SparseBytes:
    """An image of size bytes that has these blocks of its own (number → bytes, without zeros at the end), and shows the
    layer below elsewhere.
    """
    size = -(-size // SECTOR) * SECTOR
    return _laid_out(sorted(own.items()), size, below)


def own_blocks(image: SparseBytes) -> dict[int, bytes]:
    """The blocks that an image does not take from the layer below. Raises Damaged."""
    bits = int(struct.unpack_from(">I", image.read(20, 4))[0]) if image.size >= 24 else 0
    if bits != _CLUSTER_BITS:
        raise Damaged(f"layers of clusters of 2^{bits} bytes are not simulated")
    return {number: cluster.rstrip(b"\0") for number, cluster in _clusters(image, None)}


def read(image: SparseBytes, until: int | None = None, below: SparseBytes | None = None) -> SparseBytes:
    """What a guest sees of an image, or of its first `until` bytes; below: what the layer below it shows.

    Raises Damaged; data files are not followed but refused, and so is a backing file when there is nothing below.
    """
    if below is None and backing(image) is not None:
        raise Damaged("the image has a backing file")
    shown = SparseBytes() if below is None else below.copy()
    size, bits = struct.unpack(">QI", image.read(24, 8) + image.read(20, 4)) if image.size >= 32 else (0, 0)
    shown.resize(size)
    for number, cluster in _clusters(image, until):
        at = number << bits
        shown.write(at, cluster.ljust(1 << bits, b"\0")[: size - at])
    return shown


def own_block(image: SparseBytes, number: int) -> bytes | None:
    """One of the blocks that an image does not take from the layer below; None for one that it does. Raises Damaged."""
    entry = _entry(image, number)
    return _cluster(image, entry, _CLUSTER_BITS).ljust(BLOCK, b"\0") if entry else None


def place_of(image: SparseBytes, number: int) -> int | None:
    """Where in the file a block lies that can be written in place; None where it lies nowhere. Raises Damaged."""
    entry = _entry(image, number)
    return None if not entry or entry & (_COMPRESSED | _ZERO) else entry & _OFFSET


def _entry(image: SparseBytes, number: int) -> int:
    """What the tables say of a block; 0 for one that the image does not have."""
    head = image.read(0, 48)
    if len(head) < 48 or not head.startswith(MAGIC):
        raise Damaged("not a qcow2 image")
    bits, entries, table = *struct.unpack_from(">I", head, 20), *struct.unpack_from(">IQ", head, 36)
    if bits != _CLUSTER_BITS:
        raise Damaged(f"layers of clusters of 2^{bits} bytes are not simulated")
    first, second = divmod(number, _L2_ENTRIES)
    l2 = _table_entry(image, table, first) & _OFFSET if first < entries else 0
    return _table_entry(image, l2, second) if l2 else 0


def _clusters(image: SparseBytes, until: int | None) -> Iterable[tuple[int, bytes]]:
    """(number, bytes) of each cluster of the image itself; zeros at its end may be left out. Raises Damaged."""
    head = image.read(0, 104)
    if len(head) < 72 or not head.startswith(MAGIC):
        raise Damaged("not a qcow2 image")
    version, _, _, bits, size, encryption, entries, table = struct.unpack_from(">IQIIQIIQ", head, 4)
    incompatible = struct.unpack_from(">Q", head, 72)[0] if version >= 3 and len(head) >= 80 else 0
    if encryption or incompatible & ~0b1001 or not 9 <= bits <= 21:
        raise Damaged("the image has a data file or a feature that is not simulated")
    cluster = 1 << bits
    ends = size if until is None else min(until, size)
    covered = cluster * cluster // 8
    for first, l2_entry in enumerate(_table(image, table, min(entries, -(-ends // covered)))):
        l2 = l2_entry & _OFFSET
        if not l2:
            continue
        for second, entry in enumerate(_table(image, l2, cluster // 8)):
            number = first * (cluster // 8) + second
            if entry and number * cluster < ends:
                yield number, _cluster(image, entry, bits)


def _table(image: SparseBytes, offset: int, entries: int) -> tuple[int, ...]:
    """The entries of a table; empty ones at its end are left out, as most tables are nearly empty."""
    told = image.read(offset, entries * 8).rstrip(b"\0")
    filled = -(-len(told) // 8)
    return struct.unpack(f">{filled}Q", told.ljust(filled * 8, b"\0"))


def _table_entry(image: SparseBytes, offset: int, number: int) -> int:
    return int.from_bytes(image.read(offset + number * 8, 8).ljust(8, b"\0"), "big")


def _cluster(image: SparseBytes, entry: int, bits: int) -> bytes:
    if entry & _COMPRESSED:
        width = 62 - (bits - 8)
        offset = entry & ((1 << width) - 1)
        sectors = (entry >> width & ((1 << (bits - 8)) - 1)) + 1
        packed = image.read(offset, sectors * 512 - offset % 512)
        try:
            return zlib.decompressobj(-12).decompress(packed, 1 << bits)
        except zlib.error as error:
            raise Damaged(f"a compressed cluster cannot be read: {error}") from error
    if entry & _ZERO:
        return b""
    offset = entry & _OFFSET
    return image.block(offset // BLOCK) if bits == _CLUSTER_BITS else image.read(offset, 1 << bits)


@lru_cache(maxsize=64)
def _empty(size: int) -> SparseBytes:
    """Shared by all images of one size: only copies are given out."""
    return _laid_out((), size)


def _laid_out(blocks: Iterable[tuple[int, bytes]], size: int, below: Backing | None = None) -> SparseBytes:
    """An image with these blocks, in order; one without bytes is zeros that hide what lies below."""
    present = [(number, block) for number, block in blocks if number * BLOCK < size]
    data = [(number, block) for number, block in present if block]
    hidden = [number for number, block in present if not block] if below is not None else []
    entries = -(-size // (_L2_ENTRIES * BLOCK))
    l1_clusters = max(1, -(-entries * 8 // BLOCK))
    tables = sorted({number // _L2_ENTRIES for number, _ in data} | {number // _L2_ENTRIES for number in hidden})
    count_blocks = 1
    while (clusters := 2 + count_blocks + l1_clusters + len(tables) + len(data)) > count_blocks * _REFCOUNTS:
        count_blocks += 1
    l1 = 2 + count_blocks
    l2 = {table: l1 + l1_clusters + place for place, table in enumerate(tables)}
    first_data = l1 + l1_clusters + len(tables)
    image = SparseBytes(size=clusters * BLOCK)
    image.write(0, _header(size, entries, l1 * BLOCK, below))
    image.write(BLOCK, struct.pack(f">{count_blocks}Q", *((2 + number) * BLOCK for number in range(count_blocks))))
    image.write(2 * BLOCK, b"\0\1" * clusters)
    for table, place in l2.items():
        image.write(l1 * BLOCK + table * 8, struct.pack(">Q", place * BLOCK | _COPIED))
    for place, (number, block) in enumerate(data, first_data):
        table, entry = divmod(number, _L2_ENTRIES)
        image.write(l2[table] * BLOCK + entry * 8, struct.pack(">Q", place * BLOCK | _COPIED))
        image.put(place, block)
    for number in hidden:
        table, entry = divmod(number, _L2_ENTRIES)
        image.write(l2[table] * BLOCK + entry * 8, struct.pack(">Q", _ZERO))
    return image


def _header(size: int, entries: int, l1_offset: int, below: Backing | None) -> bytes:
    name, form = (b"", b"") if below is None else (below.name.encode(), below.format.encode())
    said = struct.pack(">II", BACKING_FORMAT, len(form)) + form.ljust(-(-len(form) // 8) * 8, b"\0") if form else b""
    extensions = said + bytes(8)  # the end of the extensions
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        MAGIC,
        3,  # version
        _HEADER_BYTES + len(extensions) if name else 0,  # backing file: offset
        len(name),  # and length of its name
        _CLUSTER_BITS,
        size,
        0,  # encryption
        entries,
        l1_offset,
        BLOCK,  # refcount table: offset
        1,  # and clusters
        0,  # internal snapshots: number
        0,  # and offset
        0,  # incompatible,
        0,  # compatible
        0,  # and autoclear features
        4,  # refcounts of 2^4 bits
        _HEADER_BYTES,  # length of this header
    )
    return header + extensions + name
