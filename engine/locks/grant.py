"""What an operation has got: locks, each with its token, until they are released or the process is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Self

from engine.locks.errors import CallTooLong, GrantOver, NotCovered
from engine.locks.record import Lockable, Mode, Wanted
from engine.locks.session import Session

if TYPE_CHECKING:
    from engine.locks.manager import Locks
    from engine.locks.store import Stored


class Scope(StrEnum):
    """How long locks are held."""

    NONE = "None"
    """None are taken."""
    EXECUTION = "Execution"
    """Until the `async with` of the grant ends, however it ends."""
    COMMAND = "Command"
    """Until `release` or `leave`: the work goes on after the `async with`, and children work under the grant."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants what, and why.

    `operation`: name of the work, for ever the same ("namespace/name" of its object); it has each lock at most once,
    and takes over what it held under a process that is dead. `doing`: in words, for whom it stands in the way of
    ("takes a snapshot of web"). `priority`: the highest comes first. `since`: the age by which it waits among equals
    (creation of the operation); None: now.
    """

    operation: str
    doing: str
    exclusive: Sequence[Lockable] = ()
    shared: Sequence[Lockable] = ()
    priority: int = 0
    since: datetime | None = None

    def wanted(self) -> tuple[Wanted, ...]:
        """All of it, in the one order. ValueError when something is wanted twice."""
        modes = [(lockable, Mode.EXCLUSIVE) for lockable in self.exclusive]
        modes += [(lockable, Mode.SHARED) for lockable in self.shared]
        if len({lockable.lease_name for lockable, _ in modes}) < len(modes):
            raise ValueError(f"{self.operation} wants the same lock twice")
        return tuple(sorted(modes, key=lambda wanted: wanted[0].place))


class Grant:
    """Use nothing of it without `check`; stamp what you write with `token`."""

    def __init__(
        self,
        locks: Locks | None,
        session: Session,
        claim: Claim,
        stored: dict[Lockable, Stored],
        *,
        id_: str = "",
        scope: Scope = Scope.EXECUTION,
        parent: Grant | None = None,
        taken_over: bool = False,
    ) -> None:
        """Made by `Locks.acquire` only. `locks`: who releases it; None: nothing is to be released."""
        self.claim = claim
        self.scope = scope
        self.taken_over = taken_over
        """Whether a process that is dead worked under it before: look at what is there before anything is done."""
        self._locks = locks
        self._session = session
        self._parent = parent
        self._stored = stored
        self._id = id_
        self._modes = dict(claim.wanted())
        self._over = False

    def token(self, lockable: Lockable) -> int:
        """The number of this grant among all grants of that lock; it rises with each. KeyError for another lock."""
        if self._parent is not None:
            return self._parent.token(lockable)
        held = self._stored[lockable].record.holds(self._id)
        assert held is not None, "a grant is made of records that name it"
        return held.token

    def time_left(self) -> float:
        """Seconds that a call sent now may last: before that nobody else is given the locks. 0 once all is lost."""
        remaining = self._session.remaining()
        return remaining + self._session.timing.longest_call if remaining > 0 else 0.0

    def check(self, seconds: float = 0.0) -> None:
        """Right before each call, with the deadline of that call; nothing is awaited between this and the sending.

        SessionLost: end the work and touch nothing more, it is another's now. CallTooLong. GrantOver.
        """
        if self.over:
            raise GrantOver(f"{self.claim.operation} works on after its locks were released")
        self._session.check()
        left = self.time_left()
        if seconds > left:
            raise CallTooLong(
                f"a call of {seconds:g} s could outlast the locks of {self.claim.operation} ({left:.1f} s)"
            )

    @property
    def over(self) -> bool:
        """Whether it, or its parent, was released."""
        return self._over or (self._parent is not None and self._parent.over)

    def child(self, claim: Claim, *, scope: Scope = Scope.EXECUTION) -> Grant:
        """The same locks for a child's work; releasing that releases nothing. NotCovered, GrantOver, SessionLost."""
        self.check()
        for lockable, mode in claim.wanted():
            held = self._modes.get(lockable)
            if held is None or (held is Mode.SHARED and mode is Mode.EXCLUSIVE):
                raise NotCovered(
                    f"{claim.operation} wants {lockable} ({mode}), which {self.claim.operation} has not got"
                )
        return Grant(None, self._session, claim, {}, scope=scope, parent=self, taken_over=self.taken_over)

    async def release(self) -> None:
        """The work has ended: the locks are free. May be called again. What cannot be written now is later.

        After the session was lost it changes nothing: whoever takes over has to look at the work first.
        """
        await self._end(leave=False)

    async def leave(self) -> None:
        """The work has not ended, but this process ends it in good order, with no call under way.

        The locks stay held by the operation, which may take them over at once, in any process.
        """
        await self._end(leave=True)

    async def _end(self, *, leave: bool) -> None:
        if self._over:
            return
        self._over = True
        if self._locks is not None:
            await self._locks.give_up(self._id, self._stored, leave=leave)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.scope is not Scope.COMMAND:
            await self.release()


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Work that a dead process left: `operation` as its claim named it, `doing` and `process` in words."""

    operation: str
    doing: str
    process: str


Recover = Callable[[Abandoned, Grant], Awaitable[None]]
"""Replays or rolls back what an abandoned operation has begun, under a grant over everything that it still held.

Returns when nothing of it is left to do (its locks become free then), and raises when that cannot be said (they stay
held, and the next one whom they stand in the way of tries again). It may be called again for the same operation, and
acquires no locks itself.
"""
