"""What the driver contract cannot see of the simulation: its truth, its faults, and that a seed repeats it."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from drivers.contract import documents
from drivers.errors import HostTimeout, HostUnavailable, NotConnected, NotFound, Refused, StorageFull
from drivers.hypervisor import ConnectionState, DomainState, HostTarget, Hypervisor, StopReason
from drivers.simulated import (
    Breach,
    Delay,
    Entry,
    File,
    LoseReply,
    LoseRequest,
    Raise,
    Rule,
    SimulatedDirectory,
    World,
    guests,
    qcow2,
)
from drivers.simulated.sparse import BLOCK, SparseBytes
from reconcilers.disk.image import ImageInfo, inspect
from tests.unit.drivers.simulated_bed import SHARED, connected, define, disk, fleet, seen, until

pytestmark = pytest.mark.looptime

ONE, TWO = "6a1f1d0e-5b0e-4a53-9a39-4f4b0f0a8f11", "7a1f1d0e-5b0e-4a53-9a39-4f4b0f0a8f12"


def running(world: World) -> list[tuple[str, str]]:
    """(machine, uuid) of all that truly runs."""
    return [(machine.name, process.uuid) for machine in world.machines.values() for process in machine.processes()]


# The truth -----------------------------------------------------------------------------------------------------------


async def test_two_writers_on_two_machines_are_possible_and_recorded() -> None:
    world = fleet("kvm1", "kvm2")
    directory = SimulatedDirectory(world)
    first, second = await connected(directory, "kvm1"), await connected(directory, "kvm2")
    device = await disk(first, "root.qcow2")
    await define(first, ONE, device)
    await define(second, TWO, device)
    await first.start(ONE)
    assert world.violations == []
    await second.start(TWO)
    assert [(violation.breach, violation.machines) for violation in world.violations] == [
        (Breach.TWO_WRITERS, ("kvm1", "kvm2"))
    ]
    assert world.machines["kvm2"].processes()[0].images == ((world.stores["shared"], "root.qcow2"),)
    await directory.close()


async def test_a_domain_that_runs_twice_is_recorded_also_without_disks() -> None:
    world = fleet("kvm1", "kvm2")
    directory = SimulatedDirectory(world)
    for name in ("kvm1", "kvm2"):
        host = await connected(directory, name)
        await define(host, ONE)
        await host.start(ONE)
    assert [violation.breach for violation in world.violations] == [Breach.TWO_PROCESSES]
    await directory.close()


async def test_a_second_writer_by_hot_plug_is_recorded() -> None:
    world = fleet("kvm1", "kvm2")
    directory = SimulatedDirectory(world)
    first, second = await connected(directory, "kvm1"), await connected(directory, "kvm2")
    device = await disk(first, "data.qcow2")
    await define(first, ONE, device)
    await define(second, TWO)
    await first.start(ONE)
    await second.start(TWO)
    await second.attach_device(TWO, device)
    assert [violation.breach for violation in world.violations] == [Breach.TWO_WRITERS]
    await directory.close()


async def test_an_image_deleted_from_another_machine_while_it_is_written_is_recorded() -> None:
    world = fleet("kvm1", "kvm2")
    directory = SimulatedDirectory(world)
    first, second = await connected(directory, "kvm1"), await connected(directory, "kvm2")
    await define(first, ONE, await disk(first, "root.qcow2"))
    await first.start(ONE)
    await second.delete_volume(SHARED, "root.qcow2")
    assert [violation.breach for violation in world.violations] == [Breach.DELETED_IN_USE]
    await directory.close()


async def test_an_unmounted_path_is_an_empty_folder_and_writes_do_not_reach_the_store() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    await define(host, ONE, await disk(host, "root.qcow2"))
    world.machines["kvm1"].unmount(SHARED)
    assert await host.list_volumes(SHARED) == ()
    with pytest.raises(Refused) as missing:
        await host.start(ONE)
    assert missing.value.reason == "VolumeMissing"
    await disk(host, "astray.qcow2")
    assert set(world.stores["shared"].files) == {"root.qcow2"}
    world.machines["kvm1"].mount(SHARED, world.stores["shared"])
    await host.start(ONE)
    await directory.close()


# Machines ------------------------------------------------------------------------------------------------------------


async def test_a_power_cut_is_silent_and_a_boot_brings_definitions_only() -> None:
    world = fleet("kvm1")
    machine, directory = world.machines["kvm1"], SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    await define(host, ONE, await disk(host, "root.qcow2"))
    await host.start(ONE)
    before = machine.boot_id
    machine.power_off()
    assert machine.processes() == ()
    observed = seen(host, ONE)
    assert observed is not None and observed.state is DomainState.RUNNING, "nobody has said anything"
    with pytest.raises(HostTimeout):
        await host.refresh(ONE)
    await until(lambda: host.view().state is ConnectionState.SUSPECT)
    with pytest.raises(NotConnected):
        await host.start(ONE)
    machine.power_on()
    await until(lambda: host.view().fresh)
    observed = seen(host, ONE)
    assert observed is not None and observed.state is DomainState.SHUT_OFF
    assert observed.stop_reason is StopReason.UNKNOWN
    assert machine.boot_id != before
    assert machine.processes() == ()
    with pytest.raises(NotFound):
        await host.list_volumes(SHARED)
    await directory.close()


async def test_a_call_that_a_partition_holds_up_arrives_when_it_heals_soon_and_never_later() -> None:
    for away, arrives in ((20, True), (60, False)):
        world = fleet("kvm1")
        machine, directory = world.machines["kvm1"], SimulatedDirectory(world)
        host = await connected(directory, "kvm1")
        await define(host, ONE)
        machine.partition()
        call = asyncio.ensure_future(host.start(ONE))
        await asyncio.sleep(away)
        assert not machine.processes()
        machine.heal()
        await asyncio.sleep(5)
        assert bool(machine.processes()) is arrives
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda host=host: host.view().fresh)
        await directory.close()


async def test_what_a_stopped_daemon_was_asked_takes_effect_when_it_goes_on_though_nobody_waits_any_more() -> None:
    world = fleet("kvm1")
    machine, directory = world.machines["kvm1"], SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    await define(host, ONE)
    machine.hang()
    with pytest.raises(HostUnavailable):
        await host.start(ONE)
    await directory.close()
    assert not machine.processes()
    machine.resume()
    assert [process.uuid for process in machine.processes()] == [ONE]


async def test_a_killed_daemon_finds_its_guests_again_and_misses_those_that_died() -> None:
    world = fleet("kvm1")
    machine, directory = world.machines["kvm1"], SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    await define(host, ONE)
    await define(host, TWO, name="db")
    await host.start(ONE)
    await host.start(TWO)
    machine.daemon_kill()
    machine.kill_qemu(TWO)
    await until(lambda: host.view().state is ConnectionState.SUSPECT)
    machine.daemon_start()
    await until(lambda: host.view().fresh)
    states = {uuid: domain.state for uuid in (ONE, TWO) if (domain := seen(host, uuid))}
    assert states == {ONE: DomainState.RUNNING, TWO: DomainState.SHUT_OFF}
    await directory.close()


async def test_a_guest_powers_off_by_itself_and_obeys_the_button_when_it_has_a_system() -> None:
    world = fleet("kvm1")
    machine, directory = world.machines["kvm1"], SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    device = await disk(host, "root.raw", "raw")
    world.stores["shared"].write(world.stores["shared"].files["root.raw"], 0, guests.SYSTEM)
    await define(host, ONE, device)
    for press in (lambda: host.shutdown(ONE), lambda: _at_once(machine.guest_shutdown, ONE)):
        await host.start(ONE)
        await press()
        await until(lambda: not machine.processes(), 10)
        await until(lambda: (found := seen(host, ONE)) is not None and found.state is DomainState.SHUT_OFF)
        found = seen(host, ONE)
        assert found is not None and found.stop_reason is StopReason.GUEST_SHUTDOWN
    await directory.close()


async def _at_once(call: Callable[[str], None], uuid: str) -> None:
    call(uuid)


async def test_an_obedient_guest_gives_a_device_up() -> None:
    world = fleet("kvm1", obedient=True)
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    await define(host, ONE)
    await host.start(ONE)
    await host.attach_device(ONE, await disk(host, "data.qcow2"))
    assert world.machines["kvm1"].processes()[0].images
    await host.detach_device(ONE, "ua-disk-vda")
    assert world.machines["kvm1"].processes()[0].images == ()
    await host.delete_volume(SHARED, "data.qcow2")
    assert world.violations == []
    await directory.close()


# The process that calls ----------------------------------------------------------------------------------------------


async def test_what_a_killed_process_has_sent_arrives_and_nothing_more() -> None:
    world = fleet("kvm1")
    machine = world.machines["kvm1"]
    killed, other = SimulatedDirectory(world, sender="killed"), SimulatedDirectory(world, sender="other")
    heard: list[tuple[str, str | None]] = []
    host = await connected(killed, "kvm1")
    await connected(other, "kvm1")
    await define(host, ONE)
    killed.subscribe(lambda name, uuid: heard.append((name, uuid)))
    sent = asyncio.ensure_future(host.start(ONE))
    await asyncio.sleep(0)
    killed.kill()
    later = asyncio.ensure_future(host.destroy(ONE))
    heard.clear()
    await asyncio.sleep(600)
    assert [process.uuid for process in machine.processes()] == [ONE], "started, and not destroyed"
    assert not sent.done() and not later.done(), "nobody is told"
    assert heard == []
    for task in (sent, later):
        task.cancel()
    await asyncio.gather(sent, later, return_exceptions=True)
    await other.close()


# Faults --------------------------------------------------------------------------------------------------------------


async def test_faults_befall_the_call_they_name() -> None:
    world = fleet("kvm1")
    machine, directory = world.machines["kvm1"], SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    loop = asyncio.get_running_loop()
    await define(host, ONE)

    rule = world.faults.add(Rule(Raise(StorageFull("full")), machine="kvm1", method="create_volume", nth=2))
    await disk(host, "one.qcow2")
    with pytest.raises(StorageFull):
        await disk(host, "two.qcow2")
    await disk(host, "three.qcow2")
    assert (rule.seen, rule.fired) == (3, 1)
    assert set(world.stores["shared"].files) == {"one.qcow2", "three.qcow2"}

    world.faults.add(Rule(LoseRequest(), method="start", nth=1))
    with pytest.raises(HostTimeout):
        await host.start(ONE)
    assert not machine.processes()

    world.faults.clear()
    world.faults.add(Rule(LoseReply(), method="start", nth=1))
    with pytest.raises(HostTimeout):
        await host.start(ONE)
    assert machine.processes()

    world.faults.clear()
    world.faults.add(Rule(Delay(7), method="destroy"))
    begun = loop.time()
    await host.destroy(ONE)
    assert 7 <= loop.time() - begun < 9
    await directory.close()


async def test_a_rule_by_chance_befalls_about_as_many_calls_as_it_says() -> None:
    rng = random.Random(1)
    rule = Rule(LoseReply(), method="read", probability=0.2)
    for _ in range(1000):
        rule.befalls("kvm1", "read", rng)
    assert 150 < rule.fired < 250


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


# A seed --------------------------------------------------------------------------------------------------------------


async def history(seed: int) -> list[Entry]:
    """What happens to a small fleet whose answers get lost."""
    world = fleet("kvm1", "kvm2", seed=seed)
    directory = SimulatedDirectory(world)
    first, second = await connected(directory, "kvm1"), await connected(directory, "kvm2")
    world.faults.add(Rule(LoseReply(), method="read", probability=0.2))
    await asyncio.gather(_life(first, ONE), _life(second, TWO))
    await directory.close()
    return list(world.log)


async def _life(host: Hypervisor, uuid: str) -> None:
    await define(host, uuid, await disk(host, f"{uuid}.qcow2"), documents.network_card("lan"))
    for _ in range(5):
        await host.start(uuid)
        await host.destroy(uuid)


async def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    begun = asyncio.get_running_loop().time()
    once, again, other = [
        [(round(entry.time - begins, 6), entry.where, entry.what) for entry in log]
        for seed in (1, 1, 2)
        for begins in [asyncio.get_running_loop().time()]
        for log in [await history(seed)]
    ]
    assert len(once) > 40 and asyncio.get_running_loop().time() > begun
    assert once == again
    assert once != other


# Files ---------------------------------------------------------------------------------------------------------------


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


def write_out(content: SparseBytes, path: Path) -> None:
    with path.open("wb") as file:
        for number, block in content.blocks():
            file.seek(number * BLOCK)
            file.write(block)
        file.truncate(content.size)


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
    volumes = {volume.name: (volume.format, volume.capacity) for volume in await host.list_volumes(SHARED)}
    assert volumes == {"image.qcow2": ("qcow2", 2**30), "copy.qcow2": ("qcow2", 2**31)}
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
    world.faults.add(Rule(Delay(1), method="list_volumes"))
    copying = asyncio.ensure_future(first.copy_volume(SHARED, document, "image.qcow2"))
    await until(lambda: "copy.qcow2" in store.files)
    world.machines["kvm1"].power_off()
    half = {volume.name: volume for volume in await second.list_volumes(SHARED)}["copy.qcow2"]
    assert (half.format, half.capacity) == ("qcow2", 2**20)
    assert store.files["copy.qcow2"].shown().allocated == 0
    copying.cancel()
    await directory.close()


async def test_a_uri_names_a_machine_or_says_that_there_is_none() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    for uri in ("simulated://kvm1", "qemu+tls://kvm1.lab:16514/system", "qemu+ssh://root@kvm1/system"):
        host = directory.ensure(HostTarget("host", uri))
        await until(lambda host=host: host.view().state is ConnectionState.CONNECTED)
    host = directory.ensure(HostTarget("host", "simulated://elsewhere"))
    await until(lambda: host.view().error is not None)
    error = host.view().error
    assert error is not None and error.reason == "Unresolvable"
    world.machines["kvm1"].daemon_kill()
    refused = directory.ensure(HostTarget("host", "simulated://kvm1"))
    await until(lambda: refused.view().error is not None)
    error = refused.view().error
    assert error is not None and error.reason == "Unreachable"
    await directory.close()
