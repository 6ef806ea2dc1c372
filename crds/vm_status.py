"""What is observed of a VM, and what must be remembered of it between two looks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from crds.base import Model, Status, list_map
from crds.vm_power import Power, PowerRequestStatus


class VMPhase(StrEnum):
    """Where the VM stands, computed anew from what is observed."""

    PENDING = "Pending"
    SCHEDULING = "Scheduling"
    STARTING = "Starting"
    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    CRASHED = "Crashed"
    UNKNOWN = "Unknown"


class Placement(Model):
    """Which host the VM runs on."""

    host: str | None = None
    """Name of the Host; none while the VM is off."""
    epoch: int
    """Rises with each decision to run the VM somewhere; also written into the domain's metadata. It stays when the VM
    stops."""
    since: datetime
    """When it was decided."""
    candidates: list[str] = Field(
        default_factory=list, max_length=1024, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """Every host that may hold the VM: written before a create is sent, removed only by a fact."""


class GuestInterface(Model):
    """One network interface inside the guest."""

    name: str
    """Its name in the guest."""
    mac: str | None = None
    """Its MAC address."""
    addresses: list[str] = Field(default_factory=list, max_length=64)
    """Its addresses with prefix length; loopback and link-local ones left out."""


class GuestInfo(Model):
    """What the guest agent says."""

    hostname: str | None = None
    """The guest's host name."""
    os: str | None = None
    """The guest's operating system."""
    interfaces: list[GuestInterface] = Field(default_factory=list, max_length=64)
    """The guest's network interfaces."""
    ip_address: str | None = None
    """The first address, for `kubectl get`."""


class DeviceStatus(Model):
    """One device's place in the guest, kept so that it is the same after every start."""

    name: str
    """The device's alias, for example ua-disk-root."""
    address: str | None = None
    """Where it sits, for example pci:0000:03:00.0."""
    target: str | None = None
    """A drive's target, for example vda."""
    mac: str | None = None
    """MAC address of a network card."""


class StartFailure(Model):
    """Starts that failed, or crashes, in a row."""

    count: int
    """How many."""
    last_at: datetime
    """When the last one was."""
    next_at: datetime
    """When the next try is."""
    message: str
    """What the host said."""


class VMFile(Model):
    """A file that belongs to the VM itself: its cloud-init seed or its UEFI variables."""

    name: str
    """File name."""
    storage_domain: str
    """The StorageDomain that it lies on: that of the first disk."""
    host: str | None = None
    """HostLocal domains: the Host that it lies on."""


class PhaseTransition(Model):
    """When a phase was last entered."""

    phase: VMPhase
    """The phase."""
    at: datetime
    """When it was entered."""


class VirtualMachineStatus(Status):
    """What is observed of the VM."""

    phase: VMPhase | None = None
    """Pending, Scheduling, Starting, Running, Paused, Stopping, Stopped, Crashed or Unknown."""
    printable_status: str | None = None
    """The phase, or the reason that keeps it from being reached."""
    uuid: str | None = None
    """The domain's UUID; fixed once it is set."""
    power: Power | None = None
    """Whether the VM should run now, and why."""
    placement: Placement | None = None
    """Which host the VM runs on."""
    power_request: PowerRequestStatus | None = None
    """The last power request that was seen."""
    guest: GuestInfo | None = None
    """What the guest agent says."""
    devices: list[DeviceStatus] = Field(default_factory=list, max_length=128, json_schema_extra=list_map("name"))
    """Stable addresses of the VM's devices."""
    files: list[VMFile] = Field(
        default_factory=list, max_length=16, json_schema_extra=list_map("storageDomain", "name")
    )
    """Files that go with the VM: written down before they are made, removed with it."""
    start_failure: StartFailure | None = None
    """Starts that failed in a row."""
    phase_transition_timestamps: list[PhaseTransition] = Field(
        default_factory=list, max_length=16, json_schema_extra=list_map("phase")
    )
    """When each phase was last entered."""
