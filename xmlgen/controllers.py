"""Controllers: PCI ports with room to plug devices in, and what SCSI and SATA drives hang on."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from crds.virtual_machine import Machine
from xmlgen.addresses import PCIAddress, PCIAddresses, address_of
from xmlgen.parts import Part, alias_of, remembered
from xmlgen.sections import SCSI
from xmlgen.xml import Element, element, fingerprint

SPARE_PORTS = 4
_FIRST_PORT_SLOT = 2
"""Slot 0 is the host bridge, slot 1 belongs to the graphics card."""
_PC_SLOTS = 29
"""Slots of a pc's PCI bus that are free: 32 without host bridge, south bridge and graphics card."""


def scsi_part(addresses: PCIAddresses) -> Part:
    """The virtio-scsi controller, which can be plugged in while the domain runs."""
    return _scsi(addresses.take(SCSI))


def sata_parts(indices: Collection[int], machine: Machine, addresses: PCIAddresses) -> Iterator[Part]:
    """The AHCI controllers with these indices; the first one of q35 is part of its mainboard."""
    for index in sorted(indices):
        built_in = machine is Machine.Q35 and index == 0
        alias = f"ua-sata{index}"
        controller = element("controller", {"type": "sata", "index": str(index)})
        if not built_in:
            controller = controller.with_children(alias_of(alias))
        section = (f"sata{index}", fingerprint(controller))
        address = None if built_in else address_of(addresses.take(alias))
        yield Part(controller.with_children(address), (section,), ports=0 if built_in else 1)


@remembered
def port_parts(machine: Machine, taken: int, highest_bus: int) -> tuple[Part, ...]:
    """The PCI ports of a q35 machine: as many as are taken and some to spare, at least up to the highest bus in use.

    Their own addresses are given too: which bus a device is on would else depend on what other devices there are. In no
    section: more or fewer empty ports are nothing that a guest is restarted for.
    """
    if machine is Machine.PC:
        return ()
    root = element("controller", {"type": "pci", "index": "0", "model": "pcie-root"})
    ports = range(1, max(taken + SPARE_PORTS, highest_bus) + 1)
    return (Part(root), *(Part(_port(index)) for index in ports))


def pluggable_room(machine: Machine, pluggable: int, fixed: int, highest_bus: int) -> int:
    """How many devices that can be plugged have room, those that are there included (section `ports`)."""
    if machine is Machine.PC:
        return max(pluggable, _PC_SLOTS - fixed)
    return max(pluggable + SPARE_PORTS, highest_bus - fixed)


@remembered
def _scsi(address: PCIAddress | None) -> Part:
    controller = element("controller", {"type": "scsi", "index": "0", "model": "virtio-scsi"}, alias_of(SCSI))
    whole = controller.with_children(address_of(address))
    return Part(whole, ((SCSI, fingerprint(controller)),), SCSI, whole, ports=1)


def _port(index: int) -> Element:
    slot, function = divmod(index - 1, 8)
    address = PCIAddress(0, 0, _FIRST_PORT_SLOT + slot, function).to_xml(multifunction=function == 0)
    attributes = {"type": "pci", "index": str(index), "model": "pcie-root-port"}
    return element("controller", attributes, element("target", {"chassis": str(index)}), address)
