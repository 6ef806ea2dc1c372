import lzma
from pathlib import Path

import pytest

from lab.guest import GuestError
from lab.guest.modules import depends, load_order


def module(*needs: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0intree=Y\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "6.99.0-cloud"
    files = {
        "drivers/virtio/virtio.ko": module("virtio_ring"),
        "drivers/virtio/virtio_ring.ko": module(),
        "drivers/block/virtio_blk.ko.xz": lzma.compress(module("virtio", "virtio_ring")),
        "drivers/char/hw_random/virtio-rng.ko": module("virtio", "rng-core"),
    }
    for name, content in files.items():
        path = root / "kernel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "modules.builtin").write_text("kernel/drivers/char/hw_random/rng-core.ko\n")
    return root


def test_what_a_module_needs_comes_before_it(tree: Path) -> None:
    names = [name for name, _ in load_order(tree, ["virtio_blk", "virtio_rng"])]
    assert names == ["virtio_ring", "virtio", "virtio_blk", "virtio_rng"]


def test_compressed_modules_come_out_uncompressed(tree: Path) -> None:
    assert dict(load_order(tree, ["virtio_blk"]))["virtio_blk"] == module("virtio", "virtio_ring")


def test_what_is_built_in_is_left_out(tree: Path) -> None:
    assert load_order(tree, ["rng_core"]) == []


def test_a_module_that_the_kernel_lacks_is_named(tree: Path) -> None:
    with pytest.raises(GuestError, match=r"6\.99\.0-cloud has no module virtio_net"):
        load_order(tree, ["virtio_net"])


@pytest.mark.parametrize(("content", "expected"), [(module(), []), (module("a-b", "c"), ["a_b", "c"]), (b"", [])])
def test_needs_are_read_from_the_file(content: bytes, expected: list[str]) -> None:
    assert depends(content) == expected
