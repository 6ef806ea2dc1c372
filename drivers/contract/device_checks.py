"""Devices of running domains."""

from __future__ import annotations

from functools import partial

from drivers.contract import documents
from drivers.contract.bed import Bed, expect, refused, require, within
from drivers.errors import HostTimeout, NotFound, Refused
from drivers.xmlread import read_domain


async def a_device_is_attached_once(bed: Bed) -> None:
    """A device is plugged into the running domain and its definition, once; it is seen with address and source."""
    volume = await bed.volume()
    identifier = await bed.running()
    device = documents.disk(volume.path, "qcow2", target="vdb", alias="ua-disk-data")
    for _ in range(2):
        await bed.host.attach_device(identifier, device)
        seen = require(bed.seen(identifier), "seen")
        found = [device for device in seen.devices if device.alias == "ua-disk-data"]
        expect(len(found) == 1, f"{len(found)} devices of that alias")
        expect((found[0].target, found[0].source) == ("vdb", volume.path), f"{found[0]}")
        expect((found[0].address or "").startswith("pci:"), f"address: {found[0].address}")
        expect(volume.path in seen.images, f"images: {seen.images}")
    expect((await bed.host.domain_xml(identifier, inactive=True)).count("ua-disk-data") == 1, "in the definition")
    await bed.host.destroy(identifier)
    await bed.host.attach_device(identifier, device)
    expect((await bed.host.domain_xml(identifier)).count("ua-disk-data") == 1, "still once")


async def an_absent_device_is_detached(bed: Bed) -> None:
    """Detaching an absent device is done; from a domain that is off a device goes at once."""
    volume = await bed.volume()
    identifier = await bed.defined(documents.disk(volume.path, "qcow2", alias="ua-disk-data"))
    for _ in range(2):
        await bed.host.detach_device(identifier, "ua-disk-data")
        expect("ua-disk-data" not in await bed.host.domain_xml(identifier), "gone from the definition")
    expect(require(bed.seen(identifier), "seen").images == (), "and from what is seen")


async def a_guest_may_keep_a_device(bed: Bed) -> None:
    """A guest that does not give a device up makes the call raise HostTimeout in time, and the definition keeps it."""
    volume = await bed.volume()
    identifier = await bed.running(documents.disk(volume.path, "qcow2", alias="ua-disk-data"))
    await bed.host.suspend(identifier)
    with within(40.0, "detaching"):
        await refused(bed.host.detach_device(identifier, "ua-disk-data"), HostTimeout)
    expect("ua-disk-data" in await bed.host.domain_xml(identifier, inactive=True), "the definition keeps it")


async def a_medium_can_be_changed(bed: Bed) -> None:
    """The medium of a CD-ROM drive is changed and taken out in the running domain and its definition, in any format."""
    first, second = await bed.volume("raw", suffix=".iso"), await bed.volume("raw", suffix=".iso")
    other = await bed.volume("qcow2")
    identifier = await bed.running(documents.cdrom(None))
    for volume in (first, first, second, other, None, None, first):
        medium = documents.cdrom(None) if volume is None else documents.cdrom(volume.path, volume.format)
        await bed.host.update_device(identifier, medium)
        await _holds(bed, identifier, None if volume is None else volume.path)
    expect(require(bed.seen(identifier), "seen").images == (), "a CD-ROM is no image that is written")
    await refused(bed.host.delete_volume(bed.directory, first.name), Refused)


async def _holds(bed: Bed, identifier: str, path: str | None) -> None:
    """The drive is there, with this medium, in the running domain and its definition."""
    drives = [device for device in require(bed.seen(identifier), "seen").devices if device.alias == "ua-cdrom"]
    expect([drive.source for drive in drives] == [path], f"{drives}")
    inactive = read_domain(await bed.host.domain_xml(identifier, inactive=True)).devices
    defined = [device.source for device in inactive if device.alias == "ua-cdrom"]
    expect(defined == [path], f"the definition says {defined}")


async def a_drive_comes_and_goes(bed: Bed) -> None:
    """A CD-ROM drive with a medium is plugged in, with its controller, and unplugged; a medium in an absent drive is
    NotFound.
    """
    first, second = await bed.volume("raw", suffix=".iso"), await bed.volume("raw", suffix=".iso")
    identifier = await bed.running()
    drive = partial(documents.cdrom, bus="scsi")
    await refused(bed.host.update_device(identifier, drive(first.path)), NotFound)
    for device in (documents.scsi(), documents.scsi(), drive(first.path), drive(second.path)):
        await bed.host.attach_device(identifier, device)
    await _holds(bed, identifier, first.path)
    for _ in range(2):
        await bed.host.detach_device(identifier, "ua-cdrom")
        expect("ua-cdrom" not in await bed.host.domain_xml(identifier), "unplugged")
    await refused(bed.host.update_device(identifier, drive(first.path)), NotFound)
    await bed.host.attach_device(identifier, drive(second.path))
    await _holds(bed, identifier, second.path)


async def a_medium_of_a_drive_that_was_plugged_in_is_changed_or_its_drive_replaced(bed: Bed) -> None:
    """The medium of a drive that was plugged in is changed, or NoTray says that the drive is to be replaced. Force
    changes nothing about that.
    """
    first, second = await bed.volume("raw", suffix=".iso"), await bed.volume("raw", suffix=".iso")
    identifier = await bed.running(documents.scsi())
    drive = partial(documents.cdrom, bus="scsi")
    await bed.host.attach_device(identifier, drive(first.path))
    for force in (False, True):
        try:
            await bed.host.update_device(identifier, drive(second.path), force=force)
        except Refused as error:
            expect(error.reason == "NoTray", f"{error.reason}: {error.message}")
            await _holds(bed, identifier, first.path)
            await bed.host.detach_device(identifier, "ua-cdrom")
            await bed.host.attach_device(identifier, drive(second.path))
        await _holds(bed, identifier, second.path)


async def what_cannot_be_plugged_in_says_so(bed: Bed) -> None:
    """A SATA drive cannot be plugged in, an empty one not everywhere: NoHotPlug, and no document has it."""
    volume = await bed.volume("raw", suffix=".iso")
    identifier = await bed.running(documents.scsi(), documents.cdrom(None).replace("ua-cdrom", "ua-other"))
    for device in (documents.cdrom(volume.path, target="sdb"), documents.cdrom(None, target="sdb", bus="scsi")):
        try:
            await bed.host.attach_device(identifier, device)
        except Refused as error:
            expect(error.reason == "NoHotPlug", f"{error.reason}: {error.message}")
            for inactive in (False, True):
                there = "ua-cdrom" in await bed.host.domain_xml(identifier, inactive=inactive)
                expect(not there, f"inactive={inactive}")
        else:
            expect('bus="scsi"' in device, "no SATA controller takes drives while it runs")


async def a_disk_in_use_grows_and_never_shrinks(bed: Bed) -> None:
    """A running domain's disk grows; asking again, or for less, changes nothing."""
    volume = await bed.volume(capacity=2**20)
    identifier = await bed.running(documents.disk(volume.path, "qcow2"))
    for size in (4 * 2**20, 4 * 2**20, 2**20):
        await bed.host.resize_block(identifier, volume.path, size)
    await bed.host.destroy(identifier)
    found = require(await bed.host.volume(bed.directory, volume.name), "the volume")
    expect(found.capacity == 4 * 2**20, f"{found.capacity} bytes")


async def a_device_that_cannot_work_is_refused(bed: Bed) -> None:
    """A device over a missing file is refused, and no document has it."""
    identifier = await bed.running()
    device = documents.disk(f"{bed.directory}/contract-none.qcow2", "qcow2", target="vdb", alias="ua-disk-data")
    await refused(bed.host.attach_device(identifier, device), Refused)
    for inactive in (False, True):
        expect("ua-disk-data" not in await bed.host.domain_xml(identifier, inactive=inactive), f"inactive={inactive}")


CHECKS = (
    a_device_is_attached_once,
    an_absent_device_is_detached,
    a_guest_may_keep_a_device,
    a_medium_can_be_changed,
    a_drive_comes_and_goes,
    a_medium_of_a_drive_that_was_plugged_in_is_changed_or_its_drive_replaced,
    what_cannot_be_plugged_in_says_so,
    a_disk_in_use_grows_and_never_shrinks,
    a_device_that_cannot_work_is_refused,
)
