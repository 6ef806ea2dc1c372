"""StorageDomain: a place where disks lie, and which hosts reach it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from crds.base import (
    AGE_COLUMN,
    LIST_SET,
    READY_COLUMN,
    Column,
    Consumers,
    Kind,
    Model,
    ObjectName,
    Resource,
    Rule,
    Status,
    list_map,
    reason_column,
    rules,
)
from crds.quantity import Bandwidth, Quantity


class StorageScope(StrEnum):
    """Whether hosts see the same files."""

    SHARED = "Shared"
    HOST_LOCAL = "HostLocal"


class StorageMode(StrEnum):
    """Whether the domain is used."""

    ACTIVE = "Active"
    MAINTENANCE = "Maintenance"


class StoragePhase(StrEnum):
    """Where the domain stands."""

    PENDING = "Pending"
    ACTIVE = "Active"
    DEGRADED = "Degraded"
    INACTIVE = "Inactive"
    MAINTENANCE = "Maintenance"


class DirectoryStorage(Model):
    """A directory on the hosts, local or a shared file system that is mounted there."""

    path: str = Field(
        min_length=2,
        max_length=1024,
        json_schema_extra=rules(
            Rule(
                "self.matches('^(/[A-Za-z0-9_+@=,.:-]+)+$')"
                " && !self.split('/').exists(part, part == '.' || part == '..')",
                "must be an absolute path without '.', '..' or spaces, for example /srv/vms",
            )
        ),
    )
    """Absolute path of the directory, the same on every host."""
    scope: StorageScope = StorageScope.SHARED
    """Shared: every host sees the same files there. HostLocal: every host has its own. Default: Shared."""


class StorageThresholds(Model):
    """When free space becomes short."""

    warn_free: str = Field(
        default="10%",
        max_length=8,
        json_schema_extra=rules(Rule("self.matches('^[0-9]{1,2}%$')", "must be a percentage, for example 10%")),
    )
    """Free share below which the domain says SpaceLow. Default: 10%."""
    block_free: Quantity = "1Gi"
    """Free space below which no new disk is made here. Default: 1Gi."""


class StorageDomainSpec(Model):
    """Where the domain lies and who uses it."""

    type: str = Field(json_schema_extra={"enum": ["directory"]})
    """Kind of storage; directory is a path on the hosts."""
    directory: DirectoryStorage
    """The directory, for type directory."""
    pools: list[ObjectName] = Field(min_length=1, max_length=64, json_schema_extra=LIST_SET)
    """The HostPools whose hosts reach this domain; the first is its home."""
    mode: StorageMode = StorageMode.ACTIVE
    """Active, or Maintenance: no disk is made here and no VM is started from here. Default: Active."""
    bandwidth_per_second: Bandwidth = "0"
    """How many bytes a second this controller writes here while it imports images, for all of them together, for
    example 50Mi. A new value holds for imports that run. Default: 0, no limit."""
    trash_seconds: int = Field(default=86400, ge=0, le=31536000)
    """How long a deleted disk's volume is kept, so that it can be taken back with `source.existing`.
    0 deletes at once. Default: 86400."""
    thresholds: StorageThresholds = Field(default_factory=StorageThresholds)
    """When free space becomes short."""
    consumers: Consumers | None = None
    """Which namespaces may put disks here. Default: all."""


class HostReach(Model):
    """Whether one host reaches the domain."""

    name: str
    """Name of the Host."""
    reachable: bool
    """Whether the domain's marker was read on this host."""
    reason: str
    """Reachable, or why not: MarkerMissing, PathMissing, OtherDomain, HostNotConnected, …"""
    message: str = ""
    """The same for a person, and what to do."""
    initialized: bool = False
    """HostLocal: whether this host's own directory has been marked once. A marker that has gone since then means that
    the file system is not mounted, never that the directory is new."""


class StorageDomainStatus(Status):
    """What is observed of the domain."""

    phase: StoragePhase | None = None
    """Pending, Active, Degraded (some hosts do not reach it), Inactive (none does) or Maintenance."""
    id: str | None = None
    """Identity of the storage, written in a marker file on it when it was first used, and read back on every host."""
    capacity: str | None = None
    """Size of the file system, rounded. HostLocal: the sum over hosts."""
    available: str | None = None
    """Free space, rounded."""
    hosts: list[HostReach] = Field(default_factory=list, max_length=1024, json_schema_extra=list_map("name"))
    """Each host of the pools, and whether it reaches the domain."""
    purging: list[str] = Field(default_factory=list, max_length=256, json_schema_extra=LIST_SET)
    """Volumes that are being removed from the trash (HostLocal: host/volume); written before. None is taken back."""
    taking_back: list[str] = Field(default_factory=list, max_length=1024, json_schema_extra=LIST_SET)
    """Volumes that Disks are taking back from the trash; written before. None is removed."""
    disk_count: int | None = None
    """Disks that lie here."""


class StorageDomain(Resource[StorageDomainSpec, StorageDomainStatus]):
    """A place where disks lie."""


STORAGE_DOMAIN = Kind(
    kind="StorageDomain",
    plural="storagedomains",
    model=StorageDomain,
    namespaced=False,
    short_names=("sd",),
    columns=(
        Column("Phase", ".status.phase"),
        READY_COLUMN,
        Column("Scope", ".spec.directory.scope", priority=1),
        Column("Capacity", ".status.capacity"),
        Column("Available", ".status.available"),
        Column("Path", ".spec.directory.path", priority=1),
        reason_column(),
        AGE_COLUMN,
    ),
    description="A place where disks lie: a directory that is shared between hosts or local to each of them.",
    selectable_fields=(".status.phase",),
    rules=(
        Rule(
            "self.spec.directory.path == oldSelf.spec.directory.path",
            "cannot be changed under the disks that lie there: make another StorageDomain",
            field_path=".spec.directory.path",
            reason="FieldValueForbidden",
        ),
        Rule(
            "(has(self.spec.directory.scope) ? self.spec.directory.scope : 'Shared')"
            " == (has(oldSelf.spec.directory.scope) ? oldSelf.spec.directory.scope : 'Shared')",
            "cannot be changed under the disks that lie there: make another StorageDomain",
            field_path=".spec.directory.scope",
            reason="FieldValueForbidden",
        ),
    ),
)
