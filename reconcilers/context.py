"""What a reconciler is given: the world outside, in one argument."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from crds.base import Model, Resource
from crds.host import Host
from drivers.hypervisor import HostDirectory, Hypervisor
from drivers.model import ConnectionView
from engine.cache import Cache
from engine.clock import Clock, timestamp
from engine.errors import Conflict
from engine.keys import Key
from engine.kube import KubeClient
from engine.operations import Operations
from engine.queue import KeyedQueue
from engine.recorder import Recorder
from engine.status import StatusWriter
from reconcilers.bandwidth import Bandwidth
from reconcilers.jobs import Jobs
from reconcilers.objects import API, Objects, key_of
from reconcilers.sightings import Sightings
from reconcilers.standing import news

FIELD_MANAGER = "hostler"


@dataclass(frozen=True)
class Reservation:
    """Room on a host that a VM has been promised, until its placement is in the cache."""

    host: str
    cpus: int
    memory: int


@dataclass
class Begun:
    """A volume that this process has begun to make."""

    uid: str
    """Of the Disk."""
    host: str
    """On which it was begun."""
    pool: str
    volume: str
    lost_at: float | None = None
    """Monotonic time at which this process gave it up, because another one had begun it anew."""


@dataclass(frozen=True)
class HeldTray:
    """A guest that kept the tray of its drive closed; monotonic times."""

    since: float
    asked: float


@dataclass
class Plugging:
    """What one run of a VM (its uid and epoch) has refused while its devices were changed; learnt anew after a restart
    of ours.
    """

    run: tuple[str, int]
    trays: dict[str, HeldTray] = field(default_factory=dict)
    """By alias of the drive."""
    unpluggable: dict[str, str] = field(default_factory=dict)
    """By alias: the device's document that the host cannot plug in while the domain runs."""


@dataclass
class Context:
    """Everything a reconciler reaches; one per process."""

    client: KubeClient
    cache: Cache
    queue: KeyedQueue
    hosts: HostDirectory
    writer: StatusWriter
    recorder: Recorder
    clock: Clock
    jobs: Jobs
    installation: str
    """Identity of this Hostler: stamped into domains and storage, so that two installations keep apart."""
    namespace: str
    """The operator's namespace, where infrastructure Secrets are."""
    connector: Callable[[], aiohttp.BaseConnector | None] = lambda: None
    """How web servers are reached, anew for each session; None: over the network."""
    new_id: Callable[[], str] = field(default=lambda: str(uuid.uuid4()))
    """Makes an identifier that nobody has."""
    objects: Objects = field(init=False)
    sightings: Sightings = field(init=False)
    operations: Operations[Context] = field(init=False, repr=False)
    """Work of several steps: `reconcilers.operation` asks for it. Set by whoever puts the controller together."""
    reservations: dict[str, Reservation] = field(default_factory=dict)
    """By VM uid: room promised by a placement whose write has not come back yet. Written and read without awaiting in
    between, so that two workers never give the same room away."""

    growing: set[str] = field(default_factory=set)
    """Uids of Disks of which this process has written down that their volume grows through a pool."""

    bandwidths: dict[str, Bandwidth] = field(default_factory=dict)
    """By StorageDomain: what those who copy onto it share."""

    making: dict[Key, Begun] = field(default_factory=dict)
    """By Disk: its volume that this process has begun and that is not known to be whole."""

    shutdown_asked: dict[Key, float] = field(default_factory=dict)
    """Monotonic time at which a guest was last asked to shut down; asked again after a restart, which harms nothing."""
    plugging: dict[Key, Plugging] = field(default_factory=dict)
    """By VM: what its running domain did not do."""
    user_data: dict[str, tuple[tuple[str, int], str]] = field(default_factory=dict)
    """By VM uid: the user-data of the Secret it names, and (Secret, generation) that it was read for."""

    def __post_init__(self) -> None:
        self.objects = Objects(self.cache)
        self.sightings = Sightings(self.hosts)

    def host(self, name: str) -> Hypervisor | None:
        """The connection to a host, or None when there is none yet."""
        return self.hosts.get(name)

    def view(self, name: str) -> ConnectionView | None:
        """What is observed of a host, or None when it was never connected.

        A machine that answers in the place of another is not asked what has become of that one's domains: what it
        lists is never fresh.
        """
        host = self.hosts.get(name)
        if host is None:
            return None
        view = host.view()
        return view._replace(fresh=False) if self.is_another_machine(name) else view

    def is_another_machine(self, name: str) -> bool:
        """Whether not the machine answers that the VMs with a place on this Host were started on."""
        host, declared = self.hosts.get(name), self.objects.get(Host, name)
        facts = host.facts if host is not None else None
        known = declared.status.uuid if declared is not None else None
        if facts is None or known is None or facts.uuid == known:
            return False
        return bool(self.cache.keys_by_index("VirtualMachine", "host", name))

    async def write_status(self, obj: Resource[Any, Any], status: Mapping[str, Any]) -> None:
        """Write the descriptive status, if it differs. `status` is camelCase and whole: what is left out is removed.

        An object that has just become held up is told of in an Event too.
        """
        raw = self.cache.get(key_of(obj))
        if raw is not None and raw["metadata"].get("uid") == obj.metadata.uid:
            await self.writer.write(API[obj.kind], raw, _plain(status))
            held_up = news(obj, status.get("conditions", ()))
            if held_up is not None:
                self.event(obj, *held_up, warning=True)

    async def compare_and_set(self, obj: Resource[Any, Any], fields: Mapping[str, Any]) -> None:
        """Write critical status fields, if nobody has changed the object since `obj` was read.

        Raises engine.errors.Conflict otherwise, and NotFound when the object is gone.
        """
        raw = self.cache.get(key_of(obj))
        if raw is None or raw["metadata"]["resourceVersion"] != obj.metadata.resource_version:
            raise Conflict(409, "Conflict", f"{key_of(obj)} has changed meanwhile")
        await self.writer.compare_and_set(API[obj.kind], raw, _plain(fields))

    def event(self, obj: Resource[Any, Any], reason: str, message: str, *, warning: bool = False) -> None:
        """Tell the user something worth knowing, as a Kubernetes Event (deduplicated, posted in the background)."""
        raw = self.cache.get(key_of(obj))
        if raw is not None:
            self.recorder.record(raw, "Warning" if warning else "Normal", reason, message)

    def wake(self, key: Key) -> None:
        """Have an object looked at."""
        self.queue.add(key)


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Models among the fields as the API carries them."""
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, datetime):
        return timestamp(value)
    return value
