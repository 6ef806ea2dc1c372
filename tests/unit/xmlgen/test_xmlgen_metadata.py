"""What is stamped into a domain comes back from libvirt."""

from __future__ import annotations

import libvirt
from lxml import etree

from tests.unit.xmlgen.cases import CASES, LINUX
from xmlgen.domain import Identity, generate, metadata_xml, render
from xmlgen.metadata import NAMESPACE, PREFIX

IDENTITY = Identity("lab", "a&b", '<"name">', "uid", 7)


def test_identity_and_sections_are_what_was_put_in() -> None:
    vm = etree.fromstring(metadata_xml(IDENTITY, (("cpu", "12"), ("ua-disk-a:lun", "34"))))
    assert vm.tag == f"{{{NAMESPACE}}}vm"
    assert dict(vm.attrib) == {
        "installation": "lab", "namespace": "a&b", "name": '<"name">', "uid": "uid", "epoch": "7",
    }  # fmt: skip
    assert [(section.tag, dict(section.attrib)) for section in vm] == [
        (f"{{{NAMESPACE}}}section", {"name": "cpu", "sha": "12"}),
        (f"{{{NAMESPACE}}}section", {"name": "ua-disk-a:lun", "sha": "34"}),
    ]


def test_libvirt_replaces_the_element_of_the_document() -> None:
    document = generate(CASES["linux-bios-q35"])
    connection = libvirt.open("test:///default")
    domain = connection.defineXML(render(document, LINUX).replace('type="qemu"', 'type="test"', 1))
    try:
        for epoch in ("8", "9"):
            identity = Identity("lab", "default", "web", "uid", int(epoch))
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT, metadata_xml(identity, document.sections[:3]), PREFIX, NAMESPACE
            )
            found = etree.fromstring(domain.XMLDesc()).findall(f"metadata/{{{NAMESPACE}}}vm")
            assert [vm.get("epoch") for vm in found] == [epoch]
            sections = found[0].findall(f"{{{NAMESPACE}}}section")
            assert tuple((section.get("name"), section.get("sha")) for section in sections) == document.sections[:3]
    finally:
        domain.undefine()
        connection.close()
