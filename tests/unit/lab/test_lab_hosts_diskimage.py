"""Reading a guest's first bytes out of images as QEMU writes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.hosts.diskimage import UnreadableImageError, first_bytes

NUMBER = b"0000000000001234"


def _qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def _raw(folder: Path, start: bytes = NUMBER) -> Path:
    image = folder / "disk.raw"
    image.write_bytes(start + bytes(65536 * 2 - len(start)))
    return image


def _read(image: Path) -> bytes:
    return first_bytes(image, 16, Path)


def test_raw(tmp_path: Path) -> None:
    assert _read(_raw(tmp_path)) == NUMBER


def test_a_file_shorter_than_what_is_asked_for(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"12")
    assert _read(short) == b"12" + bytes(14)


@pytest.mark.parametrize(
    "options",
    [[], ["-c"], ["-o", "compat=0.10"], ["-o", "cluster_size=512"], ["-c", "-o", "cluster_size=4k"]],
    ids=" ".join,
)
def test_qcow2(tmp_path: Path, options: list[str]) -> None:
    image = tmp_path / "disk.qcow2"
    _qemu_img("convert", "-t", "unsafe", "-O", "qcow2", *options, _raw(tmp_path), image)
    assert _read(image) == NUMBER


def test_nothing_written_yet(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    _qemu_img("create", "-f", "qcow2", image, "1M")
    assert _read(image) == bytes(16)


def test_an_overlay_shows_what_lies_below_until_it_is_written(tmp_path: Path) -> None:
    base, image = _raw(tmp_path), tmp_path / "overlay.qcow2"
    _qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "/srv/shared/disk.raw", "-u", image, "128K")
    assert first_bytes(image, 16, lambda name: base.parent / Path(name).name) == NUMBER
    with pytest.raises(UnreadableImageError, match="missing"):
        first_bytes(image, 16, lambda name: tmp_path / "nowhere")
    _qemu_img("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", base, image)
    subprocess.run(["qemu-io", "-c", "write -P 57 0 512", image], check=True, capture_output=True)
    assert _read(image) == b"9" * 16
    subprocess.run(["qemu-io", "-c", "write -z 0 64k", image], check=True, capture_output=True)
    assert _read(image) == bytes(16)


def test_a_relative_backing_file_lies_beside_its_overlay(tmp_path: Path) -> None:
    _raw(tmp_path)
    image = tmp_path / "overlay.qcow2"
    _qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "disk.raw", image)
    assert _read(image) == NUMBER


def test_a_circle_of_backing_files_ends(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    _qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-u", "-b", "a.qcow2", image, "1M")
    with pytest.raises(UnreadableImageError, match="without end"):
        _read(image)


@pytest.mark.parametrize("option", ["data_file=outside.raw", "extended_l2=on", "compression_type=zstd"])
def test_what_it_cannot_read_it_says(tmp_path: Path, option: str) -> None:
    image = tmp_path / "disk.qcow2"
    _qemu_img("create", "-f", "qcow2", "-o", option.replace("outside", str(tmp_path / "outside")), image, "1M")
    with pytest.raises(UnreadableImageError, match="features"):
        _read(image)


@pytest.mark.parametrize("length", [4, 20, 71, 104, 70_000])
def test_an_image_cut_short_is_unreadable(tmp_path: Path, length: int) -> None:
    image = tmp_path / "disk.qcow2"
    _qemu_img("create", "-f", "qcow2", image, "1M")
    image.write_bytes(image.read_bytes()[:length])
    with pytest.raises(UnreadableImageError, match="cut short"):
        _read(image)
