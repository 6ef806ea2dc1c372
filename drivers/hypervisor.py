"""The contract between reconcilers and hosts: what every driver promises, in data types that know no library.

Three promises hold for every method of `Hypervisor`:

- *it may be called again*: asking for what is already so succeeds and changes nothing (starting a running
  domain, deleting a volume that is absent), so a reconciler that crashed meanwhile calls once more;
- *it has a deadline*: it returns or raises `HostTimeout` within its bound, also when the host hangs. A call whose
  deadline has passed may still take effect later on the host: the caller observes before it decides again;
- *it raises typed errors only* (`HypervisorError`, see `drivers.errors`), typed by what to do next.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import islice, takewhile
from typing import NamedTuple, Protocol, TypeVar

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
class DomainObservation:
    """One domain on one host, as last seen."""

    uuid: str
    name: str
    state: DomainState
    stop_reason: StopReason | None
    """Why it is shut off; None while it is not."""
    persistent: bool
    identity: Identity | None
    """None for a domain that nobody stamped: a foreign one."""
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

    @property
    def opened(self) -> frozenset[str]:
        """Paths of all images that the domain has, those that it only reads (CD-ROMs) included."""
        return frozenset([*self.images, *(device.source for device in self.devices if device.source is not None)])


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
    """Path of the image, for a drive; None for an empty CD-ROM."""


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


class FileNames(frozenset[str]):
    """The names of all files in a directory, as a scan saw them."""

    def starting(self, beginning: str) -> tuple[str, ...]:
        """Those that begin so, sorted. Searching thousands costs nothing; who shares a scan shares its order."""
        first = bisect_left(self._in_order, beginning)
        return tuple(takewhile(lambda name: name.startswith(beginning), islice(self._in_order, first, None)))

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


class Hypervisor(Protocol):
    """One host. Every method may be called again, has a deadline and raises `HypervisorError` only."""

    @property
    def name(self) -> str:
        """Name of the Host object."""

    def view(self) -> ConnectionView:
        """What is known now, without asking the host."""

    @property
    def fresh(self) -> bool:
        """What `view` says of it, for those who ask all hosts."""

    def inventory(self) -> Inventory | None:
        """What `view` says of it, for those who ask all hosts."""

    async def refresh(self, uuid: str | None = None) -> ConnectionView:
        """Ask the host anew for one domain, or for all of them (a complete list), and return what is known then."""

    async def refresh_facts(self) -> HostFacts:
        """Ask the host anew what it is (bridges come and go)."""

    async def baseline_cpu(self, cpus: Sequence[str]) -> CPUModel:
        """The best CPU that all of these host CPUs (`HostFacts.cpu_xml`) can give a guest."""

    # Domains -------------------------------------------------------------------------------------------------------

    async def define(self, xml: str) -> None:
        """Make or replace a persistent domain's definition (its inactive one while it runs).

        Raises AlreadyExists when the name belongs to another UUID, Refused(InvalidDomain) for a document that libvirt
        does not take.
        """

    async def start(self, uuid: str, *, paused: bool = False) -> None:
        """Start a defined domain, from power-on and never from a saved image. A running one is left as it is.

        Raises Refused with VolumeMissing, VolumeInUse, NoSuchBridge, NoMemory or OperationFailed.
        """

    async def shutdown(self, uuid: str) -> None:
        """Ask the guest to power off (agent if it is connected, else the ACPI button). Returns at once."""

    async def destroy(self, uuid: str) -> None:
        """Cut the domain's power. Succeeds when it is off."""

    async def reboot(self, uuid: str) -> None:
        """Ask the guest to reboot."""

    async def reset(self, uuid: str) -> None:
        """Press the reset button."""

    async def suspend(self, uuid: str) -> None:
        """Pause the virtual CPUs."""

    async def resume(self, uuid: str) -> None:
        """Run the virtual CPUs again."""

    async def undefine(self, uuid: str, *, remove_nvram: bool = False) -> None:
        """Remove the definition of a domain that is off; NVRAM is kept unless asked. Absent is done.

        Raises Refused when the domain is running: a running domain never becomes transient behind our back.
        """

    async def domain_xml(self, uuid: str, *, inactive: bool = False) -> str:
        """The domain's document as libvirt keeps it. Raises NotFound."""

    async def set_metadata(self, uuid: str, xml: str) -> None:
        """Replace our metadata element, in the running domain and in its definition."""

    async def attach_device(self, uuid: str, xml: str) -> None:
        """Plug a device into the running domain and its definition; one with that alias that is there is left alone.

        Raises Refused(NoHotPlug) for a device that the host cannot plug in while the domain runs.
        """

    async def detach_device(self, uuid: str, alias: str) -> None:
        """Ask the guest to give a device up and wait for it; absent is done. Raises HostTimeout when it keeps it."""

    async def update_device(self, uuid: str, xml: str, *, force: bool = False) -> None:
        """Change a device in place (the medium of a CD-ROM, the bridge of a network card), in the running domain and
        its definition.

        force: open the tray of a CD-ROM drive though the guest holds it. Raises NotFound, Refused(TrayLocked) when the
        guest holds the tray (it was asked to let go, and may yet), Refused(NoTray) for a drive that was plugged in
        while the domain ran and whose medium cannot be changed: detach and attach it.
        """

    async def resize_block(self, uuid: str, path: str, size: int) -> None:
        """Grow a running domain's disk to size bytes. Never shrinks."""

    async def query_guest(self, uuid: str) -> GuestFacts | None:
        """Ask the guest agent; None where there is none. The answer is also kept in the observation."""

    # Storage -------------------------------------------------------------------------------------------------------

    async def ensure_pool(self, xml: str) -> PoolInfo:
        """Have a storage pool over the directory that the document names. A pool that is over this directory already
        is used, whatever its name; from then on `pool` in the methods below means the directory's path.

        Raises Refused(PathMissing) when there is no such directory.
        """

    async def pool_info(self, pool: str) -> PoolInfo:
        """Size and free space of the file system, asked anew."""

    async def volume_names(self, pool: str, *, max_age: float = 0.0) -> FileNames:
        """The files in the directory, scanned anew unless a scan began no longer than max_age seconds ago."""

    async def volume(self, pool: str, name: str) -> Volume | None:
        """One file, as it is now; None where there is none: the directory is scanned before it counts as absent."""

    async def create_volume(self, pool: str, xml: str) -> Volume:
        """Make a new file. Raises AlreadyExists and never writes into one that is there, StorageFull."""

    async def copy_volume(self, pool: str, xml: str, source: str) -> Volume:
        """Make a new file that holds what the volume named source holds, converted to the document's format.

        Bound: an hour. Raises AlreadyExists, NotFound (source), StorageFull.
        """

    async def resize_volume(self, pool: str, name: str, size: int) -> None:
        """Grow a volume that no domain uses to size bytes. Never shrinks."""

    async def delete_volume(self, pool: str, name: str) -> None:
        """Delete the file. Absent is done."""

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], *, size: int, offset: int = 0) -> None:
        """Write data, of size bytes in all, into the volume from byte offset on. No deadline but 60 s a chunk.

        What lies before and behind stays; a volume that ends before the data does grows with it, and bytes that nobody
        wrote are zero. Raises NotFound, StorageFull, Refused(SizeMismatch).
        """

    def download(self, pool: str, name: str, *, limit: int | None = None, offset: int = 0) -> AsyncIterator[bytes]:
        """The volume's bytes from byte offset on (at most limit of them, none behind its end), in chunks.

        Raises NotFound.
        """


HostListener = Callable[[str, str | None], None]
"""Called with (host, uuid) when something is newly observed of a domain, or (host, None) of the host itself. It is
called in the event loop, and must only take note."""


@dataclass(frozen=True)
class HostTarget:
    """How a host is to be reached: when any of it changes, the connection is made anew."""

    name: str
    uri: str
    credentials: dict[str, bytes] = field(default_factory=dict)
    """Keys of the credentials Secret: ca.crt, tls.crt, tls.key; ssh-privatekey, known_hosts; username, password."""
    heartbeat_seconds: int = 3
    audit_seconds: int = 300


class HostDirectory(Protocol):
    """All hosts of this process: connects, watches and gives them out."""

    def ensure(self, target: HostTarget) -> Hypervisor:
        """Have a connection to this target kept up from now on (same target again: the same one). Never blocks."""

    async def remove(self, name: str) -> None:
        """Close and forget a host."""

    def get(self, name: str) -> Hypervisor | None:
        """The host of that name, or None when it was never ensured."""

    def names(self) -> tuple[str, ...]:
        """All hosts."""

    def subscribe(self, listener: HostListener) -> None:
        """Hear of every new observation."""

    async def close(self) -> None:
        """Close everything."""
