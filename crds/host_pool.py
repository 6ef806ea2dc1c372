"""HostPool: hosts that can stand in for one another (oVirt's cluster)."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from crds.base import (
    AGE_COLUMN,
    READY_COLUMN,
    Column,
    Consumers,
    CPUModelName,
    Kind,
    Model,
    Resource,
    Rule,
    Status,
    reason_column,
    rules,
)


class PlacementPolicy(StrEnum):
    """Which of several fitting hosts is taken."""

    SPREAD = "Spread"
    PACK = "Pack"
    NONE = "None"


class PoolCPU(Model):
    """The CPU that guests of this pool see."""

    model: CPUModelName
    """A CPU model known to libvirt, for example EPYC-Rome."""


_PERCENT = rules(Rule("self.matches('^[1-9][0-9]{0,3}%$')", "must be a percentage of at least 1%, for example 150%"))


class Overcommit(Model):
    """How much of a host may be given away."""

    memory: str = Field(default="100%", max_length=8, json_schema_extra=_PERCENT)
    """Memory of VMs as a share of the host's. Default: 100%."""
    cpu: str = Field(default="400%", max_length=8, json_schema_extra=_PERCENT)
    """Virtual CPUs as a share of the host's logical CPUs. Default: 400%."""


class PoolPlacement(Model):
    """How VMs are placed on the hosts of this pool."""

    policy: PlacementPolicy = PlacementPolicy.SPREAD
    """Spread takes the host with the most room, Pack the fullest one that fits, None the first by name.
    Default: Spread."""
    overcommit: Overcommit = Field(default_factory=Overcommit)
    """How much of a host may be given away."""


class Monitoring(Model):
    """How closely the hosts of this pool are watched."""

    heartbeat_seconds: int = Field(default=3, ge=1, le=60)
    """Time between two heartbeats. Default: 3."""
    audit_seconds: int = Field(default=300, ge=10, le=86400)
    """Time between two complete comparisons of what is known with what the host lists. Default: 300."""


class PoolFencing(Model):
    """When a silent host counts as lost."""

    failed_after_seconds: int = Field(default=30, ge=5, le=3600)
    """Silence after which a host is NonResponsive and its VMs Unknown. Default: 30."""


class HostPoolSpec(Model):
    """How the hosts of this pool are used."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "(has(self.fencing) && has(self.fencing.failedAfterSeconds)"
                " ? self.fencing.failedAfterSeconds : 30) >= 3 * (has(self.monitoring)"
                " && has(self.monitoring.heartbeatSeconds) ? self.monitoring.heartbeatSeconds : 3)",
                "must be at least three times monitoring.heartbeatSeconds, or one late answer would mean a lost host",
                field_path=".fencing.failedAfterSeconds",
            )
        )
    )

    consumers: Consumers | None = None
    """Which namespaces may place VMs here. Default: all."""
    cpu: PoolCPU | None = None
    """The CPU that guests see. Default: the best one that all hosts have in common, kept in the status."""
    placement: PoolPlacement = Field(default_factory=PoolPlacement)
    """How VMs are placed."""
    monitoring: Monitoring = Field(default_factory=Monitoring)
    """How closely hosts are watched."""
    fencing: PoolFencing = Field(default_factory=PoolFencing)
    """When a silent host counts as lost."""


class CPUBaseline(Model):
    """A CPU that every host of the pool can give its guests."""

    model: str
    """libvirt's name of the CPU model."""
    features: list[str] = Field(default_factory=list, max_length=256)
    """CPU features beyond the model's own, each prefixed with + (required) or - (disabled)."""


class PoolMachine(Model):
    """The versioned machine type that stands behind a family's name."""

    family: str
    """The name used in a VM's spec: q35 or pc."""
    type: str
    """The newest machine type that every host knows, for example pc-q35-7.2."""


class PoolBaseline(Model):
    """What every domain document of this pool is made from; kept, so that the same spec gives the same document."""

    architecture: str
    """CPU architecture of the hosts."""
    virtualization: str
    """kvm where every host can, else qemu."""
    cpu: CPUBaseline
    """The CPU that guests see."""
    machines: list[PoolMachine] = Field(max_length=8)
    """The machine type of each family."""


class HostPoolStatus(Status):
    """What is observed of the pool."""

    hosts: int | None = None
    """Hosts that belong to the pool."""
    ready_hosts: int | None = None
    """Hosts on which VMs can be placed."""
    baseline: PoolBaseline | None = None
    """The CPU and machine types of guests in this pool."""


class HostPool(Resource[HostPoolSpec, HostPoolStatus]):
    """Hosts that can stand in for one another."""


HOST_POOL = Kind(
    kind="HostPool",
    plural="hostpools",
    model=HostPool,
    namespaced=False,
    short_names=("hvp",),
    columns=(
        READY_COLUMN,
        Column("Hosts", ".status.hosts", type="integer"),
        Column("ReadyHosts", ".status.readyHosts", type="integer"),
        Column("CPU", ".status.baseline.cpu.model", priority=1),
        reason_column(),
        AGE_COLUMN,
    ),
    description="Hosts that can stand in for one another: same CPU for guests, same storage, same networks.",
)
