"""What a domain is made of, where golden files would not show why."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from lxml import etree

from crds.virtual_machine import DiskBus, DiskType, GuestOS
from tests.unit.xmlgen.cases import BASELINE, CASES, LINUX, disk, domain, nic, spec
from xmlgen.disks import serial
from xmlgen.domain import DomainInput, Drive, HostPlaceholders, default_bus, generate, render


def document(source: DomainInput) -> etree._Element:
    return etree.fromstring(render(generate(source), LINUX))


def boot_order(**fields: Any) -> list[str]:
    devices = document(domain(spec(**fields), seed="/srv/seed.iso")).xpath("devices/*[boot]")
    return [d.find("alias").get("name") for d in sorted(devices, key=lambda d: int(d.find("boot").get("order")))]


CD = {"name": "cd", "type": "cdrom"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"disks": [CD, disk("a"), disk("b")], "nics": [nic("lan")]}, ["ua-disk-a", "ua-disk-cd"]),
        ({"nics": [nic("lan"), nic("dmz")]}, ["ua-nic-lan"]),
        ({}, []),
        (
            {"disks": [disk("a"), disk("b", bootOrder=7)], "nics": [nic("lan", bootOrder=2)]},
            ["ua-nic-lan", "ua-disk-b"],
        ),
        ({"disks": [disk("a", bootOrder=1), disk("b", bootOrder=1)]}, ["ua-disk-a", "ua-disk-b"]),
    ],
)
def test_what_is_booted_from(fields: dict[str, Any], expected: list[str]) -> None:
    assert boot_order(**fields) == expected


@pytest.mark.parametrize(("size", "kibibytes"), [("2Gi", 2 * 2**20), ("1000", 1), ("100M", 97657), (2**30, 2**20)])
def test_memory_is_rounded_up_to_a_whole_kibibyte(size: str | int, kibibytes: int) -> None:
    root = document(domain(spec(memory={"size": size})))
    assert (root.findtext("memory"), root.findtext("currentMemory")) == (str(kibibytes), str(kibibytes))


def test_the_default_bus_is_one_that_the_guest_has_drivers_for() -> None:
    buses = {guest: (default_bus(DiskType.DISK, guest), default_bus(DiskType.CDROM, guest)) for guest in GuestOS}
    assert buses == {
        GuestOS.LINUX: (DiskBus.VIRTIO, DiskBus.SCSI),
        GuestOS.WINDOWS: (DiskBus.VIRTIO, DiskBus.SATA),
        GuestOS.OTHER: (DiskBus.SATA, DiskBus.SATA),
    }


def test_a_serial_number_fits_a_virtio_drive_and_stays_apart() -> None:
    assert serial("data") == "data"
    long = {serial("a" * 31 + letter) for letter in "xyz"}
    assert len(long) == 3
    assert all(len(number) == 20 for number in long)


def test_the_host_fills_in_only_its_own() -> None:
    made = generate(CASES["linux-uefi"])
    one = render(made, LINUX)
    other = render(made, HostPlaceholders("kvm", ("/usr/share/edk2/code.fd", "/usr/share/edk2/vars.fd")))
    changed = [(a, b) for a, b in zip(one.splitlines(), other.splitlines(), strict=True) if a != b]
    assert [line.split(">")[0].split()[0] for line, _ in changed] == ["<domain", "<loader", "<nvram"]


def test_a_host_without_uefi_is_refused() -> None:
    with pytest.raises(ValueError, match="UEFI"):
        render(generate(CASES["linux-uefi"]), HostPlaceholders("kvm"))
    with pytest.raises(ValueError, match="path"):
        generate(dataclasses.replace(CASES["linux-uefi"], nvram=None))


def test_a_family_that_the_pool_does_not_have_is_refused() -> None:
    baseline = BASELINE.model_copy(update={"machines": BASELINE.machines[1:]})
    with pytest.raises(ValueError, match="q35"):
        generate(domain(spec(), baseline=baseline))


def test_a_disk_without_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="root"):
        Drive("root", DiskType.DISK, DiskBus.VIRTIO, None, None)


def test_text_that_xml_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="XML"):
        render(generate(domain(spec(cpu={"model": "a\0b"}))), LINUX)


def test_bios_domains_have_no_variables() -> None:
    plain = domain(spec())
    assert generate(dataclasses.replace(plain, nvram="/srv/x.fd")) == generate(plain)
