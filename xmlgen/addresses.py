"""Where devices sit: what was kept is given back, what is new gets the first free place.

libvirt chooses PCI addresses (and the operator reads them back); drives' targets and their places on SCSI and SATA
controllers are chosen here, because libvirt would derive them from the order of the document, which edits change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from string import ascii_lowercase
from typing import NamedTuple

from crds.virtual_machine import DiskBus, Machine
from xmlgen.inputs import Kept
from xmlgen.xml import Element, element

SATA_PORTS = 6
"""Ports of one AHCI controller."""

_PCI = re.compile(r"pci:([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_DRIVE = re.compile(r"drive:(\d{1,3}):0:0:(\d{1,3})")
_PREFIX = {DiskBus.VIRTIO: "vd", DiskBus.SCSI: "sd", DiskBus.SATA: "sd"}
_TARGETS = {
    prefix: [prefix + first + second for first in ("", *ascii_lowercase) for second in ascii_lowercase]
    for prefix in _PREFIX.values()
}
"""Targets in the order that they are given out; a VM cannot have as many drives."""


class PCIAddress(NamedTuple):
    """A place on the PCI buses of the guest."""

    domain: int
    bus: int
    slot: int
    function: int

    def to_xml(self, *, multifunction: bool = False) -> Element:
        """Its element."""
        attributes = {
            "type": "pci",
            "domain": f"0x{self.domain:04x}",
            "bus": f"0x{self.bus:02x}",
            "slot": f"0x{self.slot:02x}",
            "function": f"0x{self.function:x}",
        }
        return element("address", attributes | ({"multifunction": "on"} if multifunction else {}))


def address_of(address: PCIAddress | None) -> Element | None:
    """The element of a kept address; None where libvirt shall choose one."""
    return address.to_xml() if address is not None else None


@dataclass
class PCIAddresses:
    """Gives kept PCI addresses out, each once."""

    machine: Machine
    kept: Mapping[str, Kept]
    highest_bus: int = 0
    _taken: set[PCIAddress] = field(default_factory=set)

    def take(self, alias: str) -> PCIAddress | None:
        """The kept address of a device; None where libvirt shall choose one."""
        kept = self.kept.get(alias)
        match = _PCI.fullmatch(kept.address or "") if kept else None
        if match is None:
            return None
        address = PCIAddress(*(int(group, 16) for group in match.groups()))
        if address in self._taken or not self._fits(address):
            return None
        self._taken.add(address)
        self.highest_bus = max(self.highest_bus, address.bus)
        return address

    def _fits(self, address: PCIAddress) -> bool:
        """Whether the address is one of this machine: it may have been another one when the address was kept.

        A q35 device is alone on its root port; on a pc, devices share bus 0 (and a bridge whose slot 0 is reserved).
        """
        if self.machine is Machine.Q35:
            return address.bus > 0 and address.slot == 0
        return address.slot > 0


class DrivePlace(NamedTuple):
    """A drive's target and, on SCSI and SATA, its place on the controller."""

    target: str
    controller: int = 0
    unit: int = 0
    """On virtio, where a drive is a PCI device of its own, controller and unit say nothing."""


def place_drives(drives: Sequence[tuple[str, DiskBus]], kept: Mapping[str, Kept]) -> dict[str, DrivePlace]:
    """A place for each drive (alias, bus): the kept one if it still fits the bus, else the first free one, in order."""
    targets: dict[str, str] = {}
    indices: dict[str, int] = {}
    taken: set[str | tuple[DiskBus, int]] = set()
    for alias, bus in drives:
        old = kept.get(alias)
        if old is None:
            continue
        if old.target and re.fullmatch(_PREFIX[bus] + "[a-z]{1,3}", old.target) and old.target not in taken:
            targets[alias] = old.target
            taken.add(old.target)
        index = _index(bus, old.address or "")
        if index is not None and (bus, index) not in taken:
            indices[alias] = index
            taken.add((bus, index))
    for alias, bus in drives:
        if alias not in targets:
            targets[alias] = next(target for target in _TARGETS[_PREFIX[bus]] if target not in taken)
            taken.add(targets[alias])
        if bus is not DiskBus.VIRTIO and alias not in indices:
            indices[alias] = next(index for index in count() if (bus, index) not in taken)
            taken.add((bus, indices[alias]))
    return {alias: _place(bus, targets[alias], indices.get(alias, 0)) for alias, bus in drives}


def _index(bus: DiskBus, address: str) -> int | None:
    """A kept drive address as a number that counts places of that bus."""
    match = _DRIVE.fullmatch(address)
    if match is None or bus is DiskBus.VIRTIO:
        return None
    controller, unit = int(match[1]), int(match[2])
    if bus is DiskBus.SCSI:
        return unit if controller == 0 and unit < 256 else None
    return controller * SATA_PORTS + unit if controller < 16 and unit < SATA_PORTS else None


def _place(bus: DiskBus, target: str, index: int) -> DrivePlace:
    if bus is DiskBus.VIRTIO:
        return DrivePlace(target)
    if bus is DiskBus.SCSI:
        return DrivePlace(target, 0, index)
    return DrivePlace(target, *divmod(index, SATA_PORTS))
