"""Host: one KVM host that Hostler reaches through libvirt."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from crds.base import (
    AGE_COLUMN,
    READY_COLUMN,
    Column,
    Kind,
    Model,
    ObjectName,
    Resource,
    Rule,
    Status,
    reason_column,
    rules,
)


class HostMode(StrEnum):
    """What may be placed on the host."""

    ACTIVE = "Active"
    CORDONED = "Cordoned"
    MAINTENANCE = "Maintenance"


class Management(StrEnum):
    """Whether Hostler acts on the host at all."""

    FULL = "Full"
    OBSERVE = "Observe"


class HostPhase(StrEnum):
    """Where the host stands, computed anew from what is observed."""

    CONNECTING = "Connecting"
    INITIALIZING = "Initializing"
    UP = "Up"
    NON_OPERATIONAL = "NonOperational"
    NON_RESPONSIVE = "NonResponsive"
    PREPARING_FOR_MAINTENANCE = "PreparingForMaintenance"
    MAINTENANCE = "Maintenance"


class HostSpec(Model):
    """How the host is reached and what may be done with it."""

    pool: ObjectName
    """The HostPool that this host belongs to. It cannot be changed while VMs run on the host."""
    driver: str = Field(default="libvirt", json_schema_extra={"enum": ["libvirt"]})
    """How the host is spoken to. Default: libvirt."""
    uri: str = Field(
        min_length=1,
        max_length=1024,
        json_schema_extra=rules(
            Rule(
                "self.matches('^qemu[+]((tls|ssh|tcp)://([^/?#@: ]+@)?[^/?#@ ]+|unix://)/[^ ]*$')",
                "must be a libvirt URI, with no password in it: qemu+tls://kvm1.example/system, or +ssh, +tcp, +unix",
            )
        ),
    )
    """libvirt's address of the host, for example `qemu+tls://kvm1.example/system`; also `+ssh`, `+tcp` and `+unix`."""
    credentials_secret: ObjectName | None = None
    """A Secret in the operator's namespace: `ca.crt`, `tls.crt`, `tls.key` for TLS; `ssh-privatekey`, `known_hosts`
    for SSH; `username`, `password` for TCP with SASL."""
    mode: HostMode = HostMode.ACTIVE
    """Active: VMs may be placed here. Cordoned: nothing new. Maintenance: nothing new, and the host counts as ready for
    maintenance once no VM runs on it. Default: Active."""
    management: Management = Management.FULL
    """Full, or Observe: the host is only watched and never acted on. Default: Full."""


class HostCapabilities(Model):
    """What the host can do, as its daemon reports it."""

    architecture: str
    """CPU architecture, for example x86_64."""
    virtualization: str
    """How guests run: kvm, or qemu where the CPU's help is not available."""
    libvirt_version: str
    """Version of libvirt on the host."""
    hypervisor_version: str
    """Version of QEMU on the host."""
    cpu_model: str
    """The CPU model that the host can give its guests."""
    machines: list[str] = Field(default_factory=list, max_length=64)
    """Newest machine types, one a family, for example pc-q35-7.2."""


class HostResources(Model):
    """An amount of CPU and memory."""

    cpus: int = 0
    """Logical CPUs, or virtual CPUs where VMs are counted."""
    memory: str = "0"
    """Memory, rounded."""


class HostStatus(Status):
    """What is observed of the host."""

    phase: HostPhase | None = None
    """Connecting, Initializing, Up, NonOperational, NonResponsive, PreparingForMaintenance or Maintenance."""
    uuid: str | None = None
    """The host's own UUID, as its daemon reports it."""
    capabilities: HostCapabilities | None = None
    """What the host can do."""
    allocatable: HostResources | None = None
    """What VMs may use, before overcommit."""
    allocated: HostResources | None = None
    """What running domains have been given, foreign ones included."""
    vm_count: int | None = None
    """VirtualMachines of this cluster that run here."""
    foreign_domains: int | None = None
    """Domains on the host that Hostler does not manage."""


class Host(Resource[HostSpec, HostStatus]):
    """One KVM host."""


HOST = Kind(
    kind="Host",
    plural="hosts",
    model=Host,
    namespaced=False,
    short_names=("hv",),
    columns=(
        Column("Phase", ".status.phase"),
        READY_COLUMN,
        Column("Pool", ".spec.pool"),
        Column("VMs", ".status.vmCount", type="integer"),
        Column("CPUs", ".status.allocatable.cpus", type="integer", priority=1),
        Column("Memory", ".status.allocatable.memory", priority=1),
        Column("URI", ".spec.uri", priority=1),
        reason_column(),
        AGE_COLUMN,
    ),
    description="A KVM host that Hostler manages through libvirt. Nothing is installed on it.",
    selectable_fields=(".spec.pool", ".status.phase"),
    rules=(
        Rule(
            "self.spec.pool == oldSelf.spec.pool"
            " || !has(oldSelf.status) || !has(oldSelf.status.vmCount) || oldSelf.status.vmCount == 0",
            "cannot be changed while VMs run on this host: stop them or move them first",
            field_path=".spec.pool",
            reason="FieldValueForbidden",
        ),
    ),
)
