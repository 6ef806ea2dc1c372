"""Job domains: the document as it was, valid, and read by the drivers as what it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from drivers.model import Work
from drivers.xmlread import read_domain
from xmlgen.job_domain import NAME, JobDisk, JobDomain, job_domain_xml

GOLDEN = Path(__file__).parent / "golden" / "jobs" / "merge.xml"
MERGE = JobDomain(
    uuid="5a0f2a5e-7c0c-4d52-8f7b-9f0f5d1f0c11",
    installation="lab",
    operation="7d1f5c3e-0b0a-4c55-9a0e-2f1d4c6b8a90",
    architecture="x86_64",
    machine="pc-q35-7.2",
    virtualization="qemu",
    disks=(
        JobDisk("ua-disk-root", "/srv/shared/team.web-root-0a1b2c3d.s2.qcow2", "qcow2"),
        JobDisk("ua-disk-data", "/srv/shared/team.web-data-4e5f6a7b.raw", "raw"),
    ),
)


def test_the_document_is_as_it_was(regenerate: bool) -> None:
    document = job_domain_xml(MERGE)
    if regenerate:
        GOLDEN.write_text(document)
    assert document == GOLDEN.read_text()


def test_the_document_is_valid(domain_schema: etree.RelaxNG) -> None:
    domain_schema.assertValid(etree.fromstring(job_domain_xml(MERGE)))


def test_a_driver_reads_what_it_is_for_and_no_vm() -> None:
    facts = read_domain(job_domain_xml(MERGE))
    assert facts.identity is None
    assert facts.work == Work(MERGE.installation, MERGE.operation)
    assert facts.images == tuple(disk.path for disk in MERGE.disks)
    assert [device.alias for device in facts.devices] == [disk.alias for disk in MERGE.disks]


def test_libvirt_takes_as_many_disks_as_it_may_have() -> None:
    disks = tuple(JobDisk(f"ua-disk-{number}", f"/srv/{number}.raw", "raw") for number in range(254))
    full = dataclasses.replace(MERGE, disks=disks)
    root = etree.fromstring(job_domain_xml(full))
    assert len({target.get("dev") for target in root.iterfind("devices/disk/target")}) == len(disks) + 1
    root.set("type", "test")
    connection = libvirt.open("test:///default")
    try:
        domain = connection.defineXML(etree.tostring(root, encoding="unicode"))
        assert domain.name().startswith(NAME)
        assert len(etree.fromstring(domain.XMLDesc()).findall("devices/disk")) == len(disks) + 1
    finally:
        connection.close()
    with pytest.raises(ValueError, match="255 disks"):
        job_domain_xml(dataclasses.replace(MERGE, disks=(*disks, JobDisk("ua-disk-x", "/srv/x.raw", "raw"))))


def test_nothing_boots_and_nothing_is_sent() -> None:
    root = etree.fromstring(job_domain_xml(MERGE))
    assert root.find("devices/interface") is None
    (boot,) = root.iter("boot")
    assert boot.getparent().get("device") == "cdrom"
    assert boot.getparent().find("source") is None
