"""The header parser, with images that qemu-img made, and with bytes that nobody made."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconcilers.disk.image import HEADER_BYTES, BadImage, ImageInfo, inspect

MIB = 2**20
QCOW2 = ("create", "-q", "-f", "qcow2")


def qemu_img(directory: Path, *arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], cwd=directory, check=True, capture_output=True, text=True)


def look(path: Path) -> ImageInfo:
    with path.open("rb") as file:
        return inspect(file.read(HEADER_BYTES), path.stat().st_size)


def refused(path: Path) -> str:
    with pytest.raises(BadImage) as caught:
        look(path)
    assert caught.value.message
    return caught.value.reason


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Images of all kinds, by file name."""
    found = tmp_path_factory.mktemp("images")
    qemu_img(found, *QCOW2, "plain", "10M")
    qemu_img(found, *QCOW2, "-o", "compat=0.10", "old", "11M")
    qemu_img(found, *QCOW2, "-o", "cluster_size=512", "small-clusters", "1M")
    qemu_img(found, *QCOW2, "-o", "cluster_size=2M", "large-clusters", "1M")
    qemu_img(found, *QCOW2, "-o", "extended_l2=on", "extended", "1M")
    qemu_img(found, *QCOW2, "-o", "compression_type=zstd", "zstd-clusters", "1M")
    qemu_img(found, *QCOW2, "-o", "preallocation=metadata", "preallocated", "1M")
    qemu_img(found, *QCOW2, "-b", "plain", "-F", "qcow2", "overlay")
    qemu_img(found, *QCOW2, "-o", "compat=0.10", "-b", "plain", "-F", "qcow2", "old-overlay")
    qemu_img(found, *QCOW2, "-o", "data_file=secret", "external", "1M")
    qemu_img(found, *QCOW2, "-o", "data_file=secret-raw,data_file_raw=on", "external-raw", "1M")
    secret = ("--object", "secret,id=s,data=x")
    qemu_img(found, *QCOW2, *secret, "-o", "encrypt.format=aes,encrypt.key-secret=s", "encrypted", "1M")
    qemu_img(found, *QCOW2, "snapshots", "1M")
    qemu_img(found, "snapshot", "-c", "first", "snapshots")
    for kind in ("vmdk", "vdi", "vhdx", "vpc", "qed", "qcow"):
        qemu_img(found, "create", "-q", "-f", kind, kind, "1M")
    qemu_img(found, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "vmdk-text.vmdk", "1M")
    qemu_img(found, "create", "-q", "-f", "raw", "raw", "3M")
    return found


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("plain", 10),
        ("old", 11),
        ("small-clusters", 1),
        ("large-clusters", 1),
        ("extended", 1),
        ("zstd-clusters", 1),
        ("preallocated", 1),
    ],
)
def test_a_plain_qcow2_is_taken(images, name, size):
    assert look(images / name) == ImageInfo("qcow2", size * MIB)


def test_a_raw_image_is_as_large_as_its_file(images):
    assert look(images / "raw") == ImageInfo("raw", 3 * MIB)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("overlay", "BackingFile"),
        ("old-overlay", "BackingFile"),
        ("external", "ExternalDataFile"),
        ("external-raw", "ExternalDataFile"),
        ("encrypted", "EncryptedImage"),
        ("snapshots", "InternalSnapshots"),
        ("vmdk", "UnsupportedFormat"),
        ("vmdk-text.vmdk", "UnsupportedFormat"),
        ("vdi", "UnsupportedFormat"),
        ("vhdx", "UnsupportedFormat"),
        ("vpc", "UnsupportedFormat"),
        ("qed", "UnsupportedFormat"),
        ("qcow", "UnsupportedFormat"),
    ],
)
def test_what_is_not_plain_is_refused(images, name, reason):
    assert refused(images / name) == reason


@pytest.mark.parametrize(
    "head",
    [
        b"version=1\n",
        b"# a comment\n  \nversion=3\r\n",
        b"WithoutFreeSpace",
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop",
    ],
)
def test_what_qemu_would_tell_from_a_few_words_is_not_raw(head):
    with pytest.raises(BadImage, match="convert it with qemu-img") as caught:
        inspect(head.ljust(MIB, b"\0"), MIB)
    assert caught.value.reason == "UnsupportedFormat"


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh9", "bzip2"),
        (b"COWD", "VMDK"),
        (b"LUKS\xba\xbe", "LUKS"),
    ],
)
def test_compressed_and_foreign_files_are_named(magic, name):
    with pytest.raises(BadImage, match=name) as caught:
        inspect(magic + bytes(1000), 1003)
    assert caught.value.reason == "UnsupportedFormat"


def test_an_empty_file_is_no_image():
    with pytest.raises(BadImage) as caught:
        inspect(b"", 0)
    assert caught.value.reason == "EmptyImage"


def head(images: Path, name: str = "plain") -> bytearray:
    return bytearray((images / name).read_bytes()[:HEADER_BYTES])


def reason_of(data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        inspect(bytes(data), max(len(data), MIB))
    return caught.value.reason


@pytest.mark.parametrize("length", [4, 20, 71, 72, 90, 103, 104, 110])
def test_a_header_that_is_cut_off_is_refused(images, length):
    assert reason_of(head(images)[:length]) == "DamagedImage"


@pytest.mark.parametrize(
    ("offset", "layout", "value", "reason"),
    [
        (4, ">I", 1, "UnsupportedFormat"),
        (4, ">I", 4, "UnsupportedFormat"),
        (8, ">Q", 1024, "BackingFile"),
        (20, ">I", 8, "DamagedImage"),
        (20, ">I", 22, "DamagedImage"),
        (24, ">Q", 0, "EmptyImage"),
        (32, ">I", 1, "EncryptedImage"),
        (32, ">I", 2, "EncryptedImage"),
        (60, ">I", 1, "InternalSnapshots"),
        (72, ">Q", 1 << 0, "DamagedImage"),
        (72, ">Q", 1 << 1, "DamagedImage"),
        (72, ">Q", 1 << 2, "ExternalDataFile"),
        (72, ">Q", 1 << 5, "UnsupportedFormat"),
        (72, ">Q", 1 << 63, "UnsupportedFormat"),
        (100, ">I", 0, "DamagedImage"),
        (100, ">I", 72, "DamagedImage"),
        (100, ">I", 2**32 - 1, "DamagedImage"),
    ],
)
def test_each_field_counts(images, offset, layout, value, reason):
    data = head(images)
    struct.pack_into(layout, data, offset, value)
    assert reason_of(data) == reason


@pytest.mark.parametrize(
    ("kind", "reason"), [(0x44415441, "ExternalDataFile"), (0x0537BE77, "EncryptedImage"), (0x12345678, None)]
)
def test_header_extensions_are_walked(images, kind, reason):
    """A data file may be named although its feature bit is off: qemu would ignore it, and we still do not take it."""
    data = head(images)
    length = struct.unpack_from(">I", data, 100)[0]
    data[length:length] = struct.pack(">II", kind, 5) + b"/etc/" + bytes(3)
    data = data[:HEADER_BYTES]
    if reason is None:
        assert inspect(bytes(data), MIB).format == "qcow2"
    else:
        assert reason_of(data) == reason


def test_extensions_without_an_end_are_refused(images):
    data = head(images)
    length = struct.unpack_from(">I", data, 100)[0]
    struct.pack_into(">II", data, length, 0x12345678, 2**32 - 1)
    assert reason_of(data) == "DamagedImage"


# Bytes that nobody made ----------------------------------------------------------------------------------------------

MAGICS = (b"", b"QFI\xfb", b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\2", b"KDMV", b"\x1f\x8b")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MAGICS), st.binary(max_size=400), st.integers(0, 2**63))
@example(b"QFI\xfb", b"", 0)
def test_any_bytes_are_taken_or_refused_with_a_reason(magic, rest, size):
    found: ImageInfo | BadImage
    try:
        found = inspect(magic + rest, size)
    except BadImage as error:
        found = error
    if isinstance(found, BadImage):
        assert found.reason.isalnum()
        assert found.message
    else:
        assert found.format == ("qcow2" if magic.startswith(b"QFI") else "raw")
        assert found.virtual_size > 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(8, 200), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damage_lets_a_reference_to_another_file_through(images, changes):
    """Whatever is taken names no backing file, no data file, no encryption and no snapshots, as qemu reads it."""
    data = head(images)
    for offset, value in changes:
        data[offset] = value
    try:
        info = inspect(bytes(data), MIB)
    except BadImage:
        return
    version, backing, _, _, size, crypt = struct.unpack_from(">IQIIQI", data, 4)
    assert (backing, crypt) == (0, 0)
    assert struct.unpack_from(">I", data, 60)[0] == 0
    assert info == ImageInfo("qcow2", size)
    assert version == 3
    assert struct.unpack_from(">Q", data, 72)[0] & 0b111 == 0
    assert struct.unpack_from(">I", data, 100)[0] >= 104


def test_a_qcow2_that_ends_within_a_sector_is_damaged(images):
    """QEMU would count whole sectors only, and see another size than was compared with the declared one."""
    head = bytearray((images / "plain").read_bytes())
    struct.pack_into(">Q", head, 24, 1000)
    with pytest.raises(BadImage) as caught:
        inspect(bytes(head[:HEADER_BYTES]), len(head))
    assert caught.value.reason == "DamagedImage"
