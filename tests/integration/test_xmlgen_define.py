"""Generated documents on a real libvirtd and QEMU: defined, started, changed while they run, defined again."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import uuid4

import libvirt
import pytest
from lxml import etree

from drivers.xmlread import read_domain
from lab.api import Lab
from lab.hosts import Host
from tests.integration.one_host import KEEP_NVRAM
from tests.integration.one_host import connection as connection
from tests.integration.one_host import host as host
from tests.integration.one_host import lab as lab
from tests.unit.xmlgen.cases import CASES, LINUX, disk, domain, nic, spec
from tests.unit.xmlgen.test_xmlgen_job_domain import MERGE
from xmlgen.domain import DomainInput, Image, Kept, device_xml, generate, metadata_xml, render
from xmlgen.job_domain import job_domain_xml
from xmlgen.metadata import NAMESPACE, PREFIX
from xmlgen.names import domain_name, volume_name
from xmlgen.sections import Changes, applied, compare

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
NEEDS_KVM = {"windows-kvm"}


def make_images(host: Host, source: DomainInput) -> None:
    for drive in source.drives:
        if drive.image is not None:
            path, kind = drive.image.path, drive.image.format
            host.run("sh", "-c", f"test -e {path} || qemu-img create -q -f {kind} {path} 16M")
    if source.seed is not None:
        host.run("truncate", "-s", "1M", source.seed)


def start(host: Host, connection: libvirt.virConnect, source: DomainInput) -> libvirt.virDomain:
    """The domain, started paused: its devices are made, nothing runs."""
    make_images(host, source)
    defined = connection.defineXML(render(generate(source), LINUX))
    defined.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    return defined


def kept(found: libvirt.virDomain, *, inactive: bool = False) -> dict[str, Kept]:
    """Where the devices sit that have an alias of ours."""
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0
    devices = {}
    for alias in etree.fromstring(found.XMLDesc(flags)).iterfind("devices/*/alias"):
        device = alias.getparent()
        if not alias.get("name").startswith("ua-"):
            continue
        target, mac = device.find("target"), device.find("mac")
        devices[alias.get("name")] = Kept(
            alias.get("name"),
            _address(device.find("address")),
            target.get("dev") if device.tag == "disk" else None,
            None if mac is None else mac.get("address"),
        )
    return devices


def _address(address: Any) -> str | None:
    if address is None:
        return None
    if address.get("type") == "pci":
        domain, bus, slot, function = (int(address.get(part), 16) for part in ("domain", "bus", "slot", "function"))
        return f"pci:{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
    if address.get("type") == "drive":
        return "drive:" + ":".join(address.get(part) for part in ("controller", "bus", "target", "unit"))
    return None


@pytest.mark.parametrize("case", CASES)
def test_a_host_takes_the_document_and_gives_it_back(case: str, connection: libvirt.virConnect) -> None:
    document = generate(CASES[case])
    defined = connection.defineXML(render(document, LINUX))
    stamped = etree.fromstring(defined.XMLDesc()).find(f"metadata/{{{NAMESPACE}}}vm")
    assert tuple((section.get("name"), section.get("sha")) for section in stamped) == document.sections
    assert defined.UUIDString() == document.uuid


def test_a_job_domain_holds_its_images_and_boots_nothing(host: Host, connection: libvirt.virConnect) -> None:
    for drive in MERGE.disks:
        host.run("qemu-img", "create", "-q", "-f", drive.format, drive.path, "16M")
    found = connection.defineXML(job_domain_xml(MERGE))
    found.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    assert found.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    assert [device.source for device in read_domain(found.XMLDesc()).devices if device.source] == [
        drive.path for drive in MERGE.disks
    ]
    command = host.run("pgrep", "-a", "-f", f"guest={found.name()}")
    assert "strict=on" in command
    assert command.count('"bootindex"') == 1


@pytest.mark.parametrize("case", sorted(CASES.keys() - NEEDS_KVM))
def test_the_domain_starts_and_starts_again_with_everything_where_it_was(
    case: str, host: Host, connection: libvirt.virConnect
) -> None:
    first = kept(start(host, connection, CASES[case]))
    found = connection.lookupByUUIDString(CASES[case].uuid)
    assert found.info()[3] == CASES[case].spec.cpu.count
    found.destroy()
    found.undefineFlags(KEEP_NVRAM)
    again = dataclasses.replace(CASES[case], kept=first)
    assert kept(start(host, connection, again)) == first


def test_uefi_variables_lie_on_the_shared_storage_and_stay(lab: Lab, connection: libvirt.virConnect) -> None:
    found = start(lab.host("kvm1"), connection, CASES["linux-uefi"])
    variables = lab.shared / "default.web-0a1b2c3d.nvram.fd"
    assert variables.stat().st_size > 0
    found.destroy()
    found.undefineFlags(KEEP_NVRAM)
    assert variables.exists()


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_devices_are_plugged_in_and_stay_where_they_were_plugged(
    machine: str, host: Host, connection: libvirt.virConnect
) -> None:
    drives = [disk("root", bootOrder=1), disk("lun", bus="scsi")]
    before = domain(spec(machine=machine, disks=[*drives, {"name": "cd", "type": "cdrom"}], nics=[nic("lan")]))
    found = start(host, connection, before)
    more = [disk("vda2"), *drives, disk("lun2", bus="scsi"), disk("cd", type="cdrom")]
    after = domain(spec(machine=machine, disks=more, nics=[nic("dmz", model="e1000e"), nic("lan")]), kept=kept(found))
    make_images(host, after)
    running, desired = generate(before), generate(after)

    plan = compare(running.sections, desired.sections)
    assert {*plan.attach} == {"ua-disk-vda2", "ua-disk-lun2", "ua-nic-dmz"}
    assert plan.update == ("ua-disk-cd",)
    assert not plan.restart
    for alias in plan.attach:
        found.attachDeviceFlags(device_xml(desired, alias), LIVE)
    stamp = applied(running.sections, desired.sections, (*plan.attach, *plan.update))
    found.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata_xml(before.identity, stamp), PREFIX, NAMESPACE, LIVE
    )

    live = kept(found)
    assert live.items() >= kept(domain_of(connection, before)).items()
    assert {alias: place.address for alias, place in kept(found, inactive=True).items()} == {
        alias: place.address for alias, place in live.items()
    }
    found.destroy()
    found.undefineFlags(KEEP_NVRAM)
    assert kept(start(host, connection, dataclasses.replace(after, kept=live))) == live


def domain_of(connection: libvirt.virConnect, source: DomainInput) -> libvirt.virDomain:
    return connection.lookupByUUIDString(source.uuid)


def test_a_medium_is_put_in_and_taken_out(host: Host, connection: libvirt.virConnect) -> None:
    empty = domain(spec(disks=[disk("root"), {"name": "cd", "type": "cdrom"}]))
    full = domain(spec(disks=[disk("root"), disk("cd", type="cdrom")]))
    make_images(host, full)
    found = start(host, connection, empty)
    for source in (full, empty, full):
        found.updateDeviceFlags(device_xml(generate(dataclasses.replace(source, kept=kept(found))), "ua-disk-cd"), LIVE)
        image = etree.fromstring(found.XMLDesc()).find("devices/disk[@device='cdrom']/source[@file]")
        assert (image is not None) == (source is full)


def test_a_boot_order_that_waits_keeps_no_change_from_being_made(host: Host, connection: libvirt.virConnect) -> None:
    before = domain(spec(disks=[disk("root", bootOrder=1), {"name": "cd", "type": "cdrom", "bootOrder": 2}]))
    drives = [disk("new", bootOrder=1), disk("root", bootOrder=3), disk("cd", type="cdrom", bootOrder=2)]
    found = start(host, connection, before)
    after = domain(spec(disks=drives), kept=kept(found))
    make_images(host, after)
    plan = compare(generate(before).sections, generate(after).sections)
    assert plan == Changes(attach=("ua-disk-new",), update=("ua-disk-cd",), restart=("boot",))
    found.attachDeviceFlags(device_xml(generate(after), "ua-disk-new"), LIVE)
    found.updateDeviceFlags(device_xml(generate(after), "ua-disk-cd"), LIVE)


def test_a_card_is_moved_to_another_bridge(host: Host, connection: libvirt.virConnect) -> None:
    host.run("ip", "link", "add", "dmz", "type", "bridge")
    before = domain(spec(nics=[nic("lan", bootOrder=1)]))
    found = start(host, connection, before)
    after = generate(domain(spec(nics=[nic("lan", bootOrder=1, network="dmz")]), kept=kept(found)))
    assert compare(generate(before).sections, after.sections).update == ("ua-nic-lan",)
    found.updateDeviceFlags(device_xml(after, "ua-nic-lan"), LIVE)
    running, defined = (
        etree.fromstring(found.XMLDesc(flags)).find("devices/interface")
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE)
    )
    assert running.find("source").get("bridge") == defined.find("source").get("bridge") == "dmz"
    assert running.find("boot").get("order") == "1"


def test_as_many_devices_as_the_document_has_room_for_are_plugged_in(
    host: Host, connection: libvirt.virConnect
) -> None:
    before = domain(spec(disks=[disk("root")], devices={"watchdog": {}, "graphics": [{"type": "vnc"}]}))
    found = start(host, connection, before)
    new = [disk(f"new{number}") for number in range(9)]
    after = dataclasses.replace(domain(spec(disks=[disk("root"), *new], devices=before.spec.devices.to_dict())))
    make_images(host, after)
    desired = generate(after)
    plan = compare(generate(before).sections, desired.sections)
    assert len(plan.attach) == 4
    assert len(plan.restart) == 5
    for alias in plan.attach:
        found.attachDeviceFlags(device_xml(desired, alias), LIVE)


def test_the_longest_name_can_be_used(host: Host, connection: libvirt.virConnect) -> None:
    source = domain(spec(), name="n" * 253, uuid=str(uuid4()))
    assert start(host, connection, source).name() == domain_name("default", "n" * 253)


@pytest.mark.parametrize(
    ("namespaces", "names"),
    [
        (("a" * 62 + "b", "a" * 62 + "c"), ("n" * 253, "n" * 253)),
        (("a" * 63, "a" * 63), ("n" * 252 + "b", "n" * 252 + "c")),
        (("team", "team"), ("n" * 239 + ".x", "n" * 239 + ".y")),
    ],
)
def test_names_that_are_alike_once_cut_are_two_domains(
    namespaces: tuple[str, str], names: tuple[str, str], host: Host, connection: libvirt.virConnect
) -> None:
    for number, (namespace, name) in enumerate(zip(namespaces, names, strict=True)):
        path = f"/srv/shared/{volume_name(namespace, name, 'uid', 'qcow2')}"
        made = domain(spec(disks=[disk("root")]), images=lambda _, path=path: Image(path, "qcow2"), uuid=str(uuid4()))
        identity = dataclasses.replace(made.identity, namespace=namespace, name=name)
        found = start(host, connection, dataclasses.replace(made, identity=identity))
        assert found.name() == domain_name(namespace, name)
        assert len(connection.listAllDomains()) == number + 1
    assert {found.isActive() for found in connection.listAllDomains()} == {1}
