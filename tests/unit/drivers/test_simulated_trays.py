"""CD-ROM drives of simulated guests: what the contract cannot try for want of a guest that uses its medium."""

from __future__ import annotations

import pytest

from drivers.contract import documents
from drivers.errors import Refused
from drivers.hypervisor import Hypervisor
from drivers.simulated import Breach, SimulatedDirectory
from drivers.xmlread import read_domain
from tests.unit.drivers.simulated_bed import SHARED, connected, define, fleet
from tests.virtual_time import virtual_time

pytestmark = virtual_time

ONE = "6a1f1d0e-5b0e-4a53-9a39-4f4b0f0a8f11"


async def iso(host: Hypervisor, name: str) -> str:
    return (await host.create_volume(SHARED, documents.volume(name, "raw", 2048))).path


async def medium(host: Hypervisor, *, inactive: bool = False) -> str | None:
    devices = read_domain(await host.domain_xml(ONE, inactive=inactive)).devices
    return next(device.source for device in devices if device.alias == "ua-cdrom")


async def test_a_guest_keeps_the_medium_that_it_uses_until_it_is_forced() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    first, second = await iso(host, "a.iso"), await iso(host, "b.iso")
    await define(host, ONE, documents.cdrom(first))
    await host.start(ONE)
    machine = world.machines["kvm1"]
    machine.lock_tray(ONE, "ua-cdrom")
    begun = world.now
    with pytest.raises(Refused) as refused:
        await host.update_device(ONE, documents.cdrom(second))
    assert (refused.value.reason, world.now - begun >= 5) == ("TrayLocked", True)
    assert [await medium(host), await medium(host, inactive=True)] == [first, first]
    await host.update_device(ONE, documents.cdrom(first))
    await host.update_device(ONE, documents.cdrom(second), force=True)
    assert [await medium(host), await medium(host, inactive=True)] == [second, second]
    machine.lock_tray(ONE, "ua-cdrom")
    machine.lock_tray(ONE, "ua-cdrom", locked=False)
    await host.update_device(ONE, documents.cdrom(None))
    assert await medium(host) is None
    await directory.close()


async def test_a_plugged_drive_gets_a_tray_when_the_daemon_looks_again() -> None:
    world = fleet("kvm1")
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    first, second = await iso(host, "a.iso"), await iso(host, "b.iso")
    await define(host, ONE, documents.scsi())
    await host.start(ONE)
    await host.attach_device(ONE, documents.cdrom(first, bus="scsi"))
    with pytest.raises(Refused, match="not open"):
        await host.update_device(ONE, documents.cdrom(second, bus="scsi"), force=True)
    await directory.close()
    machine = world.machines["kvm1"]
    machine.daemon_kill()
    machine.daemon_start()
    directory = SimulatedDirectory(world)
    host = await connected(directory, "kvm1")
    await host.update_device(ONE, documents.cdrom(second, bus="scsi"))
    assert await medium(host) == second
    await directory.close()


async def test_a_medium_that_is_deleted_under_its_guest_is_recorded() -> None:
    world = fleet("kvm1", "kvm2")
    directory = SimulatedDirectory(world)
    host, other = await connected(directory, "kvm1"), await connected(directory, "kvm2")
    path = await iso(host, "a.iso")
    await define(host, ONE, documents.cdrom(path))
    await host.start(ONE)
    with pytest.raises(Refused):
        await host.delete_volume(SHARED, "a.iso")
    await other.delete_volume(SHARED, "a.iso")
    assert [violation.breach for violation in world.violations] == [Breach.DELETED_IN_USE]
    await directory.close()
