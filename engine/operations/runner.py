"""One pass over one operation, under its locks: as many steps as there are until something has to be waited for.

What is written comes before what is done: the journal in the API server says that a step is begun before anything is
done for it, and an answer that did not come is no answer: then the journal is read anew before the next move.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Generic

from engine import errors, metrics
from engine.keys import Object
from engine.locks import CallTooLong, Grant, GrantOver, SessionLost
from engine.operations import journal as book
from engine.operations import order as orders
from engine.operations import standing
from engine.operations.decide import Look, Nothing, Plan, TakeBack, Undo, Work, cancelled, decide, may_go_back
from engine.operations.definition import Operation, Run, Step, Subject, W
from engine.operations.journal import Entry, Journal, Phase, State
from engine.operations.order import OPERATIONS, lock_mode
from engine.operations.outcomes import Done, InProgress, NotDone, Observed, Passing, Permanent, Refusal, Unknown
from engine.queue import Priority
from engine.result import Done as Settled
from engine.result import Failed, FailureKind, RequeueAfter, Result

if TYPE_CHECKING:
    from engine.operations.manager import Memory, Operations

UNDO_TRIES = 3
"""Tries of an undo before the others go first."""
_LONGEST_BACKOFF = 60.0
_STEADY = 300.0
_LONGEST_PASS = 60.0
"""Seconds after which no further step is begun in one pass: it must end before the deadline of a reconcile."""
_PROGRESS_POINTS = 10
_PROGRESS_SECONDS = 30.0
_LET_PASS = (SessionLost, GrantOver, CallTooLong)
_UNDER_WAY = "a call that was sent without an answer may still be under way"
_FOR_GOOD = (Permanent, errors.BadRequest, errors.Invalid, errors.Forbidden)

_log = logging.getLogger(__name__)


class Pass(Generic[W]):
    """Used once. `journal` is what was written last."""

    def __init__(
        self, home: Operations[W], definition: Operation[W], obj: Object, grant: Grant, memory: Memory
    ) -> None:
        self.obj = obj
        self.order = orders.parse(obj)
        self.journal = book.relocked(book.parse(obj), _told(grant))
        self._home = home
        self._definition = definition
        self._grant = grant
        self._memory = memory
        self._fresh: int | None = None
        """The step that this pass has begun: nobody can have done anything for it yet."""

    async def run(self) -> Result:
        """Done when it has ended. ApiErrors of the journal, SessionLost, GrantOver and CallTooLong pass."""
        result: Result | None = None
        until = self._home.clock.monotonic() + _LONGEST_PASS
        while result is None:
            if self._home.clock.monotonic() > until:
                return RequeueAfter(0.0, "others come first for a moment", Priority.USER)
            if self.order.paused_by is not None and not self.journal.ended:
                return await self._paused()
            match decide(self.order, self.journal, self._definition.kind_of_work):
                case Nothing():
                    result = Settled()
                case Plan():
                    result = await self._plan()
                case Look(index=index):
                    result = await self._forward(index)
                case TakeBack(cause=cause):
                    await self._write(book.rolled(self.journal, cause, self._now()))
                case Undo(index=index, again=again):
                    result = await self._undo(index, again=again)
        return result

    # Forward

    async def _plan(self) -> Result | None:
        if self.order.rollback:
            await self._plan_rollback()
            return None
        subject = Subject(self._home.world, self.order, self._home)
        entries: tuple[Entry, ...] = ()
        try:
            refusal = await self._definition.check(subject)
            if refusal is None:
                entries = self._definition.entries(await self._definition.plan(subject))
        except _LET_PASS:
            raise
        except _FOR_GOOD as error:
            refusal = Refusal("Refused", str(error))
        except Exception as error:
            _log.warning("not planned yet: %s", error, exc_info=_bug(error))
            return await self._wait("CannotPlan", f"it cannot be planned yet: {error}")
        if refusal is not None:
            await self._write(book.refused(self.journal, refusal.reason, refusal.message, self._now()))
        elif not entries:
            await self._write(replace(self.journal, phase=Phase.SUCCEEDED, finished_at=self._now(), locks=()))
        else:
            await self._write(book.planned(self.journal, entries, self.journal.locks, self._now()))
            self._fresh = 0
        return None

    async def _plan_rollback(self) -> None:
        assert self.order.undoes is not None, "a rollback says of what"
        found = await self._home.fetch(self.order.undoes)
        steps = book.parse(found).steps if found is not None else ()
        begun = [
            replace(s, attempts=None, message=None, finished_at=None) for s in steps if s.state is not State.PENDING
        ]
        cause = f"takes back what {self.order.undoes.name} has done"
        await self._write(book.undoing(self.journal, begun, self.journal.locks, cause, self._now()))

    async def _forward(self, index: int) -> Result | None:
        entry = self.journal.steps[index]
        step = self._definition.step(entry)
        if step is None:
            return await self._unknown_step(entry)
        if self.order.cancelled and not may_go_back(self.journal, self._definition.kind_of_work):
            await self._too_late()
        run = self._run()
        try:
            seen: Observed = NotDone() if self._fresh == index else await step.observe(run)
            if isinstance(seen, NotDone):
                cause = cancelled(self.order, self.journal, self._definition.kind_of_work)
                if cause is not None:
                    await self._write(book.rolled(self.journal, cause, self._now()))
                    return None
                if (under_way := self._calls_under_way()) > 0:
                    return RequeueAfter(under_way, _UNDER_WAY)
                if (early := self._early()) > 0:
                    return RequeueAfter(early, f"step {entry.name} is tried again")
                self._grant.check()
                self._fresh = None
                seen = await step.do(run)
        except _LET_PASS:
            raise
        except asyncio.CancelledError:
            self._note_calls(run, certain=False)
            raise
        except Exception as error:
            return await self._failed(index, step, error, run)
        return await self._seen(index, seen)

    async def _seen(self, index: int, seen: Observed) -> Result | None:
        entry = self.journal.steps[index]
        match seen:
            case Done(result=result):
                await self._done(index, result)
                return None
            case InProgress(percent=percent, again=again):
                await self._progress(index, percent)
                await self._bound(index, f"step {entry.name} takes long")
                return RequeueAfter(again, f"step {entry.name} is under way")
            case Unknown(why=why, again=again):
                await self._bound(index, f"nobody can say what became of step {entry.name}: {why}")
                return RequeueAfter(again, why)
            case NotDone():
                raise AssertionError("a step that was to be done says that it is not: `do` answers Done or InProgress")

    async def _done(self, index: int, result: str) -> None:
        entry = self.journal.steps[index]
        work = self._definition.kind_of_work
        cause = None if entry.pivot else cancelled(self.order, self.journal, work)
        if entry.started_at is not None:
            metrics.operation_step_seconds.labels(self.order.type, entry.does).observe(self._since(entry.started_at))
        follows = self.journal.index(State.PENDING)
        await self._write(book.done(self.journal, index, result, self._now(), cancelled=cause))
        self._fresh = follows if cause is None else None
        self._memory.not_before = 0.0

    async def _failed(self, index: int, step: Step[W], error: Exception, run: Run[W]) -> Result | None:
        entry, work = self.journal.steps[index], self._definition.kind_of_work
        message, for_good = _said(error), isinstance(error, _FOR_GOOD)
        _log.warning("step %s failed: %s", entry.name, message, exc_info=_bug(error))
        self._note_calls(run, certain=_certain(error))
        attempts = (entry.attempts or 0) + 1
        exhausted = attempts >= self._definition.tries and self._age(entry) >= self._definition.patience_seconds
        if work is Work.SAGA and (for_good or exhausted) and may_go_back(self.journal, work):
            if not entry.pivot or await self._surely_not_done(step, run):
                await self._write(book.rolled(self.journal, f"step {entry.name}: {message}", self._now()))
                return None
            for_good = False
        held_up = for_good or attempts >= self._definition.tries
        await self._write(book.failed(self.journal, index, message, held_up=held_up))
        return self._later(_STEADY if for_good else self._backoff(attempts), f"step {entry.name}: {message}")

    async def _surely_not_done(self, step: Step[W], run: Run[W]) -> bool:
        """Of a pivot whose try has failed, and of which a call may still be under way."""
        if self._calls_under_way() > 0:
            return False
        try:
            return isinstance(await step.observe(run), NotDone)
        except _LET_PASS:
            raise
        except Exception as error:
            _log.warning("step %s cannot be looked at: %s", step.name, error, exc_info=_bug(error))
            return False

    # Back

    async def _undo(self, index: int, *, again: bool) -> Result | None:
        entry = self.journal.steps[index]
        step = self._definition.step(entry)
        if step is None:
            return await self._unknown_step(entry)
        if (under_way := self._calls_under_way()) > 0:
            return RequeueAfter(under_way, _UNDER_WAY)
        if (early := self._early()) > 0:
            return RequeueAfter(early, f"step {entry.name} is undone again")
        run = self._run()
        try:
            self._grant.check()
            seen = await step.undo(run)
        except _LET_PASS:
            raise
        except asyncio.CancelledError:
            self._note_calls(run, certain=False)
            raise
        except Exception as error:
            return await self._undo_failed(index, error, run, again=again)
        if seen is not None:
            await self._bound(index, f"step {entry.name} takes long to undo")
            return RequeueAfter(seen.again, f"step {entry.name} is being undone")
        await self._write(book.undone(self.journal, index, self._now()))
        self._memory.not_before = 0.0
        return None

    async def _undo_failed(self, index: int, error: Exception, run: Run[W], *, again: bool) -> Result | None:
        entry = self.journal.steps[index]
        message = _said(error)
        _log.warning("step %s could not be undone: %s", entry.name, message, exc_info=_bug(error))
        self._note_calls(run, certain=_certain(error))
        attempts = (entry.attempts or 0) + 1
        if not again and attempts < UNDO_TRIES:
            await self._write(book.undo_tried(self.journal, index, message))
            return self._later(self._backoff(attempts), f"step {entry.name}: {message}")
        await self._write(book.undo_failed(self.journal, index, message, self._now()))
        if self.journal.index(State.UNDOING) is not None:
            return None
        return self._later(self._backoff(attempts, _STEADY), f"step {entry.name}: {message}")

    # What is written

    async def _write(self, journal: Journal) -> None:
        """The journal, by compare-and-set with the version that it was read with."""
        self._grant.check()
        fields = standing.status(self.order, journal, self.obj, self._home.clock.now())
        self.obj = await self._home.writer.compare_and_set(OPERATIONS, self.obj, fields)
        before, self.journal = self.journal, journal
        if before.index(State.RUNNING) != journal.index(State.RUNNING):
            self._memory.progress_at = self._home.clock.monotonic()
        self.order = orders.parse(self.obj)
        self._home.news(self.order, self.obj, before, journal)

    async def _progress(self, index: int, percent: int | None) -> None:
        shown, now = self.journal.steps[index].progress or 0, self._home.clock.monotonic()
        if percent is None or abs(percent - shown) < _PROGRESS_POINTS:
            return
        if now - self._memory.progress_at >= _PROGRESS_SECONDS:
            self._memory.progress_at = now
            await self._write(book.progressed(self.journal, index, percent))

    async def _bound(self, index: int, message: str) -> None:
        """Says once that a step takes longer than it should."""
        entry = self.journal.steps[index]
        step = self._definition.step(entry)
        if step is not None and not self.journal.held_up and self._age(entry) >= step.bound_seconds:
            await self._write(book.stuck(self.journal, "TakesLong", message))

    async def _too_late(self) -> None:
        """Says once that it is not cancelled any more."""
        conditions = (self.obj.get("status") or {}).get("conditions") or ()
        said = next((c["reason"] for c in conditions if c["type"] == "Ready"), "")
        if said not in ("TooLateToCancel", "TakesLong", "UnknownStep"):
            await self._write(self.journal)

    async def _paused(self) -> Result:
        conditions = (self.obj.get("status") or {}).get("conditions") or ()
        if not any(c["type"] == "Paused" for c in conditions):
            await self._write(self.journal)
        return Settled()

    async def _unknown_step(self, entry: Entry) -> Result:
        if not self.journal.held_up:
            message = (
                f"this version of Hostler knows no step {entry.does} of {self.order.type}: run the one that began it"
            )
            await self._write(book.stuck(self.journal, "UnknownStep", message))
        return Failed(FailureKind.WAIT_FOR_USER, f"no step {entry.does}")

    async def _wait(self, reason: str, message: str) -> Result:
        await self._home.say_waiting(self.obj, reason, message, held_up=True)
        return self._later(_LONGEST_BACKOFF, message)

    # Time

    def _now(self) -> str:
        return standing.now_text(self._home.clock.now())

    def _since(self, moment: str) -> float:
        return max(0.0, (self._home.clock.now() - datetime.fromisoformat(moment)).total_seconds())

    def _age(self, entry: Entry) -> float:
        return self._since(entry.started_at) if entry.started_at is not None else 0.0

    def _early(self) -> float:
        """Seconds until the next try."""
        return self._memory.not_before - self._home.clock.monotonic()

    def _later(self, seconds: float, why: str) -> RequeueAfter:
        self._memory.not_before = self._home.clock.monotonic() + seconds
        return RequeueAfter(seconds, why)

    def _backoff(self, attempts: int, longest: float = _LONGEST_BACKOFF) -> float:
        seconds: float = min(2.0 ** min(attempts - 1, 12), longest)
        return seconds * self._home.rng.uniform(0.8, 1.2)

    def _note_calls(self, run: Run[W], *, certain: bool) -> None:
        """A call without an answer may be carried out until its deadline: nothing is repeated or undone before."""
        if not certain and run.sent_until is not None:
            self._memory.calls_until = max(self._memory.calls_until, run.sent_until)

    def _calls_under_way(self) -> float:
        return self._memory.calls_until - self._home.clock.monotonic()

    def _run(self) -> Run[W]:
        home = self._home
        return Run(home.world, self.order, home, self._grant, self.journal, home.clock)


def _told(grant: Grant) -> list[Object]:
    """The locks of a grant as the API tells them."""
    told = []
    for lockable, mode in grant.claim.wanted():
        if lockable.kind != orders.KIND:
            namespace = {"namespace": lockable.namespace} if lockable.namespace else {}
            own = {"kind": lockable.kind, **namespace, "name": lockable.name}
            told.append(own | {"mode": lock_mode(mode), "token": grant.token(lockable)})
    return told


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _certain(error: Exception) -> bool:
    """Whether there was an answer."""
    answered = isinstance(error, errors.ApiError) and not isinstance(error, errors.ServerUnavailable)
    return answered or isinstance(error, Permanent | Passing)


def _bug(error: Exception) -> bool:
    """Whether the log should say where it came from: nobody raised it on purpose."""
    return not isinstance(error, errors.EngineError | OSError | TimeoutError)
