"""How far an operation has come: its status, and every change that may be made to it. Pure.

An intent is written before its effect: a step is Running, or Undoing, in the stored journal before anything is done
for it. The write that marks one step as begun also marks the one before as done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from engine.keys import Object

_LONGEST = 1024
"""Characters of a message."""


class Phase(StrEnum):
    """Where an operation stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    ROLLING_BACK = "RollingBack"
    SUCCEEDED = "Succeeded"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"


class State(StrEnum):
    """Where a step stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    DONE = "Done"
    UNDOING = "Undoing"
    UNDONE = "Undone"
    UNDO_FAILED = "UndoFailed"


ENDED = frozenset({Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.FAILED})
_BEGUN = frozenset({State.RUNNING, State.DONE})


@dataclass(frozen=True, slots=True)
class Entry:
    """One step. `does`: which kind of step; `parameters`: JSON; times in RFC 3339; `attempts`: that failed."""

    name: str
    does: str
    parameters: str
    pivot: bool = False
    state: State = State.PENDING
    started_at: str | None = None
    finished_at: str | None = None
    progress: int | None = None
    result: str | None = None
    attempts: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """`locks`: as the API tells them. `reason`, `message`: for the conditions; `held_up`: a person should look."""

    phase: Phase = Phase.PENDING
    steps: tuple[Entry, ...] = ()
    locks: tuple[Object, ...] = ()
    first_cause: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    reason: str = ""
    message: str = ""
    held_up: bool = False

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def planned(self) -> bool:
        return bool(self.steps)

    def index(self, *states: State) -> int | None:
        """The first step in one of these states."""
        return next((n for n, step in enumerate(self.steps) if step.state in states), None)

    def newest(self, *states: State) -> int | None:
        """The last step in one of these states."""
        return next((n for n in reversed(range(len(self.steps))) if self.steps[n].state in states), None)

    @property
    def past_pivot(self) -> bool:
        """Whether a pivot is done: from there it only goes forward."""
        return any(step.pivot and step.state is State.DONE for step in self.steps)

    def result(self, name: str) -> str:
        """What came of a step; "" before it is done."""
        return next((step.result or "" for step in self.steps if step.name == name), "")


# Every change


def planned(journal: Journal, steps: Sequence[Entry], locks: Sequence[Object], now: str) -> Journal:
    """The plan, with its first step begun."""
    first = replace(steps[0], state=State.RUNNING, started_at=now)
    return Journal(Phase.RUNNING, (first, *steps[1:]), tuple(locks), started_at=now)


def undoing(journal: Journal, steps: Sequence[Entry], locks: Sequence[Object], cause: str, now: str) -> Journal:
    """What another operation has done, with the newest of it about to be undone."""
    fresh = replace(journal, steps=tuple(steps), locks=tuple(locks), started_at=now)
    return rolled(fresh, cause, now)


def done(journal: Journal, index: int, result: str, now: str, *, cancelled: str | None = None) -> Journal:
    """A step is done, and the next one begun; or all are. `cancelled`: instead of the next, the way back begins."""
    finished = replace(
        journal.steps[index], state=State.DONE, finished_at=now, progress=None, message=None, result=_short(result)
    )
    after = _with(_calm(journal), index, finished)
    if cancelled is not None:
        return rolled(after, cancelled, now)
    follows = after.index(State.PENDING)
    if follows is None:
        return replace(after, phase=Phase.SUCCEEDED, finished_at=now, locks=())
    return _with(after, follows, replace(after.steps[follows], state=State.RUNNING, started_at=now))


def progressed(journal: Journal, index: int, percent: int | None) -> Journal:
    """A step has come that far."""
    return _with(journal, index, replace(journal.steps[index], progress=percent))


def failed(journal: Journal, index: int, message: str, *, held_up: bool) -> Journal:
    """A try of a step has failed."""
    step = journal.steps[index]
    again = replace(step, attempts=(step.attempts or 0) + 1, message=_short(message))
    return replace(_with(journal, index, again), held_up=held_up)


def stuck(journal: Journal, reason: str, message: str) -> Journal:
    """It goes on, but a person should know of this."""
    return replace(journal, held_up=True, reason=reason, message=message)


def rolled(journal: Journal, cause: str, now: str) -> Journal:
    """The way back: the newest step that was begun is about to be undone. Nothing was begun: it has ended."""
    back = replace(_calm(journal), phase=Phase.ROLLING_BACK, first_cause=journal.first_cause or _short(cause))
    return _next_undo(back, now)


def undone(journal: Journal, index: int, now: str) -> Journal:
    """Nothing is left of a step; the one before it is next."""
    step = replace(journal.steps[index], state=State.UNDONE, finished_at=now, progress=None, message=None)
    return _next_undo(_with(journal, index, step), now)


def undo_tried(journal: Journal, index: int, message: str) -> Journal:
    """An undo has failed, and is tried again before anything else."""
    step = journal.steps[index]
    return _with(journal, index, replace(step, attempts=(step.attempts or 0) + 1, message=_short(message)))


def undo_failed(journal: Journal, index: int, message: str, now: str) -> Journal:
    """An undo has failed too often: the others first."""
    tried = undo_tried(journal, index, message)
    failed_ = replace(tried.steps[index], state=State.UNDO_FAILED)
    return _next_undo(replace(_with(tried, index, failed_), held_up=True), now)


def refused(journal: Journal, reason: str, message: str, now: str) -> Journal:
    """It was not begun, and never will be."""
    return Journal(Phase.FAILED, finished_at=now, reason=reason, message=_short(message), first_cause=_short(message))


def waiting(journal: Journal, reason: str, message: str, *, held_up: bool) -> Journal:
    """It waits before its first step."""
    return replace(journal, phase=Phase.PENDING, reason=reason, message=_short(message), held_up=held_up)


def relocked(journal: Journal, locks: Sequence[Object]) -> Journal:
    """Under a new grant; written with whatever is written next."""
    return replace(journal, locks=tuple(locks))


def _next_undo(journal: Journal, now: str) -> Journal:
    index = journal.newest(*_BEGUN)
    if index is not None:
        step = replace(journal.steps[index], state=State.UNDOING, progress=None, attempts=None)
        return _with(journal, index, step)
    if journal.index(State.UNDO_FAILED, State.UNDOING) is not None:
        return journal
    return replace(journal, phase=Phase.ROLLED_BACK, finished_at=now, locks=(), held_up=False)


def _calm(journal: Journal) -> Journal:
    return replace(journal, held_up=False, reason="", message="")


def _with(journal: Journal, index: int, step: Entry) -> Journal:
    return replace(journal, steps=(*journal.steps[:index], step, *journal.steps[index + 1 :]))


def _short(message: str) -> str:
    return message if len(message) <= _LONGEST else message[: _LONGEST - 3] + "..."


# The wire

_NAMES = {
    "started_at": "startedAt",
    "finished_at": "finishedAt",
}
_FIELDS = tuple((one.name, _NAMES.get(one.name, one.name)) for one in fields(Entry))


def parse(obj: Object) -> Journal:
    """The journal in an Operation's status."""
    status: dict[str, Any] = obj.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    ready, stalled = conditions.get("Ready") or {}, conditions.get("Stalled") or {}
    return Journal(
        phase=Phase(status.get("phase") or Phase.PENDING),
        steps=tuple(_entry(step) for step in status.get("steps") or ()),
        locks=tuple(status.get("locks") or ()),
        first_cause=status.get("firstCause"),
        started_at=status.get("startedAt"),
        finished_at=status.get("finishedAt"),
        reason=ready.get("reason", ""),
        message=ready.get("message", ""),
        held_up=stalled.get("status") == "True",
    )


def render(journal: Journal) -> Object:
    """The fields of the status but conditions and observedGeneration; None: it is not there."""
    return {
        "phase": journal.phase.value,
        "steps": [_step(step) for step in journal.steps] or None,
        "locks": list(journal.locks) or None,
        "firstCause": journal.first_cause,
        "startedAt": journal.started_at,
        "finishedAt": journal.finished_at,
        "step": _current(journal),
        "progress": _progress(journal),
    }


def _entry(told: Object) -> Entry:
    values = {name: told[wire] for name, wire in _FIELDS if wire in told}
    return Entry(**(values | {"state": State(told["state"])}))


def _step(step: Entry) -> Object:
    values = {wire: getattr(step, name) for name, wire in _FIELDS}
    return {wire: value for wire, value in values.items() if value is not None}


def _current(journal: Journal) -> str | None:
    index = journal.newest(State.RUNNING, State.UNDOING)
    if index is None and not journal.ended:
        index = journal.newest(State.UNDO_FAILED)
    return None if index is None else f"{index + 1}/{len(journal.steps)} {journal.steps[index].name}"


def _progress(journal: Journal) -> int | None:
    if not journal.steps:
        return None
    finished = sum(100 for step in journal.steps if step.state is State.DONE)
    return (finished + sum(s.progress or 0 for s in journal.steps if s.state is State.RUNNING)) // len(journal.steps)
