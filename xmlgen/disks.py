"""Drives: disks and CD-ROM drives on virtio, SCSI and SATA, and the cloud-init seed, which is a CD-ROM too."""

from __future__ import annotations

import hashlib

from crds.virtual_machine import DiskBus, DiskType, GuestOS
from xmlgen.addresses import DrivePlace, PCIAddresses, address_of
from xmlgen.inputs import Drive, Image, default_bus
from xmlgen.parts import Part, alias_of, boot_of, remembered
from xmlgen.sections import FIXED, LUN, MEDIUM, SEED_ALIAS, Sections, medium
from xmlgen.xml import Element, element, fingerprint

SERIAL_MAX = 20
"""Length of a virtio drive's serial number."""

_DISK = {"type": "file", "device": "disk"}
_CDROM = {"type": "file", "device": "cdrom"}


def seed_drive(path: str, guest_os: GuestOS) -> Drive:
    """The drive that a cloud-init seed lies in."""
    bus = default_bus(DiskType.CDROM, guest_os)
    return Drive("seed", DiskType.CDROM, bus, None, Image(path, "raw", readonly=True))


def drive_part(drive: Drive, alias: str, place: DrivePlace, addresses: PCIAddresses, boot: int | None) -> Part:
    """The drive's part. boot: its place in the boot order, counted from 1."""
    on_port = drive.bus is DiskBus.VIRTIO
    address = address_of(addresses.take(alias)) if on_port else _drive_address(place)
    plain, placed = _drive(drive, alias, place.target)
    live = placed.with_children(address)
    sections = _sections(drive, alias, fingerprint(plain))
    return Part(live.with_children(boot_of(boot)), sections, alias, live, ports=1 if on_port else 0)


def serial(name: str) -> str:
    """The serial number that the guest sees: the drive's name, cut with a hash where it is too long."""
    if len(name) <= SERIAL_MAX:
        return name
    return f"{name[: SERIAL_MAX - 5]}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def _drive(drive: Drive, alias: str, target: str) -> tuple[Element, Element]:
    """The drive twice: without what is in no fingerprint of it (its place, and a CD-ROM's medium), and with its target
    and medium.
    """
    image = drive.image
    old, new = _target(drive.bus, None), _target(drive.bus, target)
    if drive.type is DiskType.CDROM or image is None:
        marks = _marks(drive.name, alias, readonly=True, shared=False)
        source = element("source", {"file": image.path}) if image is not None else None
        driver = _cdrom_driver(image.format if image is not None else None)
        empty = element("disk", _CDROM, _cdrom_driver(None), old, *marks)
        return empty, element("disk", _CDROM, driver, source, new, *marks)
    driver = _disk_driver(image.format, image.discard, iothread=drive.bus is DiskBus.VIRTIO)
    source = element("source", {"file": image.path})
    sectors = _sectors(image.sector_size)
    marks = _marks(drive.name, alias, readonly=image.readonly, shared=image.shared)
    return (
        element("disk", _DISK, driver, source, old, sectors, *marks),
        element("disk", _DISK, driver, source, new, sectors, *marks),
    )


@remembered
def _marks(name: str, alias: str, *, readonly: bool, shared: bool) -> tuple[Element, ...]:
    """What stands at a drive's end: how it may be used, and its names."""
    flags = [element(tag) for tag, holds in (("readonly", readonly), ("shareable", shared)) if holds]
    return (*flags, element("serial", {}, serial(name)), alias_of(alias))


@remembered
def _cdrom_driver(format: str | None) -> Element:  # noqa: A002
    driver = {"name": "qemu", "cache": "none", "error_policy": "report", "io": "threads"}
    return element("driver", driver | ({"type": format} if format is not None else {}))


@remembered
def _disk_driver(format: str, discard: str, *, iothread: bool) -> Element:  # noqa: A002
    driver = {
        "name": "qemu",
        "type": format,
        "cache": "none",
        # stop: a guest never sees an error that a full or unreachable storage made; it is paused until that is mended.
        "error_policy": "stop",
        "io": "threads",
        "discard": discard,
    }
    return element("driver", driver | ({"iothread": "1"} if iothread else {}))


@remembered
def _target(bus: DiskBus, target: str | None) -> Element:
    return element("target", {"bus": bus.value} | ({"dev": target} if target is not None else {}))


@remembered
def _sectors(size: int) -> Element | None:
    """The size of sectors, in bytes, where it is not the usual one."""
    if size == 512:
        return None
    return element("blockio", {"logical_block_size": str(size), "physical_block_size": str(size)})


def _sections(drive: Drive, alias: str, sha: str) -> Sections:
    if drive.type is DiskType.CDROM:
        # The seed is made before a VM is started, and read when it boots: it is not plugged.
        plugged = drive.bus is DiskBus.SCSI and alias != SEED_ALIAS
        path = drive.image.path if drive.image is not None else None
        return ((f"{alias}:{LUN if plugged else FIXED}", sha), (f"{alias}:{MEDIUM}", medium(path)))
    match drive.bus:
        case DiskBus.VIRTIO:
            return ((alias, sha),)
        case DiskBus.SCSI:
            return ((f"{alias}:{LUN}", sha),)
        case DiskBus.SATA:
            return ((f"{alias}:{FIXED}", sha),)


@remembered
def _drive_address(place: DrivePlace) -> Element:
    numbers = {"controller": str(place.controller), "bus": "0", "target": "0", "unit": str(place.unit)}
    return element("address", {"type": "drive"} | numbers)
