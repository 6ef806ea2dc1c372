"""A small data centre in memory: three hosts, their storage, an API server, users, and the controllers that run."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime
from typing import Any

from drivers.simulated.directory import SimulatedDirectory
from drivers.simulated.faults import Delay, Rule
from drivers.simulated.files import File
from drivers.simulated.latencies import MEASURED, Latencies
from drivers.simulated.world import World
from engine.clock import LoopClock
from engine.keys import Key
from engine.kube import Resource
from reconcilers.objects import API, NAMESPACE
from simulator import manifests
from simulator.apiserver import ApiServer
from simulator.channel import Faults
from simulator.doors import Gate
from simulator.manifests import Object
from simulator.messages import Change, Request
from simulator.process import ControllerProcess
from simulator.web import WebServer
from xmlgen import names

EPOCH = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
HOSTS = ("kvm1", "kvm2", "kvm3")
_RESOURCES: dict[str, Resource] = {**API, "Namespace": NAMESPACE}


class NotSettled(Exception):
    """The world went on changing beyond all patience."""


class Scene:
    """Everything that one run is made of; all chance comes from its seed."""

    def __init__(self, seed: int, *, gate: Gate | None = None, latencies: Latencies = MEASURED) -> None:
        """`gate` stands in the doors of the first controller; `latencies`: how long calls to hosts take."""
        self.seed = seed
        self.loop = asyncio.get_running_loop()
        self.rng = random.Random(seed)
        self.clock = LoopClock(EPOCH)
        self.server = ApiServer(self.clock, self._later, random.Random(self.rng.random()))
        self.faults = Faults()
        self.world = World(seed=self.rng.getrandbits(32), latencies=latencies, obedient=True, log_size=2000)
        self.processes: list[ControllerProcess] = []
        self.intent: dict[Key, Object] = {}
        """What users declare now: what they sent last of each object that they have not deleted."""
        self.volumes: dict[Key, File] = {}
        """The file that each Disk had when it was Ready first, and each VM for its UEFI variables."""
        self.web = WebServer(random.Random(self.rng.random()))
        self.holds: dict[Key, str] = {}
        """Finalizers of others, which they take off themselves."""
        self.broken: list[str] = []
        """What was seen to go wrong between an object and those who write it."""
        self._observed: dict[str, int] = {}
        self.gate = gate
        shared = self.world.store("shared", capacity=2**40)
        for name in HOSTS:
            machine = self.world.machine(name, cpus=8, memory=2**34)
            machine.mount(manifests.SHARED, shared)
            machine.mount(manifests.LOCAL, self.world.store(f"{name}-local", capacity=2**38))
        self.shared = shared
        self.server.subscribe(self._seen)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.loop.call_later(seconds, call, context=Context())

    # Controllers

    @property
    def controller(self) -> ControllerProcess:
        """The one that was begun last."""
        return self.processes[-1]

    def start_controller(self, *, gate: Gate | None = None, faults: Faults | None = None) -> ControllerProcess:
        """Begin a controller."""
        name = f"controller-{len(self.processes) + 1}"
        directory = SimulatedDirectory(self.world, sender=name)
        process = ControllerProcess(
            name,
            self.server,
            faults if faults is not None else self.faults,
            directory,
            self._delay_next,
            clock=self.clock,
            rng=random.Random(self.rng.random()),
            gate=gate,
            web=self.web,
        )
        self.processes.append(process)
        # What its predecessor was waiting for (a guest's patience) may begin anew, without a word in any status.
        self._changed_at = self.loop.time()
        Context().run(process.start)
        return process

    def start_first(self) -> ControllerProcess:
        """Begin the controller in whose doors the gate stands."""
        return self.start_controller(gate=self.gate)

    def end(self) -> None:
        """End every controller; what they have left behind stays to be looked at."""
        for process in self.processes:
            if not process.scope.dead:
                process.kill()

    def restart_in(self, seconds: float) -> None:
        """Have another controller begin after that time."""
        self._later(seconds, self._begin)

    def _begin(self) -> None:
        self.start_controller()

    def _delay_next(self, machine: str, method: str, seconds: float) -> None:
        self.world.faults.add(Rule(Delay(seconds), machine=machine, method=method, nth=1))

    # Users

    def apply(self, *objects: Object) -> None:
        """Create objects. What the server refuses is an error of the simulation."""
        for obj in objects:
            key = Key.of(obj)
            resource = _RESOURCES[key.kind]
            self._send(Request("POST", resource.path(key.namespace or None), body=obj))
            self.intent[key] = obj.get("spec", {})

    def edit(self, kind: str, name: str, spec: Object, namespace: str = "default") -> None:
        """Merge patch of the spec."""
        resource = _RESOURCES[kind]
        path = resource.path(namespace if resource.namespaced else None, name)
        answer = self._send(Request("PATCH", path, body={"spec": spec}, content_type="application/merge-patch+json"))
        self.intent[Key(kind, namespace if resource.namespaced else "", name)] = answer["spec"]

    def lock_tray(self, vm: str, drive: str) -> None:
        """Have the guest of a running VM use the medium in a drive."""
        name = names.domain_name("default", vm)
        for machine in self.world.machines.values():
            for process in machine.processes():
                if process.name == name:
                    machine.lock_tray(process.uuid, f"ua-disk-{drive}")

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Have a user do something later."""
        self._later(seconds, act)

    def delete(self, kind: str, name: str, namespace: str = "default", propagation: str | None = None) -> None:
        """Ask for deletion; what the object owns goes with it."""
        resource = _RESOURCES[kind]
        where = namespace if resource.namespaced else ""
        options = {"propagationPolicy": propagation} if propagation else {}
        self._send(Request("DELETE", resource.path(where or None, name), body=options))
        self.intent.pop(Key(kind, where, name), None)

    def _send(self, request: Request) -> Object:
        status, answer = self.server.handle(request, "user")
        if not 200 <= status <= 299:
            raise RuntimeError(f"{request.method} {request.path}: {status} {answer}")
        return answer

    def hold(self, kind: str, name: str, finalizer: str, namespace: str = "default") -> None:
        """Have somebody else's finalizer on an object."""
        key = Key(kind, namespace, name)
        self._finalizers(key, lambda held: [*held, finalizer])
        self.holds[key] = finalizer

    def release(self, kind: str, name: str, namespace: str = "default") -> None:
        """Have that one taken off again, by who put it there."""
        key = Key(kind, namespace, name)
        finalizer = self.holds.pop(key)
        self._finalizers(key, lambda held: [each for each in held if each != finalizer])

    def _finalizers(self, key: Key, change: Callable[[list[str]], list[str]]) -> None:
        found = self.server.get(key.kind, key.name, key.namespace)
        assert found is not None, f"{key} is not there"
        path = _RESOURCES[key.kind].path(key.namespace or None, key.name)
        body = {"metadata": {"finalizers": change(list(found["metadata"].get("finalizers") or ()))}}
        self._send(Request("PATCH", path, body=body, content_type="application/merge-patch+json"))

    async def infrastructure(self) -> None:
        """Declare it, and wait until all of it is ready."""
        self.apply(manifests.namespace("default"), manifests.namespace("hostler-system"))
        self.apply(*manifests.infrastructure(HOSTS))
        self.start_first()
        await self.settled(quiet=3.0)

    # Time

    async def settled(self, quiet: float = 60.0, patience: float = 1800.0) -> None:
        """Wait until no object has changed for `quiet` seconds. Raises NotSettled after `patience`."""
        begun = self.loop.time()
        until = begun + patience
        while True:
            left = max(self.last_change(), begun) + quiet - self.loop.time()
            if left <= 0:
                return
            if self.loop.time() > until:
                raise NotSettled(f"objects still change after {patience:.0f} s")
            await asyncio.sleep(max(left, 0.1))

    def last_change(self) -> float:
        """When an object was changed or a controller begun last; Events do not count. Now, while no controller runs."""
        if not self.processes or all(p.scope.dead or p.runtime is None for p in self.processes):
            return self.loop.time()
        return self._changed_at

    _changed_at = 0.0

    def _seen(self, change: Change) -> None:
        if change.resource.kind == "Event":
            return
        self._changed_at = self.loop.time()
        volume = (change.obj.get("status") or {}).get("volume") or {}
        key = Key.of(change.obj)
        self._watch_over(key, change)
        if change.type == "DELETED":
            self.volumes.pop(key, None)
        elif change.resource.kind == "Disk" and volume.get("provisionedAt") and key not in self.volumes:
            self._remember(key, self.file_of(change.obj))
        elif change.resource.kind == "VirtualMachine" and key not in self.volumes:
            files = (file["name"] for file in (change.obj.get("status") or {}).get("files") or ())
            self._remember(key, next((self.shared.files.get(n) for n in files if n.endswith(".nvram.fd")), None))

    def _remember(self, key: Key, file: File | None) -> None:
        if file is not None:
            self.volumes[key] = file

    def _watch_over(self, key: Key, change: Change) -> None:
        """What no write may do: take others' finalizers, or put a status back to what an older spec made of it."""
        meta, status = change.obj["metadata"], change.obj.get("status") or {}
        held = self.holds.get(key)
        if held is not None and held not in (meta.get("finalizers") or ()):
            self.broken.append(f"{key}: the finalizer {held} was taken by another than who put it there")
            del self.holds[key]
        observed = status.get("observedGeneration", -1)
        # A generation that the object does not have any more was lost with a store that was set back.
        if observed < self._observed.get(meta["uid"], -1) <= meta["generation"]:
            self.broken.append(f"{key}: its status went back to generation {observed}")
        self._observed[meta["uid"]] = observed

    # The truth

    def digest(self) -> str:
        """Of everything that happened and of what there is now: objects, who wrote them and when, hosts and files."""
        files = [(store.name, sorted(store.files)) for store in self.world.stores.values()]
        what = (self.loop.time(), self.server.stored(), self.server.writes, list(self.world.log), files)
        return hashlib.sha256(repr(what).encode()).hexdigest()[:16]

    def file_of(self, disk: Object) -> File | None:
        """The file that a Disk's status names."""
        volume: dict[str, Any] = (disk.get("status") or {}).get("volume") or {}
        store = self.shared if disk["spec"]["storageDomain"] == "shared" else None
        if store is None and volume.get("host") in self.world.machines:
            store = self.world.stores[f"{volume['host']}-local"]
        return None if store is None else store.files.get(volume.get("name", ""))
