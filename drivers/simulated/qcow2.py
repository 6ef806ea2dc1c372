"""qcow2 images as qemu-img writes them: header, refcounts, L1 and L2 tables, clusters. Pure.

The layout is QEMU's docs/interop/qcow2. What is written here is a whole image that `qemu-img check` takes.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache

from drivers.simulated.sparse import BLOCK, SparseBytes

SECTOR = 512
MAGIC = b"QFI\xfb"
_CLUSTER_BITS = 16
_L2_ENTRIES = BLOCK // 8
_OFFSET = 0x00FFFFFFFFFFFE00
_COPIED = 1 << 63
_COMPRESSED = 1 << 62
_ZERO = 1
_REFCOUNTS = BLOCK // 2
"""Clusters that one cluster of 16-bit reference counts covers."""


class Damaged(Exception):
    """An image that QEMU could not read either."""


def capacity(content: SparseBytes) -> int | None:
    """Virtual size of a qcow2 image, None for a file that is none."""
    head = content.read(0, 32)
    return int(struct.unpack_from(">Q", head, 24)[0]) if len(head) == 32 and head.startswith(MAGIC) else None


def write(content: SparseBytes, size: int) -> SparseBytes:
    """An image of size bytes, rounded up to whole sectors as qemu-img does, that shows content to a guest."""
    size = -(-size // SECTOR) * SECTOR
    return _laid_out(content, size) if content.allocated else _empty(size).copy()


def read(image: SparseBytes, until: int | None = None) -> SparseBytes:
    """What a guest sees of an image, or of its first `until` bytes.

    Raises Damaged; backing files and data files are not followed but refused.
    """
    head = image.read(0, 104)
    if len(head) < 72 or not head.startswith(MAGIC):
        raise Damaged("not a qcow2 image")
    version, backing, _, bits, size, encryption, entries, table = struct.unpack_from(">IQIIQIIQ", head, 4)
    incompatible = struct.unpack_from(">Q", head, 72)[0] if version >= 3 and len(head) >= 80 else 0
    if backing or encryption or incompatible & ~0b1001 or not 9 <= bits <= 21:
        raise Damaged("the image has a backing file, a data file or a feature that is not simulated")
    shown = SparseBytes(size=size)
    cluster = 1 << bits
    ends = size if until is None else min(until, size)
    covered = cluster * cluster // 8
    for first, l2_entry in enumerate(_table(image, table, min(entries, -(-ends // covered)))):
        l2 = l2_entry & _OFFSET
        if not l2:
            continue
        for second, entry in enumerate(_table(image, l2, cluster // 8)):
            at = (first * (cluster // 8) + second) * cluster
            if entry and at < ends:
                shown.write(at, _cluster(image, entry, bits)[: size - at])
    return shown


def _table(image: SparseBytes, offset: int, entries: int) -> tuple[int, ...]:
    return struct.unpack(f">{entries}Q", image.read(offset, entries * 8).ljust(entries * 8, b"\0"))


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
    return b"" if entry & _ZERO else image.read(entry & _OFFSET, 1 << bits)


@lru_cache(maxsize=64)
def _empty(size: int) -> SparseBytes:
    """Shared by all images of one size: only copies are given out."""
    return _laid_out(SparseBytes(), size)


def _laid_out(content: SparseBytes, size: int) -> SparseBytes:
    data = [(number, block) for number, block in content.blocks() if number * BLOCK < size]
    entries = -(-size // (_L2_ENTRIES * BLOCK))
    l1_clusters = max(1, -(-entries * 8 // BLOCK))
    tables = sorted({number // _L2_ENTRIES for number, _ in data})
    count_blocks = 1
    while (clusters := 2 + count_blocks + l1_clusters + len(tables) + len(data)) > count_blocks * _REFCOUNTS:
        count_blocks += 1
    l1 = 2 + count_blocks
    l2 = {table: l1 + l1_clusters + place for place, table in enumerate(tables)}
    first_data = l1 + l1_clusters + len(tables)
    image = SparseBytes(size=clusters * BLOCK)
    image.write(0, _header(size, entries, l1 * BLOCK))
    image.write(BLOCK, struct.pack(f">{count_blocks}Q", *((2 + number) * BLOCK for number in range(count_blocks))))
    image.write(2 * BLOCK, b"\0\1" * clusters)
    for table, place in l2.items():
        image.write(l1 * BLOCK + table * 8, struct.pack(">Q", place * BLOCK | _COPIED))
    for place, (number, block) in enumerate(data, first_data):
        table, entry = divmod(number, _L2_ENTRIES)
        image.write(l2[table] * BLOCK + entry * 8, struct.pack(">Q", place * BLOCK | _COPIED))
        image.put(place, block)
    return image


def _header(size: int, entries: int, l1_offset: int) -> bytes:
    return struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        MAGIC,
        3,  # version
        0,  # backing file: offset
        0,  # and length of its name
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
        104,  # length of this header
    ) + bytes(8)  # end of the header extensions
