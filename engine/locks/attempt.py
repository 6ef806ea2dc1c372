"""One claim on its way to a grant: it tries, clears away what the dead left, queues and waits, or gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from engine import metrics
from engine.clock import micro_timestamp
from engine.locks.errors import Held, RecoveryFailed, SessionLost
from engine.locks.grant import Abandoned, Claim, Grant, Scope
from engine.locks.record import Entry, Lockable, Mode, Record, Wanted
from engine.locks.store import Stored, Transition

if TYPE_CHECKING:
    from engine.locks.manager import Locks

_LOOK_AGAIN = (0.4, 0.8)
_LOOK_AGAIN_LATE = (1.5, 2.5)
_IMPATIENT_LOOKS = 4


class _Blocked(Exception):
    def __init__(self, lockable: Lockable, by: tuple[Entry, ...]) -> None:
        super().__init__(lockable, by)
        self.lockable = lockable
        self.by = by

    def held(self) -> Held:
        return Held(
            tuple(entry.described(self.lockable) for entry in self.by), tuple(entry.operation for entry in self.by)
        )


class Attempt:
    """Used once."""

    def __init__(self, locks: Locks, claim: Claim, *, wait: float = 0.0, lapsed: frozenset[str] = frozenset()) -> None:
        """`lapsed`: ids of holders of this very operation that are known to be dead for long enough."""
        self._locks = locks
        self._claim = claim
        self._until = locks.clock.monotonic() + wait
        self._lapsed = set(lapsed)
        self._id = locks.session.next_claim()
        self._wanted = claim.wanted()
        self._age = micro_timestamp(claim.since if claim.since is not None else locks.clock.now())
        self._stored: dict[Lockable, Stored] = {}
        self._touched: dict[Lockable, bool] = {}
        """Where something of this claim may be; True: a write may still be under way."""
        self._queued = False

    async def run(self, scope: Scope) -> Grant:
        """See Locks.acquire."""
        looks, blocked = 0, None
        try:
            while True:
                self._locks.session.check()
                blocked = await self._still(blocked) or await self._try()
                if blocked is None:
                    self._locks.session.check()
                    return self._grant(scope)
                if await self._made_room(blocked):
                    continue
                left = self._until - self._locks.clock.monotonic()
                if left <= 0:
                    raise blocked.held()
                await self._queue()
                looks += 1
                pause = self._locks.rng.uniform(*(_LOOK_AGAIN if looks <= _IMPATIENT_LOOKS else _LOOK_AGAIN_LATE))
                entry = self._entry(blocked.lockable, waits=True)
                await self._locks.turn(blocked.lockable, entry, min(left, pause))
        except (Exception, asyncio.CancelledError):
            # Nothing is awaited here: it may be a cancellation, or the API server that does not answer.
            self._locks.clear_later(self._touched, self._id, leave=bool(self._lapsed))
            raise

    def _entry(self, lockable: Lockable, *, waits: bool) -> Entry:
        session = self._locks.session
        return Entry(
            id=self._id,
            session=session.identity,
            process=session.process,
            operation=self._claim.operation,
            doing=self._claim.doing,
            mode=next(mode for other, mode in self._wanted if other == lockable),
            since=self._age if waits else micro_timestamp(self._locks.clock.now()),
            grace=session.timing.grace,
            priority=self._claim.priority,
            wanted=() if waits else self._wanted,
        )

    def _grant(self, scope: Scope) -> Grant:
        metrics.locks_held.inc(len(self._wanted))
        return Grant(
            self._locks,
            self._locks.session,
            self._claim,
            {lockable: self._stored[lockable] for lockable, _ in self._wanted},
            id_=self._id,
            scope=scope,
            taken_over=bool(self._lapsed),
        )

    async def _still(self, before: _Blocked | None) -> _Blocked | None:
        """Whether what stood in the way last does so now: one read instead of all, for those who wait."""
        if before is None:
            return None
        try:
            self._admit(before.lockable, (await self._locks.store.read(before.lockable)).record)
        except _Blocked as blocked:
            return blocked
        return None

    async def _try(self) -> _Blocked | None:
        """Takes all, in the one order; or none, and says what stands in the way."""
        lockables = [lockable for lockable, _ in self._wanted]
        self._stored = {lockable: last for lockable in lockables if (last := self._free_when_last_seen(lockable))}
        unknown = [lockable for lockable in lockables if lockable not in self._stored]
        self._stored |= zip(unknown, await self._read(unknown), strict=True)
        taken: list[Lockable] = []
        try:
            for lockable in lockables:
                self._admit(lockable, self._stored[lockable].record)
            for lockable in lockables:
                await self._take(lockable)
                taken.append(lockable)
        except _Blocked as blocked:
            if taken and self._lapsed:
                # What was taken over is work left undone: it stays its operation's, see `clear_later`.
                raise blocked.held() from None
            for lockable in taken:
                await self._change(lockable, partial(self._given_back, lockable))
            return blocked
        return None

    def _free_when_last_seen(self, lockable: Lockable) -> Stored | None:
        last = self._locks.store.last(lockable)
        free = last is not None and not last.record.blockers(self._entry(lockable, waits=True), self._lapsed)
        return last if free else None

    async def _read(self, lockables: Sequence[Lockable]) -> list[Stored]:
        return await asyncio.gather(*(self._locks.store.read(lockable) for lockable in lockables))

    def _admit(self, lockable: Lockable, record: Record) -> Record:
        # Turns are compared by the age of the operation, also when it has not queued yet.
        blockers = record.blockers(self._entry(lockable, waits=True), self._lapsed)
        if blockers:
            raise _Blocked(lockable, blockers)
        return record.granted(self._entry(lockable, waits=False), lockable.floor, self._lapsed)

    def _given_back(self, lockable: Lockable, record: Record) -> Record:
        return self._in_line(lockable, record) if self._queued else record.without(self._id)

    async def _take(self, lockable: Lockable) -> None:
        await self._change(lockable, partial(self._admit, lockable), self._stored[lockable])

    async def _queue(self) -> None:
        if self._queued:
            return
        self._queued = True
        for lockable, _ in self._wanted:
            await self._change(lockable, partial(self._in_line, lockable))

    def _in_line(self, lockable: Lockable, record: Record) -> Record:
        return record.queued(self._entry(lockable, waits=True))

    async def _change(self, lockable: Lockable, transition: Transition, known: Stored | None = None) -> None:
        before = self._touched.get(lockable)
        self._touched[lockable] = True
        try:
            # Where many want the same at once, a write is refused often; that is waiting too.
            left = self._until - self._locks.clock.monotonic()
            stored = await self._locks.store.change(lockable, transition, known=known, patience=left)
            self._stored[lockable] = stored
        except _Blocked:
            # Raised by a record in which a write of ours, had there been one, is settled.
            if before is None:
                del self._touched[lockable]
            else:
                self._touched[lockable] = before
            raise
        self._touched[lockable] = False
        if not stored.record.holds(self._id):
            self._locks.changed(lockable, stored.record)

    # What the dead left

    async def _made_room(self, blocked: _Blocked) -> bool:
        """Whether one of those in the way was dead, and is no longer in the way."""
        room = False
        for entry in blocked.by:
            silent = await self._silent(entry)
            if silent <= 0:
                continue
            if not entry.token:
                await self._remove(blocked.lockable, entry)
                room = True
            elif silent < entry.grace:
                continue
            elif entry.operation == self._claim.operation:
                self._lapsed.add(entry.id)
                metrics.lock_takeovers.labels("resumed").inc()
                room = True
            else:
                room = await self._recover(entry) or room
        return room

    async def _silent(self, entry: Entry) -> float:
        """Seconds since the last sign of life of its dead process; 0 while that may live."""
        if entry.session == self._locks.session.identity:
            return 0.0
        return await self._locks.witness.silent(entry.session)

    async def _remove(self, lockable: Lockable, waiter: Entry) -> None:
        stored = await self._locks.store.change(lockable, lambda record: record.without(waiter.id))
        self._locks.changed(lockable, stored.record)

    async def _recover(self, entry: Entry) -> bool:
        """Has another's work ended, under its locks; False when somebody else is at it. RecoveryFailed."""
        held, lapsed = await self._abandoned(entry)
        if not held:
            return False
        by_mode = {mode: [lockable for lockable, of in held if of is mode] for mode in Mode}
        claim = Claim(entry.operation, entry.doing, by_mode[Mode.EXCLUSIVE], by_mode[Mode.SHARED])
        try:
            grant = await Attempt(self._locks, claim, lapsed=frozenset(lapsed)).run(Scope.COMMAND)
        except Held:
            return False
        try:
            await self._locks.recover(Abandoned(entry.operation, entry.doing, entry.process), grant)
            grant.check()
        except SessionLost:
            raise
        except Exception as error:
            await grant.leave()
            metrics.lock_takeovers.labels("failed").inc()
            what = f"{entry.operation} ({entry.doing}) was left by process {entry.process}, and could not be settled"
            raise RecoveryFailed((f"{what}: {error}",)) from error
        except asyncio.CancelledError:
            await grant.leave()
            raise
        await grant.release()
        metrics.lock_takeovers.labels("settled").inc()
        return True

    async def _abandoned(self, entry: Entry) -> tuple[list[Wanted], set[str]]:
        """What that operation still holds of all that it wanted, and the ids by which it does; nothing if it lives."""
        lockables = [lockable for lockable, _ in entry.wanted]
        held: list[Wanted] = []
        lapsed: set[str] = set()
        for lockable, stored in zip(lockables, await self._read(lockables), strict=True):
            for holder in stored.record.holders:
                if holder.operation != entry.operation:
                    continue
                if await self._silent(holder) < holder.grace:
                    return [], set()
                held.append((lockable, holder.mode))
                lapsed.add(holder.id)
        return held, lapsed
