"""Reading the header of an image before anything on a host does.

An image comes from outside. A qcow2 header can name a backing file or an external data file, and whatever opens the
image on the host would open that file too: an import would hand out any file of the host. So the header is parsed here,
from the bytes themselves, and what is not plain is refused. The layout is QEMU's docs/interop/qcow2.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import Enum

HEADER_BYTES = 65536
"""How much of an image `inspect` wants to see: header and header extensions lie in the first cluster."""

_QCOW2_MAGIC = b"QFI\xfb"
_SECTOR = 512
_FOREIGN = (
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (64, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"QED\0", "QED"),
    (0, b"\x1f\x8b", "compressed twice (gzip)"),
    (0, b"\xfd7zXZ\0", "compressed twice (xz)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed twice (zstd)"),
    (0, b"BZh", "bzip2"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"Bochs Virtual HD Image", "Bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
)
# A VMDK descriptor, as QEMU tells one within the first sector: comments and blank lines, then the version.
_VMDK_TEXT = re.compile(rb"(#[^\n]*\n| +\r?\n)*version=[123]\r?\n")
_DIRTY, _CORRUPT, _EXTERNAL_DATA = 1 << 0, 1 << 1, 1 << 2
_KNOWN_INCOMPATIBLE = 0b11111  # dirty, corrupt, external data file, compression type, extended L2 entries
_EXTENSION_END, _EXTENSION_DATA_FILE, _EXTENSION_ENCRYPTION = 0, 0x44415441, 0x0537BE77


class Compression(Enum):
    """How a file is compressed; known by its first bytes, never by its name."""

    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"


_COMPRESSED = (
    (b"\x1f\x8b", Compression.GZIP),
    (b"\xfd7zXZ\0", Compression.XZ),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)
_ISO_SECTORS = (0x8001, 0x8801, 0x9001)
"""Where a volume descriptor of ECMA-119 (or ECMA-167, for UDF) has its identifier: from the 16th sector of 2 KiB on."""


class BadImage(Exception):
    """An image that is not taken; `reason` is one CamelCase word, the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class ImageInfo:
    """What a plain image is."""

    format: str
    """qcow2 or raw."""
    virtual_size: int
    """Bytes that a guest would see."""


def compression_of(head: bytes) -> Compression | None:
    """How the file that begins with `head` is compressed; None when it is not."""
    return next((kind for magic, kind in _COMPRESSED if head.startswith(magic)), None)


def is_iso(head: bytes) -> bool:
    """Whether the image that begins with `head` (its first HEADER_BYTES) is a CD or DVD: ISO 9660, UDF, or both."""
    first = head[_ISO_SECTORS[0] : _ISO_SECTORS[0] + 5]
    # A disc with UDF alone begins its extended area with BEA01, and NSR02 or NSR03 follows.
    others = {head[sector : sector + 5] for sector in _ISO_SECTORS[1:]}
    return first == b"CD001" or (first == b"BEA01" and not others.isdisjoint({b"NSR02", b"NSR03"}))


def most_bytes(virtual_size: int) -> int:
    """The largest image file that is taken for a disk of that size: qcow2's tables come to the content."""
    return virtual_size + virtual_size // 16 + 16 * 2**20


def too_large(limit: int) -> BadImage:
    """An image of unknown size that turns out to be more than its disk can hold."""
    return BadImage("ImageTooLarge", f"the image is larger than {limit} bytes: declare a larger size")


def inspect(head: bytes, file_size: int) -> ImageInfo:
    """The image that begins with `head` (its first HEADER_BYTES, or all of it) and is `file_size` bytes long.

    Raises BadImage for a format that is not taken, and for a qcow2 that refers to other files, is encrypted, carries
    internal snapshots, or is damaged.
    """
    if head.startswith(_QCOW2_MAGIC):
        return _qcow2(head)
    foreign = next((name for at, magic, name in _FOREIGN if head.startswith(magic, at)), None)
    if foreign is None and _VMDK_TEXT.match(head[:_SECTOR]):
        foreign = "VMDK"
    if foreign is not None:
        raise BadImage("UnsupportedFormat", f"the image is {foreign}: convert it with qemu-img to qcow2 or raw first")
    if file_size == 0:
        raise BadImage("EmptyImage", "the image is an empty file")
    return ImageInfo("raw", file_size)


def _qcow2(head: bytes) -> ImageInfo:
    if len(head) < 72:
        raise BadImage("DamagedImage", "the qcow2 header is cut off")
    version, backing, _, cluster_bits, size, crypt = struct.unpack_from(">IQIIQI", head, 4)
    snapshots = struct.unpack_from(">I", head, 60)[0]
    if version not in (2, 3):
        raise BadImage("UnsupportedFormat", f"qcow2 version {version} is not known")
    if not 9 <= cluster_bits <= 21:
        raise BadImage("DamagedImage", f"a qcow2 cluster cannot be 2^{cluster_bits} bytes")
    if backing:
        raise BadImage("BackingFile", "the image has a backing file: flatten it with `qemu-img convert` first")
    if crypt:
        raise BadImage("EncryptedImage", "the image is encrypted: decrypt it with `qemu-img convert` first")
    if snapshots:
        raise BadImage("InternalSnapshots", "the image has internal snapshots: delete them with `qemu-img snapshot -d`")
    if size % _SECTOR:
        raise BadImage("DamagedImage", f"a qcow2 image cannot hold {size} bytes, which are no whole sectors")
    if size == 0:
        raise BadImage("EmptyImage", "the image has no size")
    header_length = 72
    if version == 3:
        if len(head) < 104:
            raise BadImage("DamagedImage", "the qcow2 header is cut off")
        incompatible = struct.unpack_from(">Q", head, 72)[0]
        header_length = struct.unpack_from(">I", head, 100)[0]
        _check_features(incompatible)
        if not 104 <= header_length <= 1 << cluster_bits:
            raise BadImage("DamagedImage", f"a qcow2 header cannot be {header_length} bytes long")
    _check_extensions(head, header_length)
    return ImageInfo("qcow2", size)


def _check_features(incompatible: int) -> None:
    if incompatible & _EXTERNAL_DATA:
        raise BadImage("ExternalDataFile", "the image keeps its data in another file: use `qemu-img convert` first")
    if incompatible & (_DIRTY | _CORRUPT):
        raise BadImage("DamagedImage", "the image is marked dirty or corrupt: repair it with `qemu-img check -r all`")
    if incompatible & ~_KNOWN_INCOMPATIBLE:
        raise BadImage("UnsupportedFormat", "the image has qcow2 features that are not known here")


def _check_extensions(head: bytes, offset: int) -> None:
    """Walk the header extensions: neither a data file nor encryption may hide there."""
    while offset + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, offset)
        if kind == _EXTENSION_END:
            return
        if kind == _EXTENSION_DATA_FILE:
            raise BadImage("ExternalDataFile", "the image names an external data file: use `qemu-img convert` first")
        if kind == _EXTENSION_ENCRYPTION:
            raise BadImage("EncryptedImage", "the image is encrypted: decrypt it with `qemu-img convert` first")
        offset += 8 + (length + 7) // 8 * 8
    raise BadImage("DamagedImage", "the qcow2 header extensions do not end")
