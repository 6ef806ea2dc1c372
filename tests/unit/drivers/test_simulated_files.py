"""Files of simulated machines: sparse bytes, images that QEMU reads, stores that are full."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drivers.contract import documents
from drivers.errors import StorageFull
from drivers.simulated import (
    Delay,
    File,
    Rule,
    SimulatedDirectory,
    qcow2,
)
from drivers.simulated.sparse import BLOCK, SparseBytes
from reconcilers.disk.image import ImageInfo, inspect
from tests.unit.drivers.simulated_bed import SHARED, connected, fleet, until, write_out
from tests.virtual_time import virtual_time

pytestmark = virtual_time


def test_sparse_bytes_are_bytes() -> None:
    rng = random.Random(5)
    sparse, plain = SparseBytes(), bytearray()
    for _ in range(300):
        offset, length = rng.randrange(3 * BLOCK), rng.choice((0, 1, 17, 4096, BLOCK, BLOCK + 1))
        data = rng.choice((bytes(length), rng.randbytes(length)))
        match rng.randrange(4):
            case 0:
                size = rng.randrange(4 * BLOCK)
                sparse.resize(size)
                plain = plain[:size].ljust(size, b"\0")
            case 1:
                assert sparse.read(offset, length) == plain[offset : offset + length]
            case _:
                sparse.write(offset, data)
                if data:
                    plain = plain.ljust(offset, b"\0")
                    plain[offset : offset + length] = data
        assert sparse.size == len(plain)
        assert sparse.copy().read(0, len(plain)) == plain
    assert sparse.allocated % 4096 == 0
    sparse.resize(0)
    assert sparse.allocated == 0


@pytest.mark.parametrize("size", [1, 2**20, 2**30 + 512, 20 * 2**40])
def test_a_new_image_has_a_header_that_we_read(size: int) -> None:
    image = qcow2.write(SparseBytes(), size)
    whole = max(size, 512)
    assert inspect(image.read(0, 65536), image.size) == ImageInfo("qcow2", whole)
    assert image.allocated < 2**20
    assert qcow2.read(image).size == whole


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_reads_the_images_that_are_written_and_the_other_way_round(tmp_path: Path) -> None:
    content = SparseBytes(size=3 * 2**30)
    rng = random.Random(6)
    for offset in (0, BLOCK - 5, 700 * 2**20, 2**31 + 4321):
        content.write(offset, rng.randbytes(100_000))
    ours, raw, theirs = tmp_path / "ours.qcow2", tmp_path / "raw", tmp_path / "theirs.qcow2"
    write_out(qcow2.write(content, content.size), ours)
    run("qemu-img", "check", "-f", "qcow2", str(ours))
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(ours), str(raw))
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(theirs))
    seen_by_us = qcow2.read(SparseBytes(theirs.read_bytes()))
    assert dict(seen_by_us.blocks()) == dict(content.blocks())
    with raw.open("rb") as read:
        for number, block in content.blocks():
            read.seek(number * BLOCK)
            assert read.read(len(block)) == block


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_grown_image_keeps_its_content_and_a_copy_is_a_file_of_its_own() -> None:
    world = fleet("kvm1")
    store, directory = world.stores["shared"], SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    content = SparseBytes(b"begin", 2**20)
    content.write(2**20 - 3, b"end")
    store.create("image.qcow2", File(qcow2.write(content, 2**20)))
    await host.resize_volume(SHARED, "image.qcow2", 2**30)
    await host.copy_volume(SHARED, documents.volume("copy.qcow2", "qcow2", 2**31), "image.qcow2")
    found = [await host.volume(SHARED, name) for name in sorted(await host.volume_names(SHARED))]
    assert {v.name: (v.format, v.capacity) for v in found if v is not None} == {
        "image.qcow2": ("qcow2", 2**30),
        "copy.qcow2": ("qcow2", 2**31),
    }
    store.write(store.files["image.qcow2"], 0, bytes(2**17))
    shown = store.files["copy.qcow2"].shown()
    assert (shown.read(0, 5), shown.read(2**20 - 3, 4)) == (b"begin", b"end\0")
    await directory.close()


async def test_a_copy_whose_machine_dies_leaves_what_looks_whole_and_is_not() -> None:
    world = fleet("kvm1", "kvm2")
    store, directory = world.stores["shared"], SimulatedDirectory(world)
    first, second = await connected(directory, "kvm1"), await connected(directory, "kvm2")
    store.create("image.qcow2", File(qcow2.write(SparseBytes(b"x" * 2**20), 2**20)))
    document = documents.volume("copy.qcow2", "qcow2", 2**20)
    world.faults.add(Rule(Delay(1), method="volume"))
    copying = asyncio.ensure_future(first.copy_volume(SHARED, document, "image.qcow2"))
    await until(lambda: "copy.qcow2" in store.files)
    world.machines["kvm1"].power_off()
    half = await second.volume(SHARED, "copy.qcow2")
    assert half is not None
    assert (half.format, half.capacity) == ("qcow2", 2**20)
    assert store.files["copy.qcow2"].shown().allocated == 0
    copying.cancel()
    await directory.close()


async def test_a_store_is_full_when_it_is_and_has_room_again() -> None:
    world = fleet("kvm1")
    store, directory = world.stores["shared"], SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    await host.create_volume(SHARED, documents.volume("data.raw", "raw", 2**20))
    before = store.available
    store.taken = before - 8192

    async def upload(size: int) -> None:
        async def data() -> AsyncIterator[bytes]:
            yield b"x" * size

        await host.upload(SHARED, "data.raw", data(), size=size)

    await upload(8192)
    assert (await host.pool_info(SHARED)).available == 0
    await upload(8192)
    with pytest.raises(StorageFull):
        await upload(8193)
    store.taken = 0
    await upload(2**20)
    assert before - store.available == 2**20
    await host.delete_volume(SHARED, "data.raw")
    assert store.available == before
    await directory.close()
