"""What a host is and can do, asked over libvirt alone. Blocking calls and pure reading of their documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import libvirt
from lxml import etree

from drivers.model import CPUModel, HostFacts
from drivers.xmlread import parse_document, read_cpu

_FAMILIES = {"q35": re.compile(r"pc-q35-\d"), "pc": re.compile(r"pc-i440fx-\d")}

_LOADERS = ("OVMF_CODE_4M.fd", "OVMF_CODE.fd", "edk2-x86_64-code.fd", "OVMF_CODE_4M.pure-efi.fd")
"""File names of UEFI firmware without Secure Boot, best first."""


def read_facts(connection: libvirt.virConnect) -> HostFacts:
    """Ask a host what it is. May take some seconds on a daemon that has not yet looked at its QEMU."""
    capabilities = parse_document(connection.getCapabilities())
    info = connection.getInfo()
    architecture = capabilities.findtext("host/cpu/arch") or str(info[0])
    guest = capabilities.find(f"guest/arch[@name='{architecture}']")
    virtualization = _virtualization(guest)
    machines = _machines(guest)
    domain = _domain_capabilities(connection, architecture, machines, virtualization)
    return HostFacts(
        uuid=capabilities.findtext("host/uuid", ""),
        hostname=connection.getHostname(),
        architecture=architecture,
        virtualization=virtualization,
        libvirt_version=version(connection.getLibVersion()),
        hypervisor_version=version(connection.getVersion()),
        cpus=int(info[2]),
        memory=_memory(capabilities, info),
        machines=machines,
        cpu_model=_host_cpu(domain).findtext("model", "") if domain is not None else "",
        cpu_xml=etree.tostring(_host_cpu(domain)).decode() if domain is not None else "",
        cpu_models=_usable_models(domain),
        firmware_uefi=_firmware(domain),
        bridges=bridges(connection),
    )


def bridges(connection: libvirt.virConnect) -> tuple[str, ...]:
    """Bridge devices of the host, from libvirt's interface driver. Empty where the daemon has none: then nothing is
    known.
    """
    try:
        interfaces = connection.listAllInterfaces(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ()
        raise
    found = []
    for interface in interfaces:
        try:
            document = parse_document(interface.XMLDesc(0))
        except libvirt.libvirtError as error:
            # Network cards of guests come and go while we read.
            if error.get_error_code() != libvirt.VIR_ERR_NO_INTERFACE:
                raise
            continue
        if document.get("type") == "bridge":
            found.append(interface.name())
    return tuple(sorted(found))


def baseline(connection: libvirt.virConnect, cpus: Sequence[str]) -> CPUModel:
    """The best CPU that all of these can give to a guest."""
    capabilities = parse_document(connection.getCapabilities())
    architecture = capabilities.findtext("host/cpu/arch", "x86_64")
    virtualization = _virtualization(capabilities.find(f"guest/arch[@name='{architecture}']"))
    flags = libvirt.VIR_CONNECT_BASELINE_CPU_MIGRATABLE
    found = connection.baselineHypervisorCPU(None, architecture, None, virtualization, list(cpus), flags)
    return read_cpu(found)


def version(number: int) -> str:
    """A version number as libvirt packs it, spelled out."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _virtualization(guest: etree._Element | None) -> str:
    return "kvm" if guest is not None and guest.find("domain[@type='kvm']") is not None else "qemu"


def _memory(capabilities: etree._Element, info: list[Any]) -> int:
    # The topology counts to the KiB; getInfo, the fallback, only to the MiB.
    cells = [int(cell.text or 0) * 1024 for cell in capabilities.iterfind("host/topology/cells/cell/memory")]
    return sum(cells) or int(info[1]) * 2**20


def _machines(guest: etree._Element | None) -> dict[str, tuple[str, ...]]:
    if guest is None:
        return {}
    names = {name for machine in guest.iterfind("machine") for name in (machine.text, machine.get("canonical")) if name}
    return {
        family: tuple(sorted(matching, key=_machine_version, reverse=True))
        for family, pattern in _FAMILIES.items()
        if (matching := [name for name in names if pattern.match(name)])
    }


def _machine_version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name.split("-", 2)[-1]))


def _domain_capabilities(
    connection: libvirt.virConnect, architecture: str, machines: dict[str, tuple[str, ...]], virtualization: str
) -> etree._Element | None:
    newest = next(iter(machines.values()), (None,))[0]
    try:
        return parse_document(connection.getDomainCapabilities(None, architecture, newest, virtualization))
    except libvirt.libvirtError as error:
        # A driver without domain capabilities; nothing is known then, and nothing is claimed.
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return None
        raise


def _host_cpu(domain: etree._Element) -> etree._Element:
    """The host-model CPU as a <cpu> that libvirt's baseline takes."""
    cpu = etree.Element("cpu", mode="custom", match="exact")
    model = domain.find("cpu/mode[@name='host-model']")
    for child in model if model is not None and model.get("supported") == "yes" else ():
        if child.tag in {"model", "vendor", "feature"}:
            cpu.append(parse_document(etree.tostring(child).decode()))
    return cpu


def _usable_models(domain: etree._Element | None) -> tuple[str, ...]:
    if domain is None:
        return ()
    models = domain.iterfind("cpu/mode[@name='custom']/model")
    return tuple(sorted(model.text or "" for model in models if model.get("usable") == "yes"))


def _firmware(domain: etree._Element | None) -> tuple[str, str] | None:
    if domain is None:
        return None
    loaders = [value.text or "" for value in domain.iterfind("os/loader/value")]
    for wanted in _LOADERS:
        for loader in loaders:
            if loader.rsplit("/", 1)[-1] == wanted:
                # Domain capabilities name no template before libvirt 12.1; the packages put it beside its loader.
                folder, _, file = loader.rpartition("/")
                template = file.replace("CODE", "VARS") if "CODE" in file else "edk2-i386-vars.fd"
                return loader, f"{folder}/{template}"
    return None
