"""VirtualMachine: what a person declares of a VM; its parts are in `vm_hardware`, `vm_power` and `vm_status`.

All their names can be imported from here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, Field

from crds.base import (
    AGE_COLUMN,
    MAX_OBJECT_NAME,
    READY_COLUMN,
    Column,
    Kind,
    LabelSelector,
    LocalRef,
    Model,
    ObjectName,
    Resource,
    Rule,
    list_map,
    reason_column,
    rules,
)
from crds.vm_hardware import (
    CPU,
    MAX_CPUS,
    MAX_DISKS,
    MAX_NICS,
    POOL_BASELINE,
    DeviceName,
    Devices,
    DiskBus,
    DiskType,
    Firmware,
    FirmwareType,
    Graphics,
    GraphicsType,
    GuestOS,
    Machine,
    Memory,
    NicModel,
    Presence,
    Video,
    VMDisk,
    VMNic,
    Watchdog,
    WatchdogAction,
)
from crds.vm_power import (
    Power,
    PowerAction,
    PowerRequest,
    PowerRequestPhase,
    PowerRequestStatus,
    PowerState,
    RunPolicy,
)
from crds.vm_status import (
    DeviceStatus,
    GuestInfo,
    GuestInterface,
    PhaseTransition,
    Placement,
    StartFailure,
    VirtualMachineStatus,
    VMFile,
    VMPhase,
)

__all__ = [
    "CPU",
    "MAX_CPUS",
    "MAX_DISKS",
    "MAX_NICS",
    "POOL_BASELINE",
    "VIRTUAL_MACHINE",
    "CloudInit",
    "DeviceName",
    "DeviceStatus",
    "Devices",
    "DiskBus",
    "DiskType",
    "Firmware",
    "FirmwareType",
    "Graphics",
    "GraphicsType",
    "GuestInfo",
    "GuestInterface",
    "GuestOS",
    "Lifecycle",
    "Machine",
    "Memory",
    "NicModel",
    "PhaseTransition",
    "Placement",
    "Power",
    "PowerAction",
    "PowerRequest",
    "PowerRequestPhase",
    "PowerRequestStatus",
    "PowerState",
    "Presence",
    "RunPolicy",
    "StartFailure",
    "VMDeletionPolicy",
    "VMDisk",
    "VMFile",
    "VMNic",
    "VMPhase",
    "VMPlacement",
    "Video",
    "VirtualMachine",
    "VirtualMachineSpec",
    "VirtualMachineStatus",
    "Watchdog",
    "WatchdogAction",
]


class VMDeletionPolicy(StrEnum):
    """What becomes of the domain when the VirtualMachine is deleted."""

    DELETE = "Delete"
    ORPHAN = "Orphan"


_DOCUMENT_MAX = 65536
_LONGEST_REQUEST = 3145728
"""Bytes that the API server reads of a request. As the limit of the schema it leaves the word to the rules."""


def _document(advice: str) -> dict[str, Any]:
    return rules(Rule(f"self.size() <= {_DOCUMENT_MAX}", f"must have at most {_DOCUMENT_MAX} characters: {advice}"))


class CloudInit(Model):
    """What cloud-init finds in the guest (NoCloud)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "!(has(self.userData) && has(self.userDataSecretRef))",
                "must not stand beside userData: give one of the two",
                field_path=".userDataSecretRef",
            )
        )
    )

    user_data: str | None = Field(
        default=None,
        max_length=_LONGEST_REQUEST,
        json_schema_extra=_document("keep it in a Secret, up to 1 MiB, and name that in userDataSecretRef"),
    )
    """The user-data document."""
    user_data_secret_ref: LocalRef | None = None
    """A Secret of this namespace whose key `userData` holds the user-data document."""
    network_data: str | None = Field(
        default=None, max_length=_LONGEST_REQUEST, json_schema_extra=_document("say less of the network")
    )
    """The network-config document (version 1 or 2)."""


class VMPlacement(Model):
    """Where the VM may run."""

    host_selector: LabelSelector | None = None
    """Only hosts with these labels."""
    host: ObjectName | None = None
    """Only this host."""


class Lifecycle(Model):
    """How the VM ends."""

    shutdown_timeout_seconds: int = Field(default=120, ge=0, le=86400)
    """How long the guest may take to shut down before its power is cut. Default: 120."""
    deletion_policy: VMDeletionPolicy = VMDeletionPolicy.DELETE
    """Delete: the VM is shut down and removed from its host. Orphan: the domain stays as it is, without us.
    Default: Delete."""


_DISKS = "(has(self.disks) ? self.disks : [])"
_NICS = "(has(self.nics) ? self.nics : [])"
_DISK_ORDERS = f"{_DISKS}.filter(d, has(d.bootOrder)).map(d, d.bootOrder)"
_NIC_ORDERS = f"{_NICS}.filter(n, has(n.bootOrder)).map(n, n.bootOrder)"
_DEVICE_RULES = (
    Rule(
        f"[{_DISK_ORDERS}].all(orders, orders.all(o, orders.exists_one(other, other == o)))",
        "must not give two drives the same bootOrder",
        field_path=".disks",
    ),
    Rule(
        f"[{_DISK_ORDERS} + {_NIC_ORDERS}].all(orders, {_NIC_ORDERS}.all(o, orders.exists_one(other, other == o)))",
        "must not give a network card a bootOrder that another card or a drive has",
        field_path=".nics",
    ),
    Rule(
        f"[{_DISKS}.filter(d, has(d.diskRef)).map(d, d.diskRef.name)]"
        ".all(names, names.all(n, names.exists_one(other, other == n)))",
        "must not use one Disk for two drives",
        field_path=".disks",
    ),
)


class VirtualMachineSpec(Model):
    """What the VM should be."""

    model_config = ConfigDict(json_schema_extra=rules(*_DEVICE_RULES))

    run_policy: RunPolicy
    """Always, RerunOnFailure (again after a failure, not after the guest shut itself down), Manual (by powerRequest)
    or Halted."""
    power_request: PowerRequest | None = None
    """Something asked for once, such as a reboot: a new id is a new request. Default: none."""
    pool: ObjectName
    """The HostPool that it runs in."""
    cpu: CPU = Field(default_factory=CPU)
    """Virtual CPUs: sockets × cores × threads of them. Default: 1."""
    memory: Memory
    """Guest memory."""
    firmware: Firmware = Field(default_factory=Firmware)
    """How the guest boots. Default: by BIOS."""
    machine: Machine = Machine.Q35
    """q35 or pc. Default: q35."""
    disks: list[VMDisk] = Field(default_factory=list, max_length=MAX_DISKS, json_schema_extra=list_map("name"))
    """Drives, each by a name that stays: an existing Disk (diskRef), one made for this VM (template), or a CD-ROM."""
    nics: list[VMNic] = Field(default_factory=list, max_length=MAX_NICS, json_schema_extra=list_map("name"))
    """Network cards, each plugged into a Network."""
    guest_os: GuestOS = Field(default=GuestOS.LINUX, alias="guestOS")
    """What runs in the guest. Windows gets Hyper-V's features and a clock in local time; Other gets devices that need
    no drivers of their own. Default: Linux."""
    cloud_init: CloudInit | None = None
    """What cloud-init finds in the guest, on a CD-ROM of its own. Default: no such CD-ROM."""
    placement: VMPlacement = Field(default_factory=VMPlacement)
    """Where the VM may run. Default: on every host of the pool."""
    devices: Devices = Field(default_factory=Devices)
    """Other devices: screen, watchdog, serial console, guest agent and the like."""
    lifecycle: Lifecycle = Field(default_factory=Lifecycle)
    """How the VM is shut down, and what becomes of its domain when it is deleted."""


class VirtualMachine(Resource[VirtualMachineSpec, VirtualMachineStatus]):
    """A virtual machine."""


VIRTUAL_MACHINE = Kind(
    kind="VirtualMachine",
    plural="virtualmachines",
    model=VirtualMachine,
    namespaced=True,
    short_names=("vm", "hvm"),
    columns=(
        Column("Status", ".status.printableStatus"),
        READY_COLUMN,
        Column("Host", ".status.placement.host"),
        Column("Address", ".status.guest.ipAddress"),
        Column("Pool", ".spec.pool", priority=1),
        Column("Memory", ".spec.memory.size", priority=1),
        Column("Policy", ".spec.runPolicy", priority=1),
        reason_column(),
        AGE_COLUMN,
    ),
    description="A virtual machine on one of the hosts of a pool.",
    selectable_fields=(".spec.pool", ".status.phase", ".status.placement.host"),
    rules=(
        Rule(
            "self.spec.pool == oldSelf.spec.pool || !has(oldSelf.status) || !has(oldSelf.status.placement)"
            " || (!has(oldSelf.status.placement.host) && (!has(oldSelf.status.placement.candidates)"
            " || oldSelf.status.placement.candidates.size() == 0))",
            "cannot be changed while the VM runs, or may run, on a host of the old pool: set runPolicy to Halted first",
            field_path=".spec.pool",
            reason="FieldValueForbidden",
        ),
        Rule(
            f"!has(self.spec.disks) || self.spec.disks.all(d, !has(d.template)"
            f" || self.metadata.name.size() + d.name.size() + 1 <= {MAX_OBJECT_NAME})",
            "must leave room for the names of its Disks, <vm>-<drive>: shorten the drive's name or the VM's",
            field_path=".spec.disks",
        ),
    ),
)
