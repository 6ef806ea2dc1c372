"""What every simulated machine is: one model of server, so that pools of them have a common CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lxml import etree

from drivers.model import CPUModel, HostFacts
from drivers.xmlread import read_cpu

_FEATURES = ("aes", "avx", "pcid", "vmx")
MODEL = "Nehalem"
CPU_XML = (
    f'<cpu mode="custom" match="exact"><model fallback="forbid">{MODEL}</model><vendor>Intel</vendor>'
    + "".join(f'<feature policy="require" name="{feature}"/>' for feature in _FEATURES)
    + "</cpu>"
)
MACHINES = {
    "q35": tuple(f"pc-q35-{version}" for version in ("7.2", "7.1", "7.0", "6.2")),
    "pc": tuple(f"pc-i440fx-{version}" for version in ("7.2", "7.1", "7.0", "6.2")),
}
_MODELS = ("Nehalem", "Penryn", "kvm64", "qemu64")
_UEFI = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
NVRAM_BYTES = 540_672


def facts(name: str, cpus: int, memory: int, uuid: str) -> HostFacts:
    """The facts of a machine, but for its bridges."""
    return HostFacts(
        uuid=uuid,
        hostname=f"{name}.simulated",
        architecture="x86_64",
        virtualization="kvm",
        libvirt_version="9.0.0",
        hypervisor_version="7.2.0",
        cpus=cpus,
        memory=memory,
        machines=MACHINES,
        cpu_model=MODEL,
        cpu_xml=CPU_XML,
        cpu_models=_MODELS,
        firmware_uefi=_UEFI,
        bridges=(),
    )


def with_bridges(known: HostFacts, bridges: tuple[str, ...]) -> HostFacts:
    """The facts with the bridges that are there now."""
    return replace(known, bridges=tuple(sorted(bridges)))


def baseline(cpus: Sequence[str]) -> CPUModel:
    """The CPU that all of these (`HostFacts.cpu_xml`) can give. Raises ValueError when they have none in common."""
    try:
        read = [read_cpu(cpu) for cpu in cpus]
    except etree.XMLSyntaxError as error:
        raise ValueError(f"not a CPU: {error}") from error
    models = {cpu.model for cpu in read}
    if len(models) != 1:
        raise ValueError(f"no common model of {', '.join(sorted(models)) or 'nothing'}")
    features = set(read[0].features).intersection(*(cpu.features for cpu in read))
    return CPUModel(models.pop(), tuple(sorted(features)))
