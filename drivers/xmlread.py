"""libvirt's documents read into the contract's data types. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from lxml import etree

from drivers.model import (
    CPUModel,
    DeviceObservation,
    DomainObservation,
    DomainState,
    Identity,
    JobKind,
    Mirror,
    StopReason,
    Volume,
    Work,
)

METADATA_URI = "https://hostler.dev/domain/v1"
"""Namespace of our element in a domain's metadata."""
METADATA_KEY = "hostler"
"""Prefix that libvirt gives our element's namespace."""

_KIB_UNITS = {"b": 1, "bytes": 1, "kb": 1000, "k": 1024, "kib": 1024, "mb": 10**6, "m": 2**20, "mib": 2**20}
_UNITS = _KIB_UNITS | {"gb": 10**9, "g": 2**30, "gib": 2**30, "tb": 10**12, "t": 2**40, "tib": 2**40}


@dataclass(frozen=True)
class DomainFacts:
    """What a domain's document says; the rest of an observation comes from the daemon's state of it."""

    name: str
    identity: Identity | None
    sections: tuple[tuple[str, str], ...]
    cpus: int
    memory: int
    devices: tuple[DeviceObservation, ...]
    images: tuple[str, ...]
    agent_connected: bool
    work: Work | None


def parse_document(xml: str) -> etree._Element:
    """An XML document's root. No entities, no network: what a host says is data."""
    return etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True))


def read_domain(xml: str) -> DomainFacts:
    """Read a domain's document."""
    root = parse_document(xml)
    vm = root.find(f"metadata/{{{METADATA_URI}}}vm")
    return DomainFacts(
        name=root.findtext("name", ""),
        identity=None if vm is None else _identity(vm),
        sections=() if vm is None else _sections(vm),
        cpus=_cpus(root),
        memory=_memory(root),
        devices=tuple(_devices(root)),
        images=tuple(_images(root)),
        agent_connected=_agent_connected(root),
        work=_work(root.find(f"metadata/{{{METADATA_URI}}}job")),
    )


def read_observation(
    uuid: str, xml: str, state: DomainState, *, stop_reason: StopReason | None, persistent: bool, paused_reason: str
) -> DomainObservation:
    """The contract's view of a domain, from its document and what a daemon says of it besides."""
    facts = read_domain(xml)
    return DomainObservation(
        uuid=uuid,
        name=facts.name,
        state=state,
        stop_reason=stop_reason,
        persistent=persistent,
        identity=facts.identity,
        sections=facts.sections,
        cpus=facts.cpus,
        memory=facts.memory,
        devices=facts.devices,
        images=facts.images,
        agent_connected=facts.agent_connected,
        paused_reason=paused_reason,
        work=facts.work,
    )


def _work(job: etree._Element | None) -> Work | None:
    return None if job is None else Work(job.get("installation", ""), job.get("operation", ""))


def _identity(vm: etree._Element) -> Identity | None:
    try:
        return Identity(
            installation=vm.attrib["installation"],
            namespace=vm.attrib["namespace"],
            name=vm.attrib["name"],
            uid=vm.attrib["uid"],
            epoch=int(vm.attrib["epoch"]),
        )
    except (KeyError, ValueError):
        # Not a stamp of ours, whoever wrote it: the domain counts as foreign and is left alone.
        return None


def _sections(vm: etree._Element) -> tuple[tuple[str, str], ...]:
    return tuple(
        (child.get("name", ""), child.get("sha", ""))
        for child in vm
        if isinstance(child.tag, str) and etree.QName(child).localname == "section"
    )


def _cpus(root: etree._Element) -> int:
    vcpu = root.find("vcpu")
    if vcpu is None:
        return 1
    return int(vcpu.get("current") or vcpu.text or 1)


def _memory(root: etree._Element) -> int:
    memory = root.find("currentMemory")
    if memory is None:
        memory = root.find("memory")
    return 0 if memory is None else size_of(memory, default_unit="KiB")


def size_of(element: etree._Element, *, default_unit: str = "bytes") -> int:
    """Bytes that a sized element such as <memory unit='KiB'> means."""
    return int(element.text or 0) * _UNITS[(element.get("unit") or default_unit).lower()]


def _devices(root: etree._Element) -> list[DeviceObservation]:
    devices = root.find("devices")
    if devices is None:
        return []
    found = []
    for device in devices:
        alias = device.find("alias")
        if alias is None or not alias.get("name"):
            continue
        mac, target, drive = device.find("mac"), device.find("target"), device.tag == "disk"
        found.append(
            DeviceObservation(
                alias=alias.get("name", ""),
                address=_address(device.find("address")),
                mac=None if mac is None else mac.get("address"),
                target=None if target is None else target.get("dev"),
                source=_source(device) if drive else None,
                backing=_backing(device) if drive else (),
                mirror=_mirror(device.find("mirror")) if drive else None,
            )
        )
    return found


def _backing(disk: etree._Element) -> tuple[str, ...]:
    """The paths of the layers below a drive's leaf, from the top down: each has the next one inside."""
    found, layer = [], disk.find("backingStore")
    while layer is not None and (path := _source(layer)):
        found.append(path)
        layer = layer.find("backingStore")
    return tuple(found)


def _mirror(mirror: etree._Element | None) -> Mirror | None:
    path = None if mirror is None else _source(mirror)
    if mirror is None or path is None:
        return None
    kinds = {"copy": JobKind.COPY, "active-commit": JobKind.ACTIVE_COMMIT}
    # `ready` is also "abort" or "pivot" while that is under way: the job was ready before.
    return Mirror(path, kinds.get(mirror.get("job", ""), JobKind.OTHER), mirror.get("ready") is not None)


def _address(address: etree._Element | None) -> str | None:
    if address is None:
        return None
    if address.get("type") == "pci":
        domain, bus, slot, function = (int(address.get(key, "0"), 16) for key in ("domain", "bus", "slot", "function"))
        return f"pci:{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
    if address.get("type") == "drive":
        return "drive:" + ":".join(address.get(key, "0") for key in ("controller", "bus", "target", "unit"))
    return None


def _source(disk: etree._Element) -> str | None:
    source = disk.find("source")
    return None if source is None else source.get("file") or source.get("dev")


def _images(root: etree._Element) -> list[str]:
    paths = [
        path
        for disk in root.iterfind("devices/disk")
        if disk.get("device", "disk") == "disk" and disk.find("readonly") is None
        for path in [_source(disk)]
        if path
    ]
    nvram = root.find("os/nvram")
    if nvram is not None:
        source = nvram.find("source")
        path = source.get("file") if source is not None else (nvram.text or "").strip()
        if path:
            paths.append(path)
    return paths


def _agent_connected(root: etree._Element) -> bool:
    return any(
        target.get("name") == "org.qemu.guest_agent.0" and target.get("state") == "connected"
        for target in root.iterfind("devices/channel/target")
    )


def aliases(xml: str) -> dict[str, etree._Element]:
    """The devices of a domain's document by alias."""
    found = {}
    for alias in parse_document(xml).iterfind("devices/*/alias"):
        device = alias.getparent()
        if device is not None:
            found[alias.get("name", "")] = device
    return found


def device_alias(xml: str) -> str | None:
    """The alias in a device's document."""
    alias = parse_document(xml).find("alias")
    return None if alias is None else alias.get("name")


def read_volume(xml: str) -> Volume | None:
    """Read a volume's document; None for what is not a file (folders appear as volumes too)."""
    root = parse_document(xml)
    if root.get("type", "file") != "file":
        return None
    form = root.find("target/format")
    kind = "raw" if form is None else form.get("type", "raw")
    capacity, allocation, layer = root.find("capacity"), root.find("allocation"), root.find("backingStore/format")
    return Volume(
        name=root.findtext("name", ""),
        path=root.findtext("target/path", ""),
        format="raw" if kind == "iso" else kind,  # a file system in a raw file
        capacity=0 if capacity is None else size_of(capacity),
        allocation=0 if allocation is None else size_of(allocation),
        backing=root.findtext("backingStore/path"),
        backing_format=None if layer is None else layer.get("type"),
    )


def pool_path(xml: str) -> str:
    """The directory of a pool's document, as libvirt would spell it; empty for pools without one."""
    return clean_path(parse_document(xml).findtext("target/path", ""))


def clean_path(path: str) -> str:
    """A path without double and trailing slashes. Dots stay: they are what tells two pools of one directory apart."""
    return re.sub(r"/+", "/", path).rstrip("/") or ("/" if path.startswith("/") else "")


def volume_name(xml: str) -> str:
    """The file name in a volume's document."""
    return PurePosixPath(parse_document(xml).findtext("name", "")).name


def read_cpu(xml: str) -> CPUModel:
    """Read a <cpu> with a model and features."""
    root = parse_document(xml)
    signs = {"require": "+", "force": "+", "disable": "-", "forbid": "-"}
    features = (
        signs[feature.get("policy", "require")] + feature.get("name", "")
        for feature in root.iterfind("feature")
        if feature.get("policy", "require") in signs
    )
    return CPUModel(model=root.findtext("model", ""), features=tuple(sorted(features)))
