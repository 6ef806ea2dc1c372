"""What a guest has written at the very beginning of its disk, read from the image file while the guest runs.

Only what the oracle needs of the formats raw and qcow2 (versions 2 and 3, zlib, with backing files), read
by ourselves: no lock is taken, nothing is opened for writing, and no tool decides for us.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"QFI\xfb"
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ZERO = 1
_HEADER_BYTES = 112
# Incompatible features of qcow2: where data lie elsewhere, or the tables mean something else.
_EXTERNAL_DATA, _OTHER_COMPRESSION, _EXTENDED_L2 = 1 << 2, 1 << 3, 1 << 4
# Longer chains than this are a circle.
_LONGEST_CHAIN = 64

Resolve = Callable[[str], Path]


class UnreadableImageError(Exception):
    """The file is no image this module can read: half written, another feature, a missing backing file."""


@dataclass(frozen=True)
class _Header:
    version: int
    backing: str | None
    cluster_bits: int
    level1_offset: int
    level1_entries: int


def first_bytes(image: Path, count: int, resolve: Resolve) -> bytes:
    """The first `count` bytes of the disk inside the image, at most one cluster (zeros where nothing was written).

    `resolve` turns the name of a backing file, as the image's host sees it, into a file here.
    Raises UnreadableImageError, or OSError when the image itself cannot be opened.
    """
    for _ in range(_LONGEST_CHAIN):
        with image.open("rb", buffering=0) as file:
            descriptor = file.fileno()
            start = os.pread(descriptor, _HEADER_BYTES, 0)
            if not start.startswith(_MAGIC):
                return os.pread(descriptor, count, 0).ljust(count, b"\0")
            header = _parse(start, descriptor)
            if (found := _first_cluster(descriptor, header, count)) is not None:
                return found
        if header.backing is None:
            return bytes(count)
        image = image.parent / resolve(header.backing)
        if not image.is_file():
            raise UnreadableImageError(f"backing file {image} is missing")
    raise UnreadableImageError(f"{image}: backing files without end")


def _parse(start: bytes, descriptor: int) -> _Header:
    if len(start) < 72:
        raise UnreadableImageError("header cut short")
    version, backing_at, backing_length, cluster_bits = struct.unpack_from(">IQII", start, 4)
    level1_entries, level1_offset = struct.unpack_from(">IQ", start, 36)
    features = struct.unpack_from(">Q", start, 72)[0] if version >= 3 and len(start) >= 80 else 0
    if version not in (2, 3) or features & (_EXTERNAL_DATA | _OTHER_COMPRESSION | _EXTENDED_L2):
        raise UnreadableImageError(f"qcow2 version {version} with features {features:#x}")
    backing = os.pread(descriptor, backing_length, backing_at).decode(errors="replace") if backing_at else None
    return _Header(version, backing, cluster_bits, level1_offset, level1_entries)


def _first_cluster(descriptor: int, header: _Header, count: int) -> bytes | None:
    """The beginning of the first cluster, None if this layer has none."""
    level2 = _entry(descriptor, header.level1_offset) & _OFFSET if header.level1_entries else 0
    entry = _entry(descriptor, level2) if level2 else 0
    if entry & _COMPRESSED:
        return _decompress(descriptor, entry, header.cluster_bits, count)
    if header.version >= 3 and entry & _ZERO:
        return bytes(count)
    offset = entry & _OFFSET
    return os.pread(descriptor, count, offset).ljust(count, b"\0") if offset else None


def _decompress(descriptor: int, entry: int, cluster_bits: int, count: int) -> bytes:
    width = 62 - (cluster_bits - 8)
    offset = entry & ((1 << width) - 1)
    sectors = ((entry & (_COMPRESSED - 1)) >> width) + 1
    packed = os.pread(descriptor, sectors * 512 - offset % 512, offset)
    try:
        return zlib.decompressobj(-12).decompress(packed, count)
    except zlib.error as error:
        raise UnreadableImageError(f"compressed cluster: {error}") from None


def _entry(descriptor: int, offset: int) -> int:
    content = os.pread(descriptor, 8, offset)
    if len(content) < 8:
        raise UnreadableImageError(f"table at {offset} cut short")
    return int.from_bytes(content, "big")
