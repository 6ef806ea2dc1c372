"""Drives: disks and CD-ROM drives on virtio, SCSI and SATA, and the cloud-init seed, which is a CD-ROM too."""

from __future__ import annotations

import hashlib

from crds.virtual_machine import DiskBus, DiskType, GuestOS
from xmlgen.addresses import DrivePlace, PCIAddresses
from xmlgen.inputs import Drive, Image, default_bus
from xmlgen.parts import Part
from xmlgen.sections import FIXED, LUN, MEDIUM, SEED_ALIAS, Sections, medium
from xmlgen.xml import Element, element, fingerprint

SERIAL_MAX = 20
"""Length of a virtio drive's serial number."""


def seed_drive(path: str, guest_os: GuestOS) -> Drive:
    """The drive that a cloud-init seed lies in."""
    bus = default_bus(DiskType.CDROM, guest_os)
    return Drive("seed", DiskType.CDROM, bus, None, Image(path, "raw", readonly=True))


def drive_part(drive: Drive, alias: str, place: DrivePlace, addresses: PCIAddresses, boot: int | None) -> Part:
    """The drive's part. boot: its place in the boot order, counted from 1."""
    on_port = drive.bus is DiskBus.VIRTIO
    plain = _plain(drive, alias)
    address = addresses.take(alias) if on_port else _drive_address(place)
    live = _placed(plain, drive, place, address)
    whole = live.with_children(element("boot", {"order": str(boot)}) if boot is not None else None)
    return Part(whole, _sections(drive, alias, plain), alias, live, ports=1 if on_port else 0)


def serial(name: str) -> str:
    """The serial number that the guest sees: the drive's name, cut with a hash where it is too long."""
    if len(name) <= SERIAL_MAX:
        return name
    return f"{name[: SERIAL_MAX - 5]}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def _plain(drive: Drive, alias: str) -> Element:
    """The drive as the guest sees it, without what is in no fingerprint of it: its place, and a CD-ROM's medium."""
    image = drive.image
    name = (element("serial", {}, serial(drive.name)), element("alias", {"name": alias}))
    target = element("target", {"bus": drive.bus.value})
    if drive.type is DiskType.CDROM or image is None:
        driver = element("driver", {"name": "qemu", "cache": "none", "error_policy": "report", "io": "threads"})
        return element("disk", {"type": "file", "device": "cdrom"}, driver, target, element("readonly"), *name)
    sector = str(image.sector_size)
    return element(
        "disk",
        {"type": "file", "device": "disk"},
        _disk_driver(drive, image),
        element("source", {"file": image.path}),
        target,
        element("blockio", {"logical_block_size": sector, "physical_block_size": sector})
        if image.sector_size != 512
        else None,
        element("readonly") if image.readonly else None,
        element("shareable") if image.shared else None,
        *name,
    )


def _disk_driver(drive: Drive, image: Image) -> Element:
    driver = {
        "name": "qemu",
        "type": image.format,
        "cache": "none",
        # stop: a guest never sees an error that a full or unreachable storage made; it is paused until that is mended.
        "error_policy": "stop",
        "io": "threads",
        "discard": image.discard,
    }
    return element("driver", driver | ({"iothread": "1"} if drive.bus is DiskBus.VIRTIO else {}))


def _sections(drive: Drive, alias: str, plain: Element) -> Sections:
    sha = fingerprint(plain)
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


def _placed(plain: Element, drive: Drive, place: DrivePlace, address: Element | None) -> Element:
    """The plain drive with its target, its address and, for a CD-ROM drive, its medium."""
    driver, *others = plain.children
    image = drive.image if drive.type is DiskType.CDROM else None
    if image is not None:
        driver = driver.with_attributes({"type": image.format})
        others.insert(0, element("source", {"file": image.path}))
    others = [child.with_attributes({"dev": place.target}) if child.tag == "target" else child for child in others]
    return plain._replace(children=(driver, *others)).with_children(address)


def _drive_address(place: DrivePlace) -> Element:
    numbers = {"controller": str(place.controller), "bus": "0", "target": "0", "unit": str(place.unit)}
    return element("address", {"type": "drive"} | numbers)
