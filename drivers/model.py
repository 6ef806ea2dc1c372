"""The data of the contract between reconcilers and hosts: what a host is, and what is known of its domains and volumes.

All of it is read from hosts and knows no library. What can be asked of a host is in `drivers.hypervisor`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice, takewhile
from typing import NamedTuple, TypeVar

from drivers.errors import HypervisorError

K = TypeVar("K")


class DomainState(StrEnum):
    """State of a domain, as libvirt names it."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutdown"
    SHUT_OFF = "shutoff"
    CRASHED = "crashed"
    SUSPENDED = "pmsuspended"


ACTIVE = frozenset({DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTTING_DOWN, DomainState.SUSPENDED})
"""States in which a domain has a QEMU process."""


class StopReason(StrEnum):
    """Why a domain is shut off, in the words a decision needs."""

    GUEST_SHUTDOWN = "GuestShutdown"
    """The guest powered itself off, by itself or because it was asked to."""
    DESTROYED = "Destroyed"
    """Somebody cut its power through libvirt."""
    CRASHED = "Crashed"
    """QEMU died, or the guest panicked."""
    MIGRATED = "Migrated"
    """It runs on another host now."""
    FAILED = "Failed"
    """It never started."""
    UNKNOWN = "Unknown"
    """The daemon does not know, for example since it was restarted or the domain was only defined."""


@dataclass(frozen=True)
class Identity:
    """Who a domain belongs to, as stamped into its metadata (see xmlgen.metadata)."""

    installation: str
    namespace: str
    name: str
    uid: str
    epoch: int


@dataclass(frozen=True)
class Work:
    """For what a job domain was made, as stamped into its metadata (see xmlgen.job_domain)."""

    installation: str
    operation: str
    """UID of the object that asked for it."""


@dataclass(frozen=True)
class DomainObservation:
    """One domain on one host, as last seen."""

    uuid: str
    name: str
    state: DomainState
    stop_reason: StopReason | None
    """Why it is shut off; None while it is not."""
    persistent: bool
    identity: Identity | None
    """None for a domain that nobody stamped as a VM of ours: a foreign one, or a job domain (`work`)."""
    sections: tuple[tuple[str, str], ...]
    """Fingerprint of each section of the document that it was defined from, from the metadata: (name, hash)."""
    cpus: int
    memory: int
    """Current memory, bytes."""
    devices: tuple[DeviceObservation, ...] = ()
    """Devices with an alias, with the address that libvirt gave them."""
    images: tuple[str, ...] = ()
    """Paths of all images that the domain may write, backing chains left out."""
    agent_connected: bool = False
    paused_reason: str = ""
    """Why it is paused, in libvirt's word (user, ioerror, …); empty while it is not."""
    guest: GuestFacts | None = None
    """What the guest agent said last."""
    work: Work | None = None
    """For what it was made, if it is no VM but a job domain."""

    @property
    def opened(self) -> frozenset[str]:
        """Paths of all images that the domain has: those that it only reads (CD-ROMs, layers below an image) and those
        that a block job writes (`Mirror`) included.
        """
        return frozenset([*self.images, *(path for device in self.devices for path in device.opened)])

    @property
    def relied_on(self) -> frozenset[str]:
        """Paths of all images that nobody else may write: those that it may write, the layers below them, and what
        they are copied to.
        """
        drives = (device for device in self.devices if device.source in self.images)
        return frozenset([*self.images, *(path for drive in drives for path in drive.opened)])

    def device(self, alias: str) -> DeviceObservation | None:
        """The device of that alias."""
        return next((device for device in self.devices if device.alias == alias), None)


@dataclass(frozen=True)
class DeviceObservation:
    """One device of a domain."""

    alias: str
    address: str | None
    """`pci:0000:03:00.0`, `drive:0:0:0:1` or None."""
    mac: str | None = None
    target: str | None = None
    """A drive's target (vda, sdb, …); a network card's tap device while it runs."""
    source: str | None = None
    """Path of the image, for a drive: of its leaf, the layer that is written. None for an empty CD-ROM."""
    backing: tuple[str, ...] = ()
    """Paths of the layers below the leaf, from the top down. Nothing is known of them while the domain is off."""
    mirror: Mirror | None = None
    """Where else a block job writes what the drive writes."""

    @property
    def opened(self) -> tuple[str, ...]:
        """Paths of all files that the drive has open."""
        mirrored = () if self.mirror is None else (self.mirror.path,)
        return (*(() if self.source is None else (self.source, *self.backing)), *mirrored)


class JobKind(StrEnum):
    """What a block job does."""

    COMMIT = "commit"
    """Moves layers that nobody writes into the one below them; ends by itself."""
    ACTIVE_COMMIT = "active-commit"
    """Moves the leaf, and layers below it, into the one below them; then waits for `pivot`."""
    COPY = "copy"
    """Copies what the drive shows, or its leaf alone, to another file; then waits for `pivot`."""
    OTHER = "other"
    """None of ours."""


@dataclass(frozen=True)
class Mirror:
    """The file that a drive goes on with once its block job is pivoted."""

    path: str
    kind: JobKind
    ready: bool
    """Whether it holds all that the drive shows: from then on each write goes to both, and `pivot` can be asked for."""


@dataclass(frozen=True)
class BlockJob:
    """A block job of a drive, as it stands."""

    kind: JobKind
    done: int
    """Bytes that are done …"""
    total: int
    """… of so many. It grows while the guest writes."""
    ready: bool
    """See Mirror. Equal numbers say nothing yet: they are also equal before a job has begun."""
    bandwidth: int
    """Bytes per second that it keeps to; 0 is no limit."""


@dataclass(frozen=True)
class GuestInterfaceFacts:
    """One interface inside a guest; loopback and link-local addresses left out."""

    name: str
    mac: str | None
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class GuestFacts:
    """What the guest agent says."""

    hostname: str | None
    os: str | None
    interfaces: tuple[GuestInterfaceFacts, ...]


@dataclass(frozen=True)
class HostFacts:
    """What a host is and can do; changes only when it reconnects."""

    uuid: str
    hostname: str
    architecture: str
    virtualization: str
    """kvm or qemu."""
    libvirt_version: str
    hypervisor_version: str
    cpus: int
    memory: int
    """Physical memory, bytes."""
    machines: dict[str, tuple[str, ...]]
    """Family (q35, pc) → versioned machine types, newest first."""
    cpu_model: str
    cpu_xml: str
    """The host-model CPU of the domain capabilities, an opaque document for `baseline_cpu`."""
    cpu_models: tuple[str, ...]
    """Named models that are usable on this host."""
    firmware_uefi: tuple[str, str] | None
    """Paths of (loader, nvram template) for UEFI without Secure Boot; None where there is none."""
    bridges: tuple[str, ...]
    """Bridge devices that are there now."""


@dataclass(frozen=True)
class CPUModel:
    """A guest CPU: a named model and the features beyond it (`+name` required, `-name` disabled)."""

    model: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """A complete list of a host's domains, and when it was asked for."""

    domains: tuple[DomainObservation, ...]
    sequence: int
    """Rises with every observation of this host; a higher number is newer."""
    listed_at: float
    """Monotonic time before the list was asked for: what was true then or later is in it."""

    def get(self, uuid: str) -> DomainObservation | None:
        """The domain with this UUID."""
        return self.by_uuid.get(uuid)

    def stamped(self, installation: str, namespace: str, name: str) -> tuple[DomainObservation, ...]:
        """The domains whose metadata name this object, under whatever uid."""
        return self.by_stamp.get((installation, namespace, name), ())

    def having(self, path: str) -> tuple[DomainObservation, ...]:
        """The domains that have the file at this path, to write or to read."""
        return self.by_file.get(path, ())

    @cached_property
    def by_uuid(self) -> dict[str, DomainObservation]:
        """The domains by their UUID."""
        return {domain.uuid: domain for domain in self.domains}

    @cached_property
    def by_stamp(self) -> dict[tuple[str, str, str], tuple[DomainObservation, ...]]:
        """The domains by what their metadata name: (installation, namespace, name)."""
        stamps = ((d.identity, d) for d in self.domains if d.identity is not None)
        return _grouped(((i.installation, i.namespace, i.name), d) for i, d in stamps)

    @cached_property
    def by_file(self) -> dict[str, tuple[DomainObservation, ...]]:
        """The domains by the paths of their files."""
        return _grouped((path, domain) for domain in self.domains for path in domain.opened)


def _grouped(pairs: Iterable[tuple[K, DomainObservation]]) -> dict[K, tuple[DomainObservation, ...]]:
    found: dict[K, tuple[DomainObservation, ...]] = {}
    for key, domain in pairs:
        found[key] = (*found.get(key, ()), domain)
    return found


@dataclass(frozen=True)
class Volume:
    """One file of a storage pool."""

    name: str
    path: str
    format: str
    capacity: int
    """Virtual size, bytes."""
    allocation: int
    """Bytes that it takes on the storage."""
    backing: str | None = None
    """Path of the layer below it, as its header says, made absolute."""
    backing_format: str | None = None
    """Format of that layer; None where the header does not say it."""


class FileNames(frozenset[str]):
    """The names of all files in a directory, as a scan saw them."""

    def starting(self, beginning: str) -> tuple[str, ...]:
        """Those that begin so, sorted. Searching thousands costs nothing; who shares a scan shares its order."""
        first = bisect_left(self._in_order, beginning)
        return tuple(takewhile(lambda name: name.startswith(beginning), islice(self._in_order, first, None)))

    def after(self, before: FileNames) -> FileNames:
        """The same names, which are in order soon: few have changed since an earlier scan, which was put in order."""
        if "_in_order" in before.__dict__:
            kept = [name for name in before._in_order if name in self]
            self._in_order = sorted([*kept, *(self - before)])
        return self

    @cached_property
    def _in_order(self) -> list[str]:
        return sorted(self)


@dataclass(frozen=True)
class PoolInfo:
    """A storage pool's file system."""

    path: str
    capacity: int
    available: int


class ConnectionState(StrEnum):
    """Where the connection to a host stands."""

    CONNECTING = "Connecting"
    """Never connected yet with these settings; `ConnectionView.error` says what the last try met."""
    CONNECTED = "Connected"
    SUSPECT = "Suspect"
    """Was connected; heartbeats are missing, or the connection broke and is being made again."""


class ConnectionView(NamedTuple):
    """What is known of a host now. A snapshot: asking for it never blocks."""

    state: ConnectionState
    facts: HostFacts | None
    """None until it was connected once."""
    inventory: Inventory | None
    """The newest observations; None until there was a complete list."""
    fresh: bool
    """Whether the inventory is complete and kept up to date by events now: connected, heartbeat in time, listed since
    the connection was made. Only then is a domain that it does not show a domain that is not there."""
    last_seen: float | None
    """Monotonic time of the last answered heartbeat."""
    error: HypervisorError | None
    """What the last try to connect met."""
