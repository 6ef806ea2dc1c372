"""Every spec that the API server's schema takes: a real libvirtd defines the document that is made of it."""

from __future__ import annotations

import libvirt
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from crds import KINDS
from crds.quantity import to_bytes
from crds.virtual_machine import POOL_BASELINE, FirmwareType, VirtualMachine, VirtualMachineSpec
from tests.faults.fuzz.campaign import campaign, tried
from tests.integration.one_host import connection as connection
from tests.integration.one_host import host as host
from tests.integration.one_host import lab as lab
from tests.unit.crds.strategies import objects
from tests.unit.xmlgen.cases import LINUX, domain
from xmlgen.domain import Image, generate, render
from xmlgen.metadata import NAMESPACE

(_VM,) = (kind for kind in KINDS if kind.model is VirtualMachine)
SPECS = objects(_VM).map(lambda made: VirtualMachine.parse(made).spec)
PATHS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="/"), min_size=1, max_size=30)
MODELS = ("Nehalem", "qemu64", "EPYC-Rome")
"""What a spec names as its CPU model is known to no schema: it is one of these here."""


@campaign(400, shrink=False)
@given(declared=SPECS, model=st.sampled_from(MODELS), path=PATHS)
def test_a_host_defines_what_the_api_server_takes(
    connection: libvirt.virConnect, declared: VirtualMachineSpec, model: str, path: str
) -> None:
    cpu = declared.cpu if declared.cpu.model == POOL_BASELINE else declared.cpu.model_copy(update={"model": model})
    declared = declared.model_copy(update={"cpu": cpu})
    uefi = declared.firmware.type is FirmwareType.UEFI
    source = domain(
        declared,
        images=lambda drive: Image(f"/srv/{path}/{drive}", "qcow2"),
        seed=f"/srv/{path}.iso" if declared.cloud_init else None,
        nvram=f"/srv/{path}.fd" if uefi else None,
    )
    document = generate(source)
    defined = connection.defineXMLFlags(render(document, LINUX), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    try:
        given_back = etree.fromstring(defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    finally:
        defined.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    stamped = given_back.find(f"metadata/{{{NAMESPACE}}}vm")
    assert tuple((section.get("name"), section.get("sha")) for section in stamped) == document.sections
    assert int(given_back.findtext("memory")) == -(-to_bytes(declared.memory.size) // 1024)
    assert int(given_back.findtext("vcpu")) == declared.cpu.count
    files = {found.get("file") for found in given_back.iterfind("devices/disk/source")}
    assert files == {drive.image.path for drive in source.drives if drive.image} | ({source.seed} - {None})
    tried("documents on libvirtd", "defined")
