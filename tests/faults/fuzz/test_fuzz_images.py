"""Headers of images, mutated: what the parser takes, QEMU sees as the very same thing, or cannot open at all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcilers.disk.image import HEADER_BYTES, BadImage, inspect
from tests.faults.fuzz.campaign import campaign, tried

MIB = 2**20
SECTOR = 512
QCOW2 = ("-f", "qcow2")
MADE: dict[str, tuple[str, ...]] = {
    "qcow2": QCOW2,
    "qcow2-old": (*QCOW2, "-o", "compat=0.10"),
    "qcow2-small-clusters": (*QCOW2, "-o", "cluster_size=512"),
    "qcow2-large-clusters": (*QCOW2, "-o", "cluster_size=2M"),
    "qcow2-extended": (*QCOW2, "-o", "extended_l2=on"),
    "qcow2-zstd": (*QCOW2, "-o", "compression_type=zstd"),
    "qcow2-overlay": (*QCOW2, "-u", "-b", "/etc/passwd", "-F", "raw"),
    "qcow2-data-file": (*QCOW2, "-o", "data_file=other"),
    "vmdk": ("-f", "vmdk"),
    "vmdk-text": ("-f", "vmdk", "-o", "subformat=monolithicFlat"),
    "vdi": ("-f", "vdi"),
    "vpc": ("-f", "vpc"),
    "vhdx": ("-f", "vhdx"),
    "qed": ("-f", "qed"),
    "parallels": ("-f", "parallels"),
    "raw": ("-f", "raw"),
}
ISO = b"\0" * 32768 + b"\1CD001\1\0".ljust(2048, b" ") + b"\xffCD001\1".ljust(2048, b"\0")
WORDS = [
    b"QFI\xfb", b"\0\0\0\2", b"\0\0\0\3", b"DATA", b"\x05\x37\xbe\x77", b"\xe2\x79\x2a\xca", b"\x68\x03\xf8\x57",
    b"KDMV", b"COWD", b"# Disk DescriptorFile\n", b"version=1\n", b"version=2\r\n", b"#\n", b" \n", b"LUKS\xba\xbe",
    b"conectix", b"QED\0", b"WithoutFreeSpace", b"WithouFreSpacExt", b"vhdxfile", b"Bochs Virtual HD Image",
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", b"/etc/passwd", b"json:{}", b"\xff" * 8, b"\0" * 8, b"\0\0\0\1",
    b"\x7f\x10\xda\xbe",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def images(folder: Path) -> dict[str, bytes]:
    found = {"iso": ISO}
    for name, options in MADE.items():
        size = "0" if "-b" in options else "1M"
        words = ["qemu-img", "create", "-q", *options, name, size]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
        found[name] = (folder / name).read_bytes()[: 2 * MIB]
    return found


PLACES = st.one_of(
    st.integers(0, 600),
    st.integers(0, HEADER_BYTES - 1),
    st.sampled_from([0, 4, 8, 20, 24, 27, 30, 31, 60, 64, 72, 100, 104, 112]),
)
CHANGE = st.tuples(PLACES, st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=8)))


def as_qemu_sees(path: Path) -> dict[str, object] | None:
    """What QEMU says of the image by itself; None where it cannot open it."""
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", path.name], cwd=path.parent, capture_output=True, timeout=30
    )
    found: dict[str, object] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return found


@campaign(500)
@given(
    name=st.sampled_from(["iso", *MADE]),
    changes=st.lists(CHANGE, max_size=4),
    cut=st.none() | st.integers(0, 4096),
)
def test_what_is_taken_is_what_qemu_sees(
    folder: Path, images: dict[str, bytes], name: str, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    content = bytearray(images[name])
    for place, word in changes:
        content[place : place + len(word)] = word
    if cut is not None:
        del content[cut:]
    try:
        info = inspect(bytes(content[:HEADER_BYTES]), len(content))
    except BadImage as refusal:
        tried("image headers", refusal.reason)
        return
    path = folder / "tried"
    path.write_bytes(content)
    seen = as_qemu_sees(path)
    if seen is None:
        tried("image headers", f"{info.format}, which QEMU cannot open")
        return
    tried("image headers", info.format)
    assert seen["format"] == info.format
    assert "backing-filename" not in seen
    assert "data-file" not in json.dumps(seen.get("format-specific", {}))
    assert not seen.get("encrypted")
    whole = info.virtual_size if info.format == "qcow2" else -(-info.virtual_size // SECTOR) * SECTOR
    assert seen["virtual-size"] == whole


@campaign(3000)
@given(head=st.binary(max_size=200), size=st.integers(0, 2**63))
def test_no_bytes_make_the_parser_fail(head: bytes, size: int) -> None:
    for content in (head, b"QFI\xfb" + head, b"QFI\xfb\0\0\0\3" + head.ljust(200, b"\0")):
        try:
            tried("any bytes as a header", inspect(content, size).format)
        except BadImage as refusal:
            tried("any bytes as a header", refusal.reason)
