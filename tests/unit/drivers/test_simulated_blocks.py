"""Layers and block jobs of simulated machines: what goes wrong with them, and what must be found."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drivers.contract import documents
from drivers.contract.documents import COUNTED_BYTES, COUNTING_SECTOR, counted
from drivers.errors import Refused
from drivers.hypervisor import Hypervisor
from drivers.model import GuestFacts, Volume
from drivers.overlays import Backing
from drivers.simulated import Breach, SimulatedDirectory, World, layers, qcow2
from drivers.simulated.sparse import BLOCK, SparseBytes
from tests.unit.drivers.simulated_bed import SHARED, connected, define, fleet, seen, until, write_out
from tests.virtual_time import virtual_time

pytestmark = virtual_time

UUID = "0b54ca39-9bca-4fa5-8c31-c3ce5a2a79b2"
OTHER = "1c54ca39-9bca-4fa5-8c31-c3ce5a2a79b2"
ROOT = "ua-disk-vda"


async def overlay(host: Hypervisor, name: str, below: Volume) -> Volume:
    document = documents.volume(name, "qcow2", below.capacity, below=(below.name, below.format))
    return await host.create_volume(SHARED, document)


async def counting(host: Hypervisor) -> Volume:
    """A domain that counts; the disk that it began with."""
    base = await host.create_volume(SHARED, documents.volume("base.raw", "raw", COUNTED_BYTES))

    async def sector() -> AsyncIterator[bytes]:
        yield COUNTING_SECTOR

    await host.upload(SHARED, base.name, sector(), size=len(COUNTING_SECTOR))
    await define(host, UUID, documents.disk(base.path, "raw"))
    await host.start(UUID)
    await asyncio.sleep(5)
    return base


def numbers(world: World, name: str) -> tuple[int, ...]:
    store = world.stores["shared"]
    disk = layers.shown(layers.chain(store, name, store.files[name].format))
    return counted(disk.read(0, disk.size))


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_reads_overlays_zeros_included(tmp_path: Path) -> None:
    rng = random.Random(7)
    base = rng.randbytes(5 * BLOCK)
    own = {1: rng.randbytes(BLOCK), 3: b""}
    top = qcow2.overlay(own, 6 * BLOCK, Backing("base.raw", "raw"))
    (tmp_path / "base.raw").write_bytes(base)
    write_out(top, tmp_path / "top.qcow2")
    for command in (("check", "top.qcow2"), ("convert", "-f", "qcow2", "-O", "raw", "top.qcow2", "shown.raw")):
        done = subprocess.run(["qemu-img", *command], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    ours = qcow2.read(top, below=SparseBytes(base))
    theirs = (tmp_path / "shown.raw").read_bytes()
    assert ours.read(0, ours.size) == theirs
    assert theirs == base[:BLOCK] + own[1] + base[2 * BLOCK : 3 * BLOCK] + bytes(BLOCK) + base[4 * BLOCK :] + bytes(
        BLOCK
    )
    assert qcow2.backing(top) == ("base.raw", "raw")
    assert qcow2.own_blocks(top) == own


async def test_a_layer_that_a_job_writes_while_another_machine_reads_it_is_a_breach() -> None:
    world = fleet("kvm1", "kvm2")
    directory = SimulatedDirectory(world)
    here, there = await connected(directory, "kvm1"), await connected(directory, "kvm2")
    base = await counting(here)
    top, twin = await overlay(here, "top.qcow2", base), await overlay(here, "twin.qcow2", base)
    await here.snapshot(UUID, {ROOT: top.path})
    await define(there, OTHER, documents.disk(twin.path, "qcow2"), name="twin")
    await there.start(OTHER)
    assert world.violations == []
    await here.commit(UUID, ROOT, top.path, base.path)
    assert [violation.breach for violation in world.violations] == [Breach.CHANGED_IN_USE]
    await directory.close()


async def test_a_layer_that_another_domain_of_the_machine_reads_is_locked() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    base = await counting(host)
    top, twin = await overlay(host, "top.qcow2", base), await overlay(host, "twin.qcow2", base)
    await host.snapshot(UUID, {ROOT: top.path})
    await define(host, OTHER, documents.disk(twin.path, "qcow2"), name="twin")
    await host.start(OTHER)
    with pytest.raises(Refused) as refused:
        await host.commit(UUID, ROOT, top.path, base.path)
    assert refused.value.reason == "VolumeInUse"
    assert await host.block_job(UUID, ROOT) is None
    await directory.close()


async def test_a_job_that_finds_no_room_ends_and_the_drive_stays_as_it_is() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    base = await counting(host)
    top = await overlay(host, "top.qcow2", base)
    await host.snapshot(UUID, {ROOT: top.path})
    await asyncio.sleep(3)
    copy = await host.create_volume(SHARED, documents.volume("copy.qcow2", "qcow2", COUNTED_BYTES))
    store = world.stores["shared"]
    store.taken = store.available + store.taken - BLOCK
    await host.copy_block(UUID, ROOT, copy.path, "qcow2")
    await asyncio.sleep(5)
    assert await host.block_job(UUID, ROOT) is None
    drive = seen(host, UUID)
    assert drive is not None
    assert [(device.source, device.mirror) for device in drive.devices if device.alias == ROOT] == [(top.path, None)]
    with pytest.raises(Refused) as refused:
        await host.pivot(UUID, ROOT, copy.path)
    assert refused.value.reason == "NoBlockJob"
    await directory.close()


async def test_a_process_that_is_stopped_does_no_work() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    base = await counting(host)
    top = await overlay(host, "top.qcow2", base)
    await host.snapshot(UUID, {ROOT: top.path})
    await asyncio.sleep(3)
    machine = world.machines["kvm1"]
    await host.commit(UUID, ROOT, top.path, base.path, bandwidth=2**20)
    machine.freeze_qemu(UUID)
    before = numbers(world, base.name)
    await asyncio.sleep(30)
    assert numbers(world, base.name) == before
    machine.thaw_qemu(UUID)

    def ready() -> bool:
        domain = seen(host, UUID)
        mirrors = [device.mirror for device in domain.devices if device.mirror] if domain else []
        return bool(mirrors) and mirrors[0].ready

    await until(ready)
    assert max(numbers(world, base.name)) > max(before)
    await directory.close()


async def test_a_commit_that_ends_while_the_daemon_is_away_is_seen_when_it_is_back() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    base = await counting(host)
    first = await overlay(host, "first.qcow2", base)
    await host.snapshot(UUID, {ROOT: first.path})
    await asyncio.sleep(3)
    second = await overlay(host, "second.qcow2", first)
    await host.snapshot(UUID, {ROOT: second.path})
    await asyncio.sleep(3)
    whole = max(numbers(world, first.name))
    machine = world.machines["kvm1"]
    await host.commit(UUID, ROOT, first.path, base.path, bandwidth=2**20)
    machine.daemon_kill()
    await asyncio.sleep(10)
    assert max(numbers(world, base.name)) == whole
    machine.daemon_start()
    await until(lambda: host.view().fresh)
    domain = seen(host, UUID)
    assert domain is not None
    drive = next(device for device in domain.devices if device.alias == ROOT)
    assert (drive.source, drive.backing) == (second.path, (base.path,))
    assert await host.block_job(UUID, ROOT) is None
    await host.delete_volume(SHARED, first.name)
    await asyncio.sleep(3)
    assert min(numbers(world, second.name)) > whole
    assert world.violations == []
    await directory.close()


async def test_an_agent_freezes_thaws_and_is_needed_for_a_quiet_snapshot() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    base = await counting(host)
    top = await overlay(host, "top.qcow2", base)
    machine = world.machines["kvm1"]
    for call in (host.freeze, host.thaw, lambda uuid: host.snapshot(uuid, {ROOT: top.path}, quiesce=True)):
        with pytest.raises(Refused) as refused:
            await call(UUID)
        assert refused.value.reason == "AgentNotConnected"
    machine.guest_agent(UUID, GuestFacts("web", "Linux", ()))
    for _ in range(2):
        await host.freeze(UUID)
        assert machine.qemus[UUID].quiesced
    for _ in range(2):
        await host.thaw(UUID)
        assert not machine.qemus[UUID].quiesced
    await host.snapshot(UUID, {ROOT: top.path}, quiesce=True)
    assert not machine.qemus[UUID].quiesced
    assert machine.qemus[UUID].writes.keys() == {top.path}
    await directory.close()
