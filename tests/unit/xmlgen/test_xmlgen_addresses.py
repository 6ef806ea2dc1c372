"""Where devices sit, from one definition to the next."""

from __future__ import annotations

import pytest
from lxml import etree

from crds.virtual_machine import DiskBus, Machine
from tests.unit.xmlgen.cases import LINUX, disk, domain, nic, spec
from xmlgen.addresses import PCIAddresses, place_drives
from xmlgen.domain import DomainInput, Kept, generate, render
from xmlgen.mac import stable_mac

VIRTIO, SCSI, SATA = DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.SATA


def devices(source: DomainInput) -> dict[str, etree._Element]:
    """The devices of the document, by alias."""
    root = etree.fromstring(render(generate(source), LINUX))
    return {alias.get("name"): alias.getparent() for alias in root.iterfind("devices/*/alias")}


def targets(drives: list[tuple[str, DiskBus]], kept: dict[str, Kept] | None = None) -> dict[str, tuple[str, int, int]]:
    places = place_drives(drives, kept or {})
    return {alias: (place.target, place.controller, place.unit) for alias, place in places.items()}


def test_new_drives_get_the_first_free_places_in_order() -> None:
    drives = [("a", VIRTIO), ("b", SCSI), ("c", SATA), ("d", VIRTIO), ("e", SCSI)]
    assert targets(drives) == {
        "a": ("vda", 0, 0), "b": ("sda", 0, 0), "c": ("sdb", 0, 0), "d": ("vdb", 0, 0), "e": ("sdc", 0, 1),
    }  # fmt: skip


def test_a_seventh_sata_drive_is_on_a_second_controller() -> None:
    places = targets([(str(number), SATA) for number in range(7)])
    assert places["5"] == ("sdf", 0, 5)
    assert places["6"] == ("sdg", 1, 0)


def test_the_twenty_seventh_drive_has_two_letters() -> None:
    assert targets([(str(number), VIRTIO) for number in range(28)])["27"][0] == "vdab"


def test_kept_places_come_first_whatever_the_order() -> None:
    kept = {"old": Kept("old", "drive:0:0:0:0", "sda"), "older": Kept("older", "drive:0:0:0:4", "sde")}
    assert targets([("new", SCSI), ("older", SCSI), ("old", SCSI)], kept) == {
        "new": ("sdb", 0, 1), "older": ("sde", 0, 4), "old": ("sda", 0, 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bus", "address", "target"),
    [(VIRTIO, "drive:0:0:0:3", "sda"), (SATA, "drive:0:0:0:9", "vdb"), (SCSI, "drive:1:0:0:0", "hda"),
     (SCSI, "pci:0000:03:00.0", "sd'/"), (SATA, "nonsense", "")],
)  # fmt: skip
def test_a_kept_place_of_another_bus_is_forgotten(bus: DiskBus, address: str, target: str) -> None:
    place = targets([("a", bus)], {"a": Kept("a", address, target)})["a"]
    assert place == ("vda" if bus is VIRTIO else "sda", 0, 0)


def test_two_drives_that_claim_one_place_both_get_one() -> None:
    kept = {alias: Kept(alias, "drive:0:0:0:0", "sda") for alias in "ab"}
    assert targets([("a", SCSI), ("b", SCSI)], kept) == {"a": ("sda", 0, 0), "b": ("sdb", 0, 1)}


@pytest.mark.parametrize(
    ("machine", "address", "fits"),
    [(Machine.Q35, "pci:0000:03:00.0", True), (Machine.Q35, "pci:0000:00:05.0", False),
     (Machine.Q35, "pci:0000:10:01.0", False), (Machine.PC, "pci:0000:00:05.0", True),
     (Machine.PC, "pci:0000:03:00.0", False), (Machine.PC, "drive:0:0:0:1", False)],
)  # fmt: skip
def test_a_kept_pci_address_of_another_machine_is_forgotten(machine: Machine, address: str, fits: bool) -> None:
    addresses = PCIAddresses(machine, {"a": Kept("a", address), "b": Kept("b", address)})
    assert (addresses.take("a") is not None) == fits
    assert addresses.take("b") is None, "an address is given out once"


def test_kept_devices_sit_where_they_sat() -> None:
    kept = {
        "ua-disk-root": Kept("ua-disk-root", "pci:0000:1e:00.0", "vdc"),
        "ua-nic-lan": Kept("ua-nic-lan", "pci:0000:02:00.0", None, "52:54:00:00:00:09"),
        "ua-rng": Kept("ua-rng", "pci:0000:03:00.0"),
    }
    source = domain(spec(disks=[disk("root")], nics=[nic("lan")]), kept=kept)
    found = devices(source)
    assert {alias: found[alias].find("address").get("bus") for alias in kept} == {
        "ua-disk-root": "0x1e", "ua-nic-lan": "0x02", "ua-rng": "0x03",
    }  # fmt: skip
    assert found["ua-disk-root"].find("target").get("dev") == "vdc"
    assert found["ua-nic-lan"].find("mac").get("address") == "52:54:00:00:00:09"
    ports = etree.fromstring(render(generate(source), LINUX)).findall("devices/controller[@model='pcie-root-port']")
    assert len(ports) == 0x1E, "every bus in use has its port"


def test_the_declared_mac_wins_over_the_kept_one_and_a_new_one_is_made_where_there_is_neither() -> None:
    kept = {
        "ua-nic-a": Kept("ua-nic-a", mac="52:54:00:00:00:09"),
        "ua-nic-b": Kept("ua-nic-b", mac="52:54:00:00:00:08"),
    }
    source = domain(spec(nics=[nic("a", mac="52:54:00:00:00:01"), nic("b"), nic("c")]), kept=kept)
    macs = {alias: device.find("mac").get("address") for alias, device in devices(source).items() if "-nic-" in alias}
    assert macs == {
        "ua-nic-a": "52:54:00:00:00:01",
        "ua-nic-b": "52:54:00:00:00:08",
        "ua-nic-c": stable_mac(source.identity.uid, "c"),
    }
