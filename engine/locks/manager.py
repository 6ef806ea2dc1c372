"""Locks of one process: taken as a set or not at all, waited for in turn, given back whatever happens."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass

from engine import errors, metrics
from engine.clock import BootClock, Clock
from engine.keys import Key
from engine.kube import LEASES, KubeClient
from engine.locks.attempt import Attempt
from engine.locks.errors import LockError, SessionLost
from engine.locks.grant import Claim, Grant, Recover, Scope
from engine.locks.record import Entry, Lockable, Record
from engine.locks.session import Session
from engine.locks.store import LockStore, Stored
from engine.locks.witness import Witness

_AGAIN = (0.5, 1.0)
_LONGEST_AGAIN = 10.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Remnant:
    """Something of ours in a lock that has still to go. `settle`: a write of ours may still be under way there."""

    lockable: Lockable
    id: str
    leave: bool
    settle: bool


class Locks:
    """All locks of a process; everything runs in one event loop."""

    def __init__(
        self,
        client: KubeClient,
        session: Session,
        *,
        namespace: str,
        recover: Recover,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        patience: float = 5.0,
    ) -> None:
        """`namespace`: the operator's own. `patience`: seconds that one change of one Lease may take."""
        self.session = session
        self.recover = recover
        self.clock = clock if clock is not None else BootClock()
        self.rng = rng if rng is not None else random.Random()  # noqa: S311 - spreads load, guards nothing
        self.store = LockStore(client, namespace, self.clock, self.rng, patience)
        self.witness = Witness(client, namespace, self.clock)
        self._client = client
        self._namespace = namespace
        self._waiting: dict[str, dict[str, tuple[Entry, asyncio.Event]]] = {}
        self._remnants: list[_Remnant] = []
        self._cleaner: asyncio.Task[None] | None = None

    async def acquire(
        self, claim: Claim, *, scope: Scope = Scope.EXECUTION, parent: Grant | None = None, wait: float = 0.0
    ) -> Grant:
        """All locks of the claim, or none.

        `parent`: work under its grant instead of taking any. `wait`: seconds in which others may release what stands in
        the way; 0: one try. Taking over what a dead process left may come on top.

        Held when somebody else has one of them, or comes first. SessionLost. An ApiError when the API server does not
        answer, or is asked by too many at once. Whatever was taken by then is given back, also when it is cancelled.
        """
        if parent is not None:
            return parent.child(claim, scope=scope)
        if scope is Scope.NONE:
            return Grant(None, self.session, Claim(claim.operation, claim.doing), {}, scope=scope)
        began = self.clock.monotonic()
        try:
            grant = await Attempt(self, claim, wait=wait).run(scope)
        except LockError as error:
            metrics.lock_refusals.labels(type(error).__name__).inc()
            raise
        metrics.lock_wait_seconds.observe(self.clock.monotonic() - began)
        return grant

    async def forget(self, lockable: Lockable) -> None:
        """The object is gone for good: so goes its Lease, unless somebody holds it or waits. Else an ApiError."""
        stored = await self.store.read(lockable)
        if stored.lease is None or stored.record.holders or stored.record.waiters:
            return
        metadata = stored.lease["metadata"]
        key = Key(LEASES.kind, self._namespace, lockable.lease_name)
        try:
            await self._client.delete(LEASES, key, uid=metadata["uid"], resource_version=metadata["resourceVersion"])
        except (errors.NotFound, errors.Conflict):
            _log.debug("%s is in use again, or was forgotten by another", lockable)

    async def close(self, seconds: float = 5.0) -> None:
        """Before the session is closed: waits that long for what could not be given back so far."""
        if self._cleaner is not None:
            await asyncio.wait((self._cleaner,), timeout=seconds)
            self._cleaner.cancel()

    # For the parts of this package

    async def give_up(self, id_: str, held: Mapping[Lockable, Stored], *, leave: bool) -> None:
        """Gives a grant back, or leaves it to its operation; what cannot be written now is written later."""
        metrics.locks_held.dec(len(held))
        if self.session.lost:
            return
        pending = [_Remnant(lockable, id_, leave, settle=False) for lockable in held]
        try:
            done = await asyncio.gather(*(self._clear(r, held[r.lockable]) for r in pending))
        except asyncio.CancelledError:
            self._later([_Remnant(r.lockable, id_, leave, settle=True) for r in pending])
            raise
        self._later([r for r, cleared in zip(pending, done, strict=True) if not cleared])

    def clear_later(self, lockables: Mapping[Lockable, bool], id_: str, *, leave: bool) -> None:
        """Removes everything of that claim from those locks; True: a write of it may still be under way.

        `leave`: what it holds already is left to its operation.
        """
        self._later([_Remnant(lockable, id_, leave, settle) for lockable, settle in lockables.items()])

    def changed(self, lockable: Lockable, record: Record) -> None:
        """Something was taken out of that lock: those of us whose turn it is look again."""
        for entry, event in self._waiting.get(lockable.lease_name, {}).values():
            if not record.blockers(entry):
                event.set()

    async def turn(self, lockable: Lockable, entry: Entry, seconds: float) -> None:
        """Waits until something of our own has made room for the entry, at most that long."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(lockable.lease_name, {})
        waiting[entry.id] = entry, event
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            del waiting[entry.id]
            if not waiting and self._waiting.get(lockable.lease_name) is waiting:
                del self._waiting[lockable.lease_name]

    def _later(self, remnants: list[_Remnant]) -> None:
        self._remnants += remnants
        if self._remnants and (self._cleaner is None or self._cleaner.done()):
            self._cleaner = asyncio.get_running_loop().create_task(self._clean())

    async def _clean(self) -> None:
        """Until nothing is left that has to go, or the session is lost: then others find it, and look at the work."""
        pause = 0.0
        while self._remnants:
            await asyncio.sleep(pause)
            if self.session.lost:
                self._remnants.clear()
                return
            for remnant in list(self._remnants):
                if await self._clear(remnant, None):
                    self._remnants.remove(remnant)
            pause = min(max(pause * 2, self.rng.uniform(*_AGAIN)), _LONGEST_AGAIN)

    async def _clear(self, remnant: _Remnant, known: Stored | None) -> bool:
        def transition(record: Record) -> Record:
            if self.session.lost:
                raise SessionLost("what is left belongs to whoever takes it over")
            return record.left(remnant.id) if remnant.leave else record.without(remnant.id)

        try:
            stored = await self.store.change(remnant.lockable, transition, known=known, settle=remnant.settle)
        except SessionLost:
            return True
        except (errors.ApiError, LockError) as error:
            _log.warning("given back later: %s: %s", remnant.lockable, error)
            remnant.settle = True
            return False
        self.changed(remnant.lockable, stored.record)
        return True
