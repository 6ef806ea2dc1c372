"""What the driver contract cannot see of the simulation: its truth, its faults, and that a seed repeats it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from drivers.contract import documents
from drivers.errors import HostTimeout, HostUnavailable, NotConnected, NotFound, Refused, StorageFull
from drivers.hypervisor import HostTarget, Hypervisor
from drivers.model import ConnectionState, DomainState, StopReason
from drivers.simulated import (
    Breach,
    Delay,
    Entry,
    LoseReply,
    LoseRequest,
    Raise,
    Rule,
    SimulatedDirectory,
    World,
    guests,
)
from tests.unit.drivers.simulated_bed import SHARED, connected, define, disk, fleet, seen, until
from tests.virtual_time import virtual_time

pytestmark = virtual_time

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
    assert await host.volume_names(SHARED) == frozenset()
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
        await host.volume_names(SHARED)
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
