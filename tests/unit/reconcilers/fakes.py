"""Hosts and an API server in memory, for unit tests of decisions. What they stand for is tested on the lab."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from drivers.errors import AlreadyExists, HypervisorError, NotConnected, NotFound, Refused
from drivers.hypervisor import HostTarget
from drivers.model import (
    ConnectionState,
    ConnectionView,
    CPUModel,
    DomainObservation,
    DomainState,
    FileNames,
    HostFacts,
    Identity,
    Inventory,
    PoolInfo,
    Volume,
)
from engine.cache import Cache
from engine.keys import Key
from engine.queue import KeyedQueue
from engine.status import StatusWriter
from reconcilers.context import Context
from reconcilers.jobs import Jobs
from reconcilers.registry import CRITICAL
from reconcilers.wiring import install_indexes

GIB = 2**30
EPOCH = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
INSTALLATION = "11111111-1111-4111-8111-111111111111"


def facts(**changes: Any) -> HostFacts:
    base = HostFacts(
        uuid="00000000-0000-4000-8000-000000000001",
        hostname="kvm1",
        architecture="x86_64",
        virtualization="kvm",
        libvirt_version="9.0.0",
        hypervisor_version="7.2.0",
        cpus=8,
        memory=32 * GIB,
        machines={"q35": ("pc-q35-7.2", "pc-q35-7.1"), "pc": ("pc-i440fx-7.2",)},
        cpu_model="EPYC-Rome",
        cpu_xml="<cpu/>",
        cpu_models=("EPYC-Rome", "EPYC", "qemu64"),
        firmware_uefi=("/code.fd", "/vars.fd"),
        bridges=("lan",),
    )
    return replace(base, **changes)


def domain(name: str = "default.web", *, uid: str = "vm-1", ours: bool = True, **changes: Any) -> DomainObservation:
    namespace, _, vm = name.partition(".")
    base = DomainObservation(
        uuid=uid,
        name=name,
        state=DomainState.RUNNING,
        stop_reason=None,
        persistent=True,
        identity=Identity(INSTALLATION, namespace, vm, uid, 1) if ours else None,
        sections=(),
        cpus=2,
        memory=GIB,
    )
    return replace(base, **changes)


@dataclass
class FakeClock:
    """Time that stands still until it is moved."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds - 1000.0)

    def move(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(eq=False)
class Directory:
    """Files of a directory: shared by hosts that are given the same one."""

    files: dict[str, bytes] = field(default_factory=dict)
    capacity: int = 100 * GIB
    available: int = 60 * GIB


class FakeHypervisor:
    """One host. `directories` are its file systems by path; `fail` holds errors by method name."""

    def __init__(self, name: str, clock: FakeClock, **changes: Any) -> None:
        self.name = name
        self.clock = clock
        self._facts: HostFacts | None = facts(hostname=name, uuid=f"uuid-{name}", **changes)
        self.domains: list[DomainObservation] = []
        self.state = ConnectionState.CONNECTED
        self.up_to_date = True
        self.last_seen: float | None = clock.monotonic()
        self.error: HypervisorError | None = None
        self.directories: dict[str, Directory] = {}
        self.fail: dict[str, HypervisorError] = {}
        self.calls: list[tuple[str, ...]] = []

    def view(self) -> ConnectionView:
        if self.state is ConnectionState.CONNECTED:
            self.last_seen = self.clock.monotonic()
        known = self.last_seen is not None
        return ConnectionView(
            state=self.state,
            facts=self.facts,
            inventory=Inventory(tuple(self.domains), 1, self.clock.monotonic()) if known else None,
            fresh=self.up_to_date and self.state is ConnectionState.CONNECTED,
            last_seen=self.last_seen,
            error=self.error,
        )

    @property
    def fresh(self) -> bool:
        return self.view().fresh

    @property
    def facts(self) -> HostFacts | None:
        return self._facts if self.last_seen is not None else None

    @facts.setter
    def facts(self, found: HostFacts | None) -> None:
        self._facts = found

    def inventory(self) -> Inventory | None:
        return self.view().inventory

    def disconnect(self, error: HypervisorError | None = None) -> None:
        self.state, self.error = ConnectionState.SUSPECT, error

    def never_connected(self, error: HypervisorError | None = None) -> None:
        self.state, self.error, self.last_seen = ConnectionState.CONNECTING, error, None

    def _called(self, method: str, *arguments: str) -> None:
        self.calls.append((method, *arguments))
        if self.state is not ConnectionState.CONNECTED:
            raise NotConnected(f"{self.name} is not connected")
        if method in self.fail:
            raise self.fail[method]

    def _directory(self, path: str) -> Directory:
        if path not in self.directories:
            raise Refused(f"there is no directory {path}", reason="PathMissing")
        return self.directories[path]

    async def refresh(self, uuid: str | None = None) -> ConnectionView:
        self._called("refresh")
        return self.view()

    async def refresh_facts(self) -> HostFacts:
        self._called("refresh_facts")
        assert self.facts is not None
        return self.facts

    async def baseline_cpu(self, cpus: list[str]) -> CPUModel:
        self._called("baseline_cpu")
        return CPUModel("EPYC-Rome", ("+x2apic",))

    async def ensure_pool(self, xml: str) -> PoolInfo:
        path = re.search(r"<path>(.*?)</path>", xml)
        assert path is not None
        self._called("ensure_pool", path[1])
        return await self.pool_info(path[1])

    async def pool_info(self, pool: str) -> PoolInfo:
        self._called("pool_info", pool)
        found = self._directory(pool)
        return PoolInfo(pool, found.capacity, found.available)

    async def volume_names(self, pool: str, *, max_age: float = 0.0) -> FileNames:
        self._called("volume_names", pool)
        return FileNames(self._directory(pool).files)

    async def volume(self, pool: str, name: str) -> Volume | None:
        self._called("volume", pool, name)
        data = self._directory(pool).files.get(name)
        return None if data is None else Volume(name, f"{pool}/{name}", "raw", len(data), len(data))

    async def create_volume(self, pool: str, xml: str) -> Volume:
        name, capacity = re.search(r"<name>(.*?)</name>", xml), re.search(r"<capacity.*?>(\d+)<", xml)
        assert name is not None
        assert capacity is not None
        self._called("create_volume", pool, name[1])
        files = self._directory(pool).files
        if name[1] in files:
            raise AlreadyExists(f"{name[1]} is there")
        files[name[1]] = bytes(int(capacity[1]))
        return Volume(name[1], f"{pool}/{name[1]}", "raw", int(capacity[1]), 0)

    async def delete_volume(self, pool: str, name: str) -> None:
        self._called("delete_volume", pool, name)
        self._directory(pool).files.pop(name, None)

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], *, size: int, offset: int = 0) -> None:
        self._called("upload", pool, name)
        content = b"".join([chunk async for chunk in data])
        assert len(content) == size
        files = self._directory(pool).files
        if name not in files:
            raise NotFound(name)
        before = files[name]
        files[name] = before[:offset].ljust(offset, b"\0") + content + before[offset + size :]

    async def download(
        self, pool: str, name: str, *, limit: int | None = None, offset: int = 0
    ) -> AsyncIterator[bytes]:
        self._called("download", pool, name)
        files = self._directory(pool).files
        if name not in files:
            raise NotFound(f"there is no {name}")
        yield files[name][offset : None if limit is None else offset + limit]


class FakeHosts:
    """The directory of hosts."""

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHypervisor] = {}
        self.targets: dict[str, HostTarget] = {}
        self.removed: list[str] = []

    def ensure(self, target: HostTarget) -> FakeHypervisor:
        self.targets[target.name] = target
        return self.hosts[target.name]

    async def remove(self, name: str) -> None:
        self.removed.append(name)
        self.hosts.pop(name, None)

    def get(self, name: str) -> FakeHypervisor | None:
        return self.hosts.get(name)

    def names(self) -> tuple[str, ...]:
        return tuple(self.hosts)


def merged(old: Any, patch: Any) -> Any:
    """A JSON merge patch, as the API server applies it."""
    if not isinstance(patch, dict):
        return patch
    old = old if isinstance(old, dict) else {}
    new = {**old, **{name: merged(old.get(name), value) for name, value in patch.items()}}
    return {name: value for name, value in new.items() if value is not None}


class FakeClient:
    """An API server that only knows what the engine's writers send: patches of metadata and of status."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.writes: list[tuple[str, Key, Any]] = []
        self.version = 100
        self.unseen: dict[Key, dict[str, Any]] = {}
        """What the server has and the cache does not know of yet."""

    async def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any]:
        key = Key(resource.kind, namespace, name)
        return self.unseen.get(key) or self._current(key)

    async def list(self, resource: Any, namespace: str | None = None) -> tuple[list[dict[str, Any]], str]:
        known = {key: obj for key in self.cache.keys(resource.kind) if (obj := self.cache.get(key)) is not None}
        found = {**known, **{key: obj for key, obj in self.unseen.items() if key.kind == resource.kind}}
        return [obj for key, obj in found.items() if namespace in (None, key.namespace)], str(self.version)

    def put(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self.cache.upsert(obj)
        return obj

    def _current(self, key: Key) -> dict[str, Any]:
        found = self.cache.get(key)
        assert found is not None
        return found

    async def apply_status(self, resource: Any, obj: dict[str, Any], *, manager: str, force: bool = True) -> Any:
        key = Key(resource.kind, obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
        self.writes.append(("apply", key, obj["status"]))
        current = self._current(key)
        kept = {k: v for k, v in (current.get("status") or {}).items() if k in CRITICAL.get(key.kind, ())}
        return self.put({**current, "status": {**kept, **obj["status"]}})

    async def patch_status(
        self, resource: Any, key: Key, patch: dict[str, Any], *, resource_version: str, manager: str
    ) -> Any:
        self.writes.append(("patch", key, patch))
        current = self._current(key)
        return self.put({**current, "status": merged(current.get("status") or {}, patch)})

    async def patch_metadata(
        self, resource: Any, key: Key, ops: list[dict[str, Any]], *, resource_version: str, manager: str
    ) -> Any:
        self.writes.append(("metadata", key, ops))
        current = self._current(key)
        held = list(current["metadata"].get("finalizers") or [])
        for op in ops:
            if op["op"] == "add":
                held = op["value"] if isinstance(op["value"], list) else [*held, op["value"]]
            elif op["op"] == "remove":
                held = []
        return self.put({**current, "metadata": {**current["metadata"], "finalizers": held}})


class FakeRecorder:
    """Remembers events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def record(self, obj: Any, event_type: str, reason: str, message: str) -> None:
        self.events.append((reason, message))


class World:
    """A context over fakes, and short ways to fill it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = Cache()
        install_indexes(self.cache)
        self.client = FakeClient(self.cache)
        self.hosts = FakeHosts()
        self.recorder = FakeRecorder()
        queue = KeyedQueue(self.clock)
        self.context = Context(
            client=self.client,  # type: ignore[arg-type]
            cache=self.cache,
            queue=queue,
            hosts=self.hosts,  # type: ignore[arg-type]
            writer=StatusWriter(self.client, self.cache, manager="hostler", critical=CRITICAL),  # type: ignore[arg-type]
            recorder=self.recorder,  # type: ignore[arg-type]
            clock=self.clock,
            jobs=Jobs(queue.add),
            installation=INSTALLATION,
            namespace="hostler-system",
        )

    def add(self, kind: str, name: str, spec: dict[str, Any], *, namespace: str = "", **extra: Any) -> Key:
        """An object as the API server would store it. `extra`: status=…, and anything of metadata."""
        status = extra.pop("status", None)
        metadata = {
            "name": name,
            "uid": f"uid-{kind}-{name}",
            "generation": 1,
            "creationTimestamp": "2026-11-20T12:00:00Z",
            "finalizers": ["hostler.dev/cleanup"],
            **({"namespace": namespace} if namespace else {}),
            **extra,
        }
        obj = {"apiVersion": "hostler.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        self.client.put({**obj, **({"status": status} if status is not None else {})})
        return Key(kind, namespace, name)

    def host(self, name: str, *, pool: str = "default", mode: str = "Active", **extra: Any) -> FakeHypervisor:
        """A Host object, and its machine, connected."""
        spec = {"pool": pool, "uri": "qemu+unix:///system", "mode": mode, **extra.pop("spec", {})}
        self.add("Host", name, spec, **extra)
        return self.hosts.hosts.setdefault(name, FakeHypervisor(name, self.clock))

    def pool(self, name: str = "default", spec: dict[str, Any] | None = None, **extra: Any) -> Key:
        return self.add("HostPool", name, spec or {}, **extra)

    def status(self, key: Key) -> dict[str, Any]:
        obj = self.cache.get(key)
        assert obj is not None
        return obj.get("status") or {}

    def condition(self, key: Key, kind: str) -> tuple[str, str, str]:
        """(status, reason, message) of a condition."""
        found = next(c for c in self.status(key)["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def standing(self, key: Key) -> tuple[str, str, str, str]:
        """(Ready, Reconciling, Stalled, reason)."""
        ready, reason, _ = self.condition(key, "Ready")
        return ready, self.condition(key, "Reconciling")[0], self.condition(key, "Stalled")[0], reason


BASELINE = {
    "architecture": "x86_64",
    "virtualization": "kvm",
    "cpu": {"model": "EPYC-Rome", "features": []},
    "machines": [{"family": "pc", "type": "pc-i440fx-7.2"}, {"family": "q35", "type": "pc-q35-7.2"}],
}
