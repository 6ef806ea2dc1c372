"""Processes that run operations on toys, in virtual time, with everything that can befall them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime
from typing import Any

from engine import errors, sync
from engine.cache import Cache
from engine.clock import LoopClock
from engine.controller import Controller
from engine.keys import Key, Object
from engine.kube import KubeClient, Resource
from engine.locks import Session
from engine.locks.record import parse as parse_lock
from engine.operations import (
    FIELDS,
    OPERATIONS,
    Alive,
    Batch,
    Keeper,
    Operation,
    Operations,
    Request,
    Retention,
    Target,
)
from engine.operations.requests import create, ordered
from engine.queue import KeyedQueue
from engine.recorder import Recorder
from engine.status import StatusWriter
from engine.transport import Transport
from simulator import loop as virtual
from simulator.apiserver import ApiServer
from simulator.channel import ApiChannel, Faults, WatchStream
from simulator.doors import Gate, OpenGate
from simulator.locking import DriftingClock
from simulator.loop import Scope
from simulator.messages import Change
from simulator.messages import Request as Http
from simulator.toys import TYPES, Hands, Toys

NAMESPACE = "hostler-system"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = ("Succeeded", "RolledBack", "Failed")


class Process:
    """One process: a controller of operations and nothing else."""

    def __init__(self, world: OperationWorld, name: str, gate: Gate | None = None, workers: int = 16) -> None:
        """`gate` stands in its doors."""
        self.name, self.world = name, world
        self.rng = random.Random(world.rng.random())
        self.scope = Scope(name)
        self.faults = Faults()
        gate = gate if gate is not None else OpenGate()
        channel = ApiChannel(world.server, self.faults, self.scope, gate, self.rng)
        self.client = KubeClient(Transport(channel, timeout=5.0))
        self.clock = LoopClock(world.epoch())
        self.cache = Cache()
        self.queue = KeyedQueue(self.clock, rng=self.rng)
        self.scopes: tuple[tuple[Resource, str | None], ...] = ((OPERATIONS, None),)
        self._sessions = 0
        self._locks_clock = DriftingClock(self.rng)
        keeper = Keeper(self._begin, self.client, namespace=NAMESPACE, clock=self._locks_clock, rng=self.rng)
        self.recorder = Recorder(self.client, component="hostler.dev/operator", instance=name, clock=self.clock)
        self.operations: Operations[Any] = Operations(
            client=self.client,
            cache=self.cache,
            writer=StatusWriter(self.client, self.cache, manager="hostler", critical={OPERATIONS.kind: FIELDS}),
            recorder=self.recorder,
            clock=self.clock,
            keeper=keeper,
            wake=self.queue.add,
            types=(*world.types, Batch()),
            world=world.hands if world.hands is not None else Hands(world.toys, self.scope, gate, self.rng),
            namespace=NAMESPACE,
            rng=self.rng,
            retention=world.retention,
        )
        self.controller = Controller(
            queue=self.queue,
            cache=self.cache,
            reconcilers={OPERATIONS.kind: self.operations.reconcile},
            clock=self.clock,
            workers=workers,
            rng=self.rng,
        )
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin, as the operator begins."""
        Context().run(self._start)

    def _start(self) -> None:
        self._task = self.scope.run(self._main())

    async def stop(self) -> None:
        """An orderly end."""
        await self.scope.run(self._stop())

    def kill(self) -> None:
        """SIGKILL."""
        _loop().kill(self.scope)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        _loop().freeze(self.scope)
        _loop().call_later(seconds, self._thaw)

    def event(self, type_: str | None, obj: Object) -> None:
        """What the watch says."""
        if type_ == "DELETED":
            self.cache.delete(Key.of(obj), obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])
        else:
            self.cache.upsert(obj)

    def _thaw(self) -> None:
        if not self.scope.dead:
            _loop().thaw(self.scope)

    async def _main(self) -> None:
        try:
            await self._load()
            watch = WatchStream(self.world.server, self, self.scope, self.faults, self.rng)
            Context().run(watch.start)
            await self.controller.run()
        except Exception as error:
            self.failure = error
            raise

    async def _load(self) -> None:
        while True:
            try:
                await sync.load(self.client, self.cache, OPERATIONS)
            except errors.ApiError:
                await asyncio.sleep(1.0)
                continue
            return

    async def _stop(self) -> None:
        await self.controller.stop(5.0)
        await self.operations.close()
        self.kill()

    async def _begin(self) -> Alive:
        self._sessions += 1
        session = Session(f"{self.name}.{self._sessions}", NAMESPACE, process=self.name, clock=self._locks_clock)
        await session.open(self.client)
        kept = asyncio.get_running_loop().create_task(session.keep(self.client))

        async def stop() -> None:
            kept.cancel()
            await session.close(self.client)

        return Alive(session, stop)


class OperationWorld:
    """An API server, toys, and processes that come and go; everything that was written is watched over."""

    def __init__(
        self,
        seed: int,
        retention: Retention | None = None,
        types: tuple[Operation[Any], ...] = TYPES,
        hands: Any = None,
    ) -> None:
        """All chance comes from the seed. `types`, `hands`: operations on another world than toys."""
        self.types, self.hands = types, hands
        self.rng = random.Random(seed)
        self.server = ApiServer(LoopClock(EPOCH), _loop().call_later, random.Random(self.rng.random()))
        self.toys = Toys(lambda namespace, name: self.server.get("Operation", name, namespace))
        self.processes: list[Process] = []
        self.violations: list[str] = []
        self.retention = retention if retention is not None else Retention(1e6, 1e6, 10_000, 10_000)
        self._causes: dict[str, str] = {}
        self._ends: dict[str, str] = {}
        self._past_pivot: set[str] = set()
        self._phases: dict[str, str] = {}
        """By name, of those in `default`."""
        self.order: list[str] = []
        """Names of operations in the order in which they began."""
        self.server.subscribe(self._seen)
        self.server.handle(Http("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}}))
        self._asker = Process(self, "asker")

    def epoch(self) -> datetime:
        """The wall clock now."""
        return datetime.fromtimestamp(EPOCH.timestamp() + _loop().time(), UTC)

    def process(self, gate: Gate | None = None, **settings: Any) -> Process:
        """Begin one more."""
        process = Process(self, f"process-{len(self.processes) + 1}", gate, **settings)
        self.processes.append(process)
        process.start()
        return process

    async def ask(self, request: Request) -> str:
        """Have an operation made, as a reconciler of some process would; its name."""
        obj = await self._asker.scope.run(self._ask(request))
        return str(obj["metadata"]["name"])

    async def _ask(self, request: Request) -> Object:
        return await create(self._asker.operations, ordered(self._asker.operations, request))

    @property
    def asker(self) -> Process:
        """A process that works on nothing."""
        return self._asker

    def get(self, name: str) -> Object:
        """The stored operation. KeyError when there is none."""
        found = self.server.get("Operation", name, "default")
        if found is None:
            raise KeyError(name)
        return found

    def phase(self, name: str) -> str:
        """Where it stands; "" before anybody has looked at it, "Gone" once it is deleted."""
        return self._phases.get(name, "Gone")

    def delete(self, name: str) -> None:
        """A user deletes it."""
        self.server.handle(Http("DELETE", OPERATIONS.path("default", name), body={}))

    def annotate(self, name: str, annotation: str, value: str | None) -> None:
        """An administrator sets an annotation, or takes it off."""
        body = {"metadata": {"annotations": {annotation: value}}}
        path = OPERATIONS.path("default", name)
        self.server.handle(Http("PATCH", path, body=body, content_type="application/merge-patch+json"))

    def end_namespace(self, name: str) -> None:
        """A namespace is deleted: nothing can be made in it any more, and everything in it is deleted."""
        path = f"/api/v1/namespaces/{name}"
        self.server.handle(Http("POST", "/api/v1/namespaces", body={"metadata": {"name": name}}))
        self.server.handle(Http("DELETE", path, body={}))

    async def ended(self, *names: str, patience: float = 600.0) -> None:
        """Until all of these have; AssertionError after `patience` virtual seconds."""
        await self.until(lambda: all(self.phase(name) in (*ENDED, "Gone") for name in names), patience)

    async def until(self, holds: Callable[[], bool], patience: float = 600.0) -> None:
        """Until that holds."""
        end = _loop().time() + patience
        while not holds():
            if _loop().time() > end:
                raise AssertionError(f"not in {patience:g} s: {[self.told(o) for o in self.server.all('Operation')]}")
            await asyncio.sleep(0.25)

    @staticmethod
    def told(obj: Object) -> str:
        """An operation in a line."""
        status = obj.get("status") or {}
        return f"{obj['metadata']['name']}: {status.get('phase')} {status.get('step')} {status.get('firstCause')}"

    def writes(self, name: str) -> int:
        """Writes of that operation's object that the server took."""
        return sum(w.key.name == name and w.key.kind == "Operation" and w.code < 300 for w in self.server.writes)

    def holders(self) -> list[str]:
        """Who holds which lock."""
        leases = [lease for lease in self.server.all("Lease") if lease["metadata"]["name"].startswith("lock.")]
        return [
            f"{lease['metadata']['name']}: {holder.operation}"
            for lease in leases
            for holder in parse_lock(lease).holders
        ]

    def judge(self) -> list[str]:
        """What is wrong with what came of it, in words; empty is good."""
        found = [*self.violations, *self.toys.violations]
        if "others/cup" not in self.toys.things:
            found.append("somebody else's thing is gone")
        operations = self.server.all("Operation")
        for obj in operations:
            found += self._judged(obj, operations)
            found += self._children_of(obj, operations)
        known = {obj["metadata"]["uid"] for obj in operations} | {"others"}
        known |= {uid for uid, phase in self._ends.items() if phase == "Succeeded"}
        found += [
            f"{name}: nobody knows who made it" for name, thing in self.toys.things.items() if thing.maker not in known
        ]
        found += [f"{p.name}: {p.failure!r}" for p in self.processes if p.failure is not None and not p.scope.dead]
        return found

    def _judged(self, obj: Object, operations: list[Object]) -> list[str]:
        uid, name, status = obj["metadata"]["uid"], obj["metadata"]["name"], obj.get("status") or {}
        phase = status.get("phase")
        if phase not in ENDED:
            return [f"{self.told(obj)}: not ended"]
        if obj["spec"]["executionReason"] == "Rollback":
            return [] if phase == "RolledBack" else [f"{name}: a rollback ended {phase}"]
        made = {thing for thing, by in self.toys.things.items() if by.maker == uid}
        wanted = {f"{uid}/{step['name']}" for step in status.get("steps") or () if step["does"] in ("Make", "Last")}
        taken_back = any(o["spec"].get("undoes", {}).get("uid") == uid for o in operations)
        if phase == "Succeeded" and not taken_back:
            return [] if made >= wanted else [f"{name}: succeeded without {wanted - made}"]
        return [f"{name}: ended {phase} with {made}"] if made else []

    def _children_of(self, obj: Object, operations: list[Object]) -> list[str]:
        """Parts of what was rolled back that are still there."""
        if (obj.get("status") or {}).get("phase") != "RolledBack":
            return []
        parts = [
            child
            for child in operations
            if child["spec"].get("parent", {}).get("uid") == obj["metadata"]["uid"]
            and child["spec"]["context"]["compensation"] == "Inherit"
            and (child.get("status") or {}).get("phase") == "Succeeded"
        ]
        undone = {other["spec"].get("undoes", {}).get("uid") for other in operations}
        return [f"{self.told(obj)}: {self.told(c)}" for c in parts if c["metadata"]["uid"] not in undone]

    def _seen(self, change: Change) -> None:
        if change.resource.kind != "Operation":
            return
        uid, name = change.obj["metadata"]["uid"], change.obj["metadata"]["name"]
        status = change.obj.get("status") or {}
        cause, phase = status.get("firstCause"), status.get("phase")
        self._phases[name] = str(phase or "")
        if change.type == "DELETED":
            del self._phases[name]
        first = self._causes.setdefault(uid, cause) if cause else self._causes.get(uid)
        if first is not None and cause != first:
            self.violations.append(f"{name}: its first cause was {first}, and now is {cause}")
        if any(step["pivot"] and step["state"] == "Done" for step in status.get("steps") or ()):
            self._past_pivot.add(uid)
        if uid in self._past_pivot and phase in ("RollingBack", "RolledBack"):
            self.violations.append(f"{name}: went back past its pivot")
        end = self._ends.setdefault(uid, phase) if phase in ENDED else self._ends.get(uid)
        if end is not None and phase != end:
            self.violations.append(f"{name}: it had ended {end}, and now is {phase}")
        if phase in ("Running", "Succeeded") and name not in self.order:
            self.order.append(name)


def target(name: str) -> Target:
    """A toy as a target."""
    return Target("Toy", "default", name, f"uid-{name}")


def _loop() -> virtual.VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, virtual.VirtualLoop)
    return loop
