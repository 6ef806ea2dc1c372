"""All operations of a process: each is looked at under its locks, or waits for them; what has ended goes in time."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from engine import errors, finalizers, logs, metrics
from engine.cache import Cache
from engine.clock import Clock
from engine.keys import Key, Object
from engine.kube import KubeClient
from engine.locks import (
    Abandoned,
    CallTooLong,
    Claim,
    Grant,
    GrantOver,
    Held,
    Lockable,
    NotCovered,
    Scope,
    SessionLost,
)
from engine.locks.record import Mode
from engine.operations import journal as book
from engine.operations import order as orders
from engine.operations import standing
from engine.operations.definition import Operation, W
from engine.operations.journal import Journal, Phase
from engine.operations.keeper import Keeper
from engine.operations.known import Known
from engine.operations.order import FINALIZER, OPERATIONS, LockUse, Order, Ref
from engine.operations.retention import Retention
from engine.operations.runner import Pass
from engine.recorder import Recorder
from engine.result import Done, Failed, FailureKind, RequeueAfter, Result
from engine.status import StatusWriter

FIELDS = frozenset(
    {"phase", "step", "progress", "startedAt", "finishedAt", "steps", "locks", "firstCause", "conditions"}
    | {"observedGeneration"}
)
"""Of the status, and all of them critical: written by compare-and-set only."""

ELSEWHERE_SECONDS = 5.0
"""Between two looks at an operation that another process works on."""
QUIET_SECONDS = 2.0
"""A wait that is over sooner is not written down."""
SAY_AGAIN_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 30.0
HELD_UP_SECONDS = 600.0
"""Of waiting, after which people are told."""

_log = logging.getLogger(__name__)


class StillUnderWay(errors.EngineError):
    """An abandoned operation has not ended; it goes on."""


@dataclass(slots=True)
class Memory:
    """What this process knows of an operation and no other needs to. Times are monotonic."""

    uid: str = ""
    grant: Grant | None = None
    unsure: bool = True
    """Whether the journal may be newer than the cache."""
    not_before: float = 0.0
    calls_until: float = 0.0
    """Every call that was sent without an answer has ended by then."""
    elsewhere_until: float = 0.0
    waits_since: float | None = None
    said_at: float = float("-inf")
    progress_at: float = float("-inf")


class Operations(Generic[W]):
    """Everything runs in one event loop. `world` is what steps act on."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        writer: StatusWriter,
        recorder: Recorder,
        clock: Clock,
        keeper: Keeper,
        wake: Callable[[Key], None],
        types: Iterable[Operation[W]],
        world: W,
        namespace: str,
        rng: random.Random,
        retention: Retention | None = None,
    ) -> None:
        """`writer`: knows FIELDS as critical. `wake`: has an operation looked at. `namespace`: the operator's own."""
        self.client, self.cache, self.writer, self.clock, self.rng = client, cache, writer, clock, rng
        self.world = world
        self.namespace = namespace
        self.types: Mapping[str, Operation[W]] = {one.type: one for one in types}
        self.wake = wake
        self.known = Known(cache, wake)
        self.retention = retention if retention is not None else Retention()
        self._recorder = recorder
        self._keeper = keeper
        self._memories: dict[Key, Memory] = {}
        keeper.recover = self.recover

    async def reconcile(self, key: Key) -> Result:
        """One look at an Operation."""
        obj = self.cache.get(key)
        memory = self._memories.setdefault(key, Memory())
        if obj is None:
            await self._forget(key)
            return Done()
        try:
            order, journal = orders.parse(obj), book.parse(obj)
        except (LookupError, ValueError, TypeError) as error:
            return Failed(FailureKind.WAIT_FOR_USER, f"{key} was not written by Hostler: {error!r}")
        if journal.ended:
            await self._forget(key)
            return await self._ended(order, journal, obj)
        if memory.uid not in ("", order.uid):
            # Somebody took the finalizer off, and another one has the name.
            await self._forget(key)
            memory = self._memories.setdefault(key, Memory())
        memory.uid = order.uid
        definition = self.types.get(order.type)
        if definition is None:
            await self.say_waiting(obj, "UnknownType", f"this version of Hostler knows no {order.type}", held_up=True)
            return Failed(FailureKind.WAIT_FOR_USER, f"no operation {order.type}")
        try:
            with logs.bind(key, order.context.correlation_id):
                granted = await self._granted(order, definition, obj, memory)
                return granted if not isinstance(granted, Grant) else await self._work(key, definition, granted, memory)
        except CallTooLong as error:
            return RequeueAfter(1.0, str(error))
        except GrantOver as error:
            memory.grant = None
            return RequeueAfter(1.0, str(error))
        except SessionLost as error:
            self._lost()
            return RequeueAfter(1.0, str(error))

    async def recover(self, abandoned: Abandoned, grant: Grant) -> None:
        """The hook of the locks: what a dead process has left goes on here, as itself, at once; nothing is left of what
        has ended.

        It raises: that leaves the locks to the operation, whose own pass takes them. No step is tried under this grant,
        for whoever waits for it may be cut off.
        """
        key = Key(orders.KIND, *abandoned.operation.split("/", 1))
        try:
            obj = await self.client.get(OPERATIONS, key.namespace, key.name)
        except errors.NotFound:
            return
        self.cache.upsert(obj)
        journal = book.parse(obj)
        # One that was never planned has done nothing, and may have to wait again for those who come before it.
        if not journal.ended and journal.phase is not Phase.PENDING:
            self.wake(key)
            raise StillUnderWay("it goes on now")

    async def forget(self, lockable: Lockable) -> None:
        """An object that was locked is gone for good: so is its Lease, unless somebody holds it. Else an ApiError."""
        await (await self._keeper.locks()).forget(lockable)

    async def close(self, cut: Collection[Key] = ()) -> None:
        """Before the process ends, with no pass under way: what is unfinished is left to the next one, at once.

        `cut`: whose pass was cut off: a call may still be under way, so its locks are only taken over in time.
        """
        now = self.clock.monotonic()
        open_calls = {*cut, *(key for key, memory in self._memories.items() if memory.calls_until > now)}
        held = {*open_calls, *(above for key in open_calls for above in self.known.above(key))}
        for key, memory in self._memories.items():
            if memory.grant is not None and key not in held:
                await memory.grant.leave()
        self._memories.clear()
        await self._keeper.close()

    async def fetch(self, ref: Ref) -> Object | None:
        """Another operation, from the server; None when it is gone."""
        try:
            found = await self.client.get(OPERATIONS, ref.namespace, ref.name)
        except errors.NotFound:
            return None
        self.cache.upsert(found)
        return found if found["metadata"]["uid"] == ref.uid else None

    # Locks

    async def _granted(self, order: Order, definition: Operation[W], obj: Object, memory: Memory) -> Grant | Result:
        now = self.clock.monotonic()
        if memory.grant is not None and not memory.grant.over:
            return memory.grant
        memory.grant, memory.unsure = None, True
        if order.context.lock is LockUse.INHERIT:
            try:
                return self._inherited(order, definition, memory)
            except NotCovered as error:
                return await self._refuse(obj, "NotCovered", str(error))
        if memory.elsewhere_until > now:
            return RequeueAfter(memory.elsewhere_until - now, "another process works on it")
        if order.context.lock is LockUse.OWN and (first := self.known.ahead(order.key)) is not None:
            return await self._queued(order, definition, obj, memory, *first)
        locks = await self._keeper.locks()
        try:
            memory.grant = await locks.acquire(_claim(order, definition), scope=Scope.COMMAND)
        except Held as held:
            if order.name in held.operations:
                memory.elsewhere_until = now + ELSEWHERE_SECONDS
                return RequeueAfter(ELSEWHERE_SECONDS, "another process works on it")
            # Who has ended lets go in a moment.
            soon = all(self.known.has_ended(name) for name in held.operations)
            pause = self.rng.uniform(0.5, 1.0) if soon else ELSEWHERE_SECONDS
            return await self._waiting(order, definition, obj, memory, str(held), pause)
        memory.waits_since = None
        return memory.grant

    def _inherited(self, order: Order, definition: Operation[W], memory: Memory) -> Grant | Result:
        """Under the parent's grant, in the process that has it."""
        parent = self._memories.get(order.parent.key) if order.parent is not None else None
        if parent is None or parent.grant is None or parent.grant.over:
            return RequeueAfter(ELSEWHERE_SECONDS, "its parent is worked on elsewhere, or not yet")
        memory.grant = parent.grant.child(_claim(order, definition), scope=Scope.COMMAND)
        return memory.grant

    async def _queued(
        self, order: Order, definition: Operation[W], obj: Object, memory: Memory, lock: str, other: Key, works: bool
    ) -> Result:
        if other in self.known.awaited_by(order.key):
            # It would wait for what waits for it.
            message = f"it wants what its parent {other.name} holds: let it inherit the locks"
            return await self._refuse(obj, "NotCovered", message)
        of = next(lockable for lockable, _ in order.wanted if lockable.lease_name == lock)
        how = "is held by" if works else "is wanted earlier by"
        said = f"{of} {how} {other.namespace}/{other.name}"
        return await self._waiting(order, definition, obj, memory, said, LOOK_AGAIN_SECONDS)

    def _waited(self, memory: Memory) -> float:
        now = self.clock.monotonic()
        if memory.waits_since is None:
            memory.waits_since = now
        return now - memory.waits_since

    async def _waiting(
        self, order: Order, definition: Operation[W], obj: Object, memory: Memory, why: str, pause: float
    ) -> Result:
        waited = self._waited(memory)
        if book.parse(obj).phase is not Phase.PENDING:
            return RequeueAfter(pause, why)  # its locks are its own; who is in the way is about to be taken over
        if definition.wait_seconds is not None and waited >= definition.wait_seconds:
            said = f"in {definition.wait_seconds:g} s it did not get its locks: {why}"
            return await self._refuse(obj, "WaitedTooLong", said)
        if order.cancelled and not order.rollback:
            return await self._refuse(obj, "Cancelled", "it was cancelled before it began", cancelled=True)
        if waited < QUIET_SECONDS:
            return RequeueAfter(min(pause, QUIET_SECONDS), why)
        await self.say_waiting(obj, "Waiting", why, held_up=waited >= HELD_UP_SECONDS)
        return RequeueAfter(pause, why)

    # Work

    async def _work(self, key: Key, definition: Operation[W], grant: Grant, memory: Memory) -> Result:
        obj = self.cache.get(key)
        if memory.unsure:
            # An answer that was lost, or another process before this one: only the server knows.
            try:
                self.cache.upsert(await self.client.get(OPERATIONS, key.namespace, key.name))
            except errors.NotFound:
                self.cache.delete(key, memory.uid)
                await self._forget(key)
                return Done()
            obj = self.cache.get(key)
        if obj is None:
            return RequeueAfter(1.0, "it is gone, or made anew")
        memory.unsure = True
        work = Pass(self, definition, obj, grant, memory)
        result = await work.run()
        memory.unsure = False
        if not work.journal.ended:
            return result
        await self._forget(key)
        return await self._ended(work.order, work.journal, work.obj)

    async def _forget(self, key: Key) -> None:
        """Nothing is to be done for it any more: what it holds becomes free."""
        memory = self._memories.pop(key, None)
        if memory is None or memory.grant is None:
            return
        grant = memory.grant
        await grant.release()
        self.known.freed(lockable.lease_name for lockable, _ in grant.claim.wanted())
        own = [lockable for lockable, _ in grant.claim.wanted() if lockable.kind == orders.KIND]
        for lockable in own:
            try:
                await self.forget(lockable)
            except errors.ApiError as error:
                _log.info("the Lease of %s stays: %s", lockable, error)

    async def _ended(self, order: Order, journal: Journal, obj: Object) -> Result:
        """Its finalizer goes once nobody needs its journal, and it itself when its time has come."""
        if FINALIZER in order.finalizers:
            if self.known.part_of_open(order.key):
                return Done()  # that one's end wakes it
            self.known.wake_children(order.key)
            left = await finalizers.remove(self.client, self.cache, OPERATIONS, obj, FINALIZER)
            if left is None:
                return Done()
            obj = left
        if order.deleting or obj["metadata"].get("ownerReferences"):
            return Done()  # it goes with its parent
        ended = self.known.ended(order.key.namespace, good=journal.phase is Phase.SUCCEEDED)
        surplus = self.retention.surplus(journal.phase, ended)
        due = self.retention.due(journal, self.clock.now())
        if due > 0 and order.key not in surplus:
            for other in surplus:
                self.wake(other)
            return RequeueAfter(due, "it is kept so long")
        try:
            await self.client.delete(OPERATIONS, order.key, uid=order.uid)
        except (errors.NotFound, errors.Conflict):
            _log.debug("%s is gone", order.key)
        return Done()

    def _lost(self) -> None:
        for memory in self._memories.values():
            # Others may have a grant of the next session already: who forgot that one would hold it for ever.
            if memory.grant is not None and memory.grant.time_left() <= 0:
                memory.grant, memory.unsure = None, True
        self._keeper.lost()

    # What people are told

    async def say_waiting(self, obj: Object, reason: str, message: str, *, held_up: bool) -> None:
        """Why it does not begin; at most once a minute, and not what is said already."""
        order, journal = orders.parse(obj), book.parse(obj)
        memory = self._memories.setdefault(order.key, Memory())
        now = self.clock.monotonic()
        said = (obj.get("status") or {}).get("phase") and (journal.reason, journal.held_up) == (reason, held_up)
        if journal.phase is not Phase.PENDING or (
            said and (journal.message == message or now - memory.said_at < SAY_AGAIN_SECONDS)
        ):
            return
        memory.said_at = now
        await self._set(obj, order, book.waiting(journal, reason, message, held_up=held_up))

    async def _refuse(self, obj: Object, reason: str, message: str, *, cancelled: bool = False) -> Result:
        """It ends before it has begun."""
        order, journal, now = orders.parse(obj), book.parse(obj), standing.now_text(self.clock.now())
        ended = book.rolled(journal, message, now) if cancelled else book.refused(journal, reason, message, now)
        after = await self._set(obj, order, ended)
        await self._forget(order.key)
        return await self._ended(order, ended, after)

    async def _set(self, obj: Object, order: Order, journal: Journal) -> Object:
        fields = standing.status(order, journal, obj, self.clock.now())
        after = await self.writer.compare_and_set(OPERATIONS, obj, fields)
        self.news(order, after, book.parse(obj), journal)
        return after

    def news(self, order: Order, obj: Object, before: Journal, after: Journal) -> None:
        """What has just been written: Events and metrics."""
        if after.held_up and not before.held_up:
            conditions = {c["type"]: c for c in obj["status"]["conditions"]}
            ready = conditions["Ready"]
            self._recorder.record(obj, "Warning", ready["reason"], ready["message"] or ready["reason"])
        if after.phase is before.phase:
            return
        match after.phase:
            case Phase.RUNNING:
                self._recorder.record(obj, "Normal", "Started", f"{len(after.steps)} steps")
            case Phase.SUCCEEDED:
                self._recorder.record(obj, "Normal", "Succeeded", f"{order.type} of {order.target}")
            case Phase.ROLLING_BACK | Phase.ROLLED_BACK | Phase.FAILED:
                kind: Any = "Normal" if order.rollback else "Warning"
                self._recorder.record(obj, kind, after.phase.value, after.first_cause or after.message)
            case Phase.PENDING:
                return
        if after.ended:
            seconds = standing.seconds(after)
            metrics.operation_seconds.labels(order.type, after.phase.value).observe(seconds)


def _claim(order: Order, definition: Operation[Any]) -> Claim:
    since = standing.moment(order.since) if order.since else None
    wanted = order.wanted if order.context.lock is not LockUse.NONE else ()
    exclusive = [lockable for lockable, mode in wanted if mode is Mode.EXCLUSIVE]
    shared = [lockable for lockable, mode in wanted if mode is Mode.SHARED]
    if not wanted and order.context.lock is not LockUse.INHERIT:
        exclusive.append(order.itself)
    return Claim(order.name, definition.doing(order), exclusive, shared, order.priority, since)
