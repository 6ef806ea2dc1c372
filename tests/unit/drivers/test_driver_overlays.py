"""What headers of overlays say, as qemu-img writes them."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from drivers.overlays import HEADER_BYTES, Backing, backing


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_what_qemu_img_wrote_is_read(compat: str, form: str, tmp_path: Path) -> None:
    for command in (
        ("create", "-q", "-f", form, "base", "1M"),
        ("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", "-b", "base", "-F", form, "top"),
    ):
        subprocess.run(["qemu-img", *command], check=True, cwd=tmp_path)
    assert backing((tmp_path / "top").read_bytes()[:HEADER_BYTES]) == Backing("base", form)
    assert backing((tmp_path / "base").read_bytes()[:HEADER_BYTES]) is None


def test_anything_can_be_read() -> None:
    rng = random.Random(8)
    for _ in range(300):
        head = bytearray(b"QFI\xfb\0\0\0\3" + rng.randbytes(rng.randrange(300)))
        head[8:16] = rng.choice((bytes(8), (104).to_bytes(8, "big"), head[8:16]))
        backing(bytes(head))
    assert backing(b"") is None
