"""Disk: one virtual disk, whole and by itself, whichever VM uses it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import ConfigDict, Field

from crds.base import (
    AGE_COLUMN,
    LIST_SET,
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
from crds.quantity import Quantity, as_quantity


class DiskFormat(StrEnum):
    """Format of the volume."""

    QCOW2 = "qcow2"
    RAW = "raw"


class DiskAccess(StrEnum):
    """How many VMs may use the disk at once."""

    EXCLUSIVE = "Exclusive"
    SHARED = "Shared"


class Discard(StrEnum):
    """What becomes of blocks that the guest frees."""

    UNMAP = "Unmap"
    IGNORE = "Ignore"


class DiskDeletionPolicy(StrEnum):
    """What becomes of the volume when the Disk is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class DiskPhase(StrEnum):
    """Where the disk stands."""

    PENDING = "Pending"
    CREATING = "Creating"
    IMPORTING = "Importing"
    READY = "Ready"
    RESIZING = "Resizing"
    FAILED = "Failed"


_CHECKSUM = rules(
    Rule(
        "self.matches('^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$')",
        "must be sha256: or sha512: followed by the checksum in lower-case hex digits",
    )
)
_PATH_RULE = Rule(
    "self.matches('^/?[A-Za-z0-9_+@=,.:-]+(/[A-Za-z0-9_+@=,.:-]+)*$')"
    " && !self.split('/').exists(part, part == '.' || part == '..')",
    "must be a file name in the storage domain's directory, or its absolute path, without '..'",
)


class BlankSource(Model):
    """An empty disk."""


class HttpSource(Model):
    """An image that the controller downloads."""

    url: str = Field(
        max_length=2048,
        json_schema_extra=rules(
            Rule("isURL(self) && url(self).getScheme() in ['http', 'https']", "must be an http:// or https:// URL")
        ),
    )
    """Where the image is: qcow2, raw or ISO, as it is or compressed with gzip, xz or zstd."""
    checksum: str = Field(max_length=160, json_schema_extra=_CHECKSUM)
    """`sha256:` or `sha512:` and the digest of the file as it is downloaded, compressed where it is."""


class FileSource(Model):
    """An image file that an administrator has put into the storage domain's directory; it is copied."""

    path: str = Field(min_length=1, max_length=1024, json_schema_extra=rules(_PATH_RULE))
    """File name in the directory, or its absolute path."""
    checksum: str = Field(max_length=160, json_schema_extra=_CHECKSUM)
    """`sha256:` or `sha512:` and the digest of the file."""


class ExistingSource(Model):
    """A volume that lies on the storage domain already; it is taken over as it is."""

    path: str = Field(min_length=1, max_length=1024, json_schema_extra=rules(_PATH_RULE))
    """File name in the directory, or its absolute path."""


class DiskSource(Model):
    """What a new disk holds: exactly one of these; none of them means blank."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "[has(self.blank), has(self.http), has(self.file), has(self.existing)].filter(x, x).size() == 1",
                "must have exactly one of blank, http, file, existing",
            )
        )
    )

    blank: BlankSource | None = None
    """An empty disk."""
    http: HttpSource | None = None
    """An image that is downloaded."""
    file: FileSource | None = None
    """An image file in the storage domain's directory, which is copied."""
    existing: ExistingSource | None = None
    """A volume that lies there already, which is taken over as it is."""


IMMUTABLE_DISK_FIELDS = ("storageDomain", "format", "source", "access", "logicalSectorSize")
_ADVICE = {
    "storageDomain": "cannot be changed: make a new disk on the other domain and copy the data in the guest",
    "format": "cannot be changed: make a new disk in the other format and copy the data in the guest",
    "source": "cannot be changed, the disk is made from it: make a new disk, in a VM a drive of another name",
    "access": "cannot be changed: make a new disk with the other access",
    "logicalSectorSize": "cannot be changed, the guest's partitions depend on it: make a new disk",
}


def _immutable(name: str) -> Rule:
    """The field stays what it was; absent and written-out default are the same."""
    if name == "source":
        blank = "(!has({0}.source) || has({0}.source.blank))"
        same = "has(self.source) && has(oldSelf.source) && self.source == oldSelf.source"
        rule = f"({blank.format('self')} && {blank.format('oldSelf')}) || ({same})"
    else:
        default = {"format": "'qcow2'", "access": "'Exclusive'", "logicalSectorSize": "512"}.get(name)
        now, before = (f"(has({o}.{name}) ? {o}.{name} : {default})" if default else f"{o}.{name}" for o in _SELVES)
        rule = f"{now} == {before}"
    return Rule(rule, _ADVICE[name], field_path=f".{name}", reason="FieldValueForbidden")


_SELVES = ("self", "oldSelf")


class DiskSpec(Model):
    """What the disk is and where it lies."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!(has(self.access) && self.access == 'Shared') || (has(self.format) && self.format == 'raw')",
                "must be raw where access is Shared: two writers would destroy a qcow2 file",
                field_path=".format",
            ),
            *(_immutable(name) for name in IMMUTABLE_DISK_FIELDS),
        )
    )

    size: Quantity
    """Size that the guest sees. It can grow, never shrink."""
    storage_domain: ObjectName
    """The StorageDomain that it lies on."""
    format: DiskFormat = DiskFormat.QCOW2
    """qcow2 or raw. Default: qcow2."""
    source: DiskSource | None = None
    """What a new disk holds. Default: nothing, it is blank."""
    access: DiskAccess = DiskAccess.EXCLUSIVE
    """Exclusive: one running VM. Shared: several at once, for cluster file systems; needs format raw.
    Default: Exclusive."""
    discard: Discard = Discard.UNMAP
    """Unmap gives blocks that the guest frees back to the storage; Ignore keeps them. Default: Unmap."""
    logical_sector_size: int = Field(default=512, json_schema_extra={"enum": [512, 4096]})
    """Sector size that the guest sees, 512 or 4096. Default: 512."""
    deletion_policy: DiskDeletionPolicy | None = None
    """Delete: the volume goes to the domain's trash with the Disk. Retain: it stays. Default: Retain for
    source.existing, else Delete."""

    @property
    def deletes_volume(self) -> bool:
        """Whether the volume goes with the Disk."""
        if self.deletion_policy is not None:
            return self.deletion_policy is DiskDeletionPolicy.DELETE
        return self.source is None or self.source.existing is None


class DiskContent(StrEnum):
    """What a volume held when it was complete."""

    CDROM = "CDROM"
    """An image of a CD or DVD: ISO 9660, UDF or both."""
    OTHER = "Other"


class DiskVolume(Model):
    """The volume behind the disk: written before it is made, so that a restart finds it again."""

    name: str
    """File name on the storage domain."""
    host: str | None = None
    """HostLocal domains: the Host that it lies on."""
    path: str | None = None
    """Absolute path on the hosts."""
    taken_over: bool = False
    """Whether it lay there before this Disk did (source.existing, or the same Disk of an earlier cluster state). Then a
    host that cannot be asked may still run a VM from it."""
    content: DiskContent | None = None
    """CDROM: the image of a CD or DVD, which is never grown. Other: anything else. Looked at when it was complete."""
    earlier: list[str] = Field(default_factory=list, max_length=1024, json_schema_extra=LIST_SET)
    """File names under which it was begun before and given up: what lies there is removed once it is complete."""
    grows_on: str | None = None
    """The Host through whose pool it is to be made larger; written before. Meanwhile no VM starts from it."""
    grows_alone: bool = False
    """Whether no VM was found to hold a place after growsOn was written: from then on the host may be at work on it,
    and a VM that was given a place since has started nothing."""
    provisioned_at: datetime | None = None
    """When it was complete. From then on the volume is never made again: if it is not there, it is missing."""


class DiskStatus(Status):
    """What is observed of the disk."""

    phase: DiskPhase | None = None
    """Pending, Creating, Importing, Ready, Resizing or Failed."""
    volume: DiskVolume | None = None
    """The volume behind the disk."""
    host: str | None = None
    """HostLocal domains: the Host that the disk lies on."""
    path: str | None = None
    """Where the volume lies on the hosts."""
    virtual_size: str | None = None
    """Size that a guest sees now."""
    progress: str | None = None
    """How much of an import is done, for example 40%."""
    used_by: list[str] = Field(default_factory=list, max_length=4096, json_schema_extra=LIST_SET)
    """VirtualMachines of this namespace that refer to the disk."""


class Disk(Resource[DiskSpec, DiskStatus]):
    """One virtual disk."""


DISK = Kind(
    kind="Disk",
    plural="disks",
    model=Disk,
    namespaced=True,
    short_names=("disk",),
    columns=(
        Column("Phase", ".status.phase"),
        READY_COLUMN,
        Column("Size", ".status.virtualSize"),
        Column("Domain", ".spec.storageDomain"),
        Column("Progress", ".status.progress", priority=1),
        Column("Host", ".status.host", priority=1),
        Column("UsedBy", ".status.usedBy[*]", priority=1),
        reason_column(),
        AGE_COLUMN,
    ),
    description="A virtual disk. It lives by itself: VMs refer to it.",
    selectable_fields=(".spec.storageDomain", ".status.phase"),
    rules=(
        Rule(
            f"{as_quantity('self.spec.size')}.compareTo({as_quantity('oldSelf.spec.size')}) >= 0",
            "cannot shrink: data at the end would be cut off; make a smaller disk and copy the data in the guest",
            field_path=".spec.size",
            reason="FieldValueForbidden",
        ),
    ),
)
