"""The domain document: generated once from what was declared and the pool's baseline, rendered for each host.

`generate` reads no host; `render` is the only place where a host's own values go in. Both are pure, and the same input
gives the same bytes, so a redefinition changes nothing but what was declared otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crds.virtual_machine import DiskBus, DiskType, FirmwareType
from xmlgen.addresses import PCIAddresses, place_drives
from xmlgen.controllers import pluggable_room, port_parts, sata_parts, scsi_part
from xmlgen.disks import drive_part, seed_drive
from xmlgen.inputs import DomainInput, Drive, Image, Kept, Nic, default_bus
from xmlgen.mac import stable_mac
from xmlgen.metadata import Identity, metadata_element, metadata_xml
from xmlgen.names import domain_name
from xmlgen.nics import nic_part
from xmlgen.parts import Part, remembered
from xmlgen.peripherals import peripheral_parts
from xmlgen.platform import clock_part, cpu_part, end_parts, features_part, machine_type, memory_parts, vcpu_parts
from xmlgen.sections import PORTS, SEED_ALIAS, Sections
from xmlgen.xml import Element, element, fingerprint, to_text

__all__ = [
    "DomainDocument",
    "DomainInput",
    "Drive",
    "HostPlaceholders",
    "Identity",
    "Image",
    "Kept",
    "Nic",
    "default_bus",
    "device_xml",
    "generate",
    "metadata_xml",
    "render",
]


@dataclass(frozen=True)
class HostPlaceholders:
    """All that a document takes from the host it is rendered for."""

    virtualization: str
    """kvm or qemu."""
    uefi: tuple[str, str] | None = None
    """Paths of the UEFI loader and of the template of its variables."""


@dataclass(frozen=True)
class DomainDocument:
    """A domain document without what a host fills in."""

    identity: Identity
    name: str
    """Name of the domain."""
    uuid: str
    architecture: str
    machine: str
    """Versioned machine type."""
    nvram: str | None
    """Path of the UEFI variables; None boots by BIOS."""
    before_os: tuple[Part, ...]
    after_os: tuple[Part, ...]
    devices: tuple[Part, ...]
    sections: Sections
    """(name, fingerprint) of each section: see `xmlgen.sections`."""


def generate(source: DomainInput) -> DomainDocument:
    """The document of a VM.

    Raises ValueError for a machine family that the pool does not have, for UEFI without a path for its variables, and
    for text that XML cannot carry.
    """
    spec = source.spec
    uefi = spec.firmware.type is FirmwareType.UEFI
    if uefi and source.nvram is None:
        raise ValueError("firmware UEFI needs a path for its variables")
    machine = machine_type(spec.machine, source.baseline)
    before = (*memory_parts(spec.memory.size), *vcpu_parts(spec.cpu.count))
    after = (
        features_part(spec.guest_os, source.baseline),
        cpu_part(spec.cpu, source.baseline),
        clock_part(spec.guest_os, source.baseline),
        *end_parts(),
    )
    boot = _boot_order(source.drives, source.nics)
    devices, room = _devices(source, boot)
    sections = (
        ("machine", _words(source.baseline.architecture, machine)),
        ("firmware", _words(spec.firmware.type.value, source.nvram if uefi else None)),
        *(section for part in (*before, *after) for section in part.sections),
        ("boot", _words(*_lasting(boot, source))),
        (PORTS, str(room)),
        *(section for part in devices for section in part.sections),
    )
    return DomainDocument(
        identity=source.identity,
        name=domain_name(source.identity.namespace, source.identity.name),
        uuid=source.uuid,
        architecture=source.baseline.architecture,
        machine=machine,
        nvram=source.nvram if uefi else None,
        before_os=before,
        after_os=after,
        devices=devices,
        sections=sections,
    )


def render(document: DomainDocument, placeholders: HostPlaceholders) -> str:
    """The document as libvirt on one host takes it. Raises ValueError where the host has no UEFI and it is needed."""
    return to_text(
        element(
            "domain",
            {"type": placeholders.virtualization},
            element("name", {}, document.name),
            element("uuid", {}, document.uuid),
            element("metadata", {}, metadata_element(document.identity, document.sections)),
            *(part.xml for part in document.before_os),
            _os(document, placeholders),
            *(part.xml for part in document.after_os),
            element("devices", {}, *(part.xml for part in document.devices)),
        )
    )


def device_xml(document: DomainDocument, alias: str) -> str:
    """One drive, card or SCSI controller by itself, to be attached or updated while the domain runs. Raises KeyError.

    It names no boot order: libvirt refuses one that is taken, or another than the running one. So the domain's inactive
    definition has none for this device until it is defined again, which every start does.
    """
    for part in document.devices:
        if part.alias == alias and part.live is not None:
            return to_text(part.live)
    raise KeyError(alias)


@remembered
def _words(*words: str | None) -> str:
    """The fingerprint of values that are no element."""
    return fingerprint(*words)


def _os(document: DomainDocument, placeholders: HostPlaceholders) -> Element:
    machine = _machine(document.architecture, document.machine)
    if document.nvram is None:
        return element("os", {}, machine)
    if placeholders.uefi is None:
        raise ValueError("the host has no UEFI firmware")
    loader, template = placeholders.uefi
    variables = element("source", {"file": document.nvram})
    return element(
        "os",
        {},
        machine,
        element("loader", {"readonly": "yes", "type": "pflash"}, loader),
        element("nvram", {"template": template, "type": "file"}, variables),
    )


@remembered
def _machine(architecture: str, machine: str) -> Element:
    return element("type", {"arch": architecture, "machine": machine}, "hvm")


def _devices(source: DomainInput, boot: Sequence[str]) -> tuple[tuple[Part, ...], int]:
    """All devices, and how many pluggable ones have room."""
    spec = source.spec
    order = {alias: position for position, alias in enumerate(boot, start=1)}
    addresses = PCIAddresses(spec.machine, source.kept)
    drives = [(drive.alias, drive) for drive in source.drives]
    if source.seed is not None:
        drives.append((SEED_ALIAS, seed_drive(source.seed, spec.guest_os)))
    places = place_drives([(alias, drive.bus) for alias, drive in drives], source.kept)
    sata = {places[alias].controller for alias, drive in drives if drive.bus is DiskBus.SATA}
    pluggable = [
        *(drive_part(drive, alias, places[alias], addresses, order.get(alias)) for alias, drive in drives),
        *(nic_part(nic, _mac(nic, source), addresses, order.get(nic.alias)) for nic in source.nics),
        *([scsi_part(addresses)] if any(drive.bus is DiskBus.SCSI for _, drive in drives) else []),
    ]
    fixed = [
        *sata_parts(sata, spec.machine, addresses),
        *peripheral_parts(spec.devices, addresses),
    ]
    ports_fixed = sum(part.ports for part in fixed)
    ports_pluggable = sum(part.ports for part in pluggable)
    ports = port_parts(spec.machine, ports_fixed + ports_pluggable, addresses.highest_bus)
    room = pluggable_room(spec.machine, ports_pluggable, ports_fixed, addresses.highest_bus)
    return (*ports, *pluggable, *fixed), room


def _boot_order(drives: Sequence[Drive], nics: Sequence[Nic]) -> tuple[str, ...]:
    """Aliases of what is booted from, first to last: what the spec numbers, else the first disk and then CD-ROM drives,
    else the first network card.

    Other disks and cards are left out of the default: plugging one in must not change it.
    """
    devices: list[Drive | Nic] = [*drives, *nics]
    numbered = [(device.boot_order, device.alias) for device in devices if device.boot_order is not None]
    if numbered:
        return tuple(alias for _, alias in sorted(numbered, key=lambda entry: entry[0]))
    disks = [drive.alias for drive in drives if drive.type is DiskType.DISK]
    cdroms = [drive.alias for drive in drives if drive.type is DiskType.CDROM]
    return (*disks[:1], *cdroms) or tuple(nic.alias for nic in nics[:1])


def _lasting(boot: Sequence[str], source: DomainInput) -> tuple[str, ...]:
    """The boot order but for CD-ROM drives that nobody numbered: plugging one in or out waits for nothing."""
    unnumbered = {d.alias for d in source.drives if d.type is DiskType.CDROM and d.boot_order is None}
    kept = tuple(alias for alias in boot if alias not in unnumbered)
    return kept or tuple(nic.alias for nic in source.nics[:1])


def _mac(nic: Nic, source: DomainInput) -> str:
    kept = source.kept.get(nic.alias)
    return nic.mac or (kept.mac if kept else None) or stable_mac(source.identity.uid, nic.name)
