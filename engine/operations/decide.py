"""What to do next with an operation, from what is written alone. Pure: no clock, no world, no chance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engine.operations.journal import Journal, Phase, State
from engine.operations.order import Order


class Work(Enum):
    """Two kinds of work of several steps."""

    SAGA = "Saga"
    """All or nothing: when a step fails for good, what was done is undone, the newest first."""
    RESUMABLE = "Resumable"
    """Forward only: each step is tried until it is done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Check, plan, and write the plan down with the first step begun."""


@dataclass(frozen=True, slots=True)
class Look:
    """The step was begun: see what became of it, and do it if that was nothing."""

    index: int


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Begin the way back."""

    cause: str


@dataclass(frozen=True, slots=True)
class Undo:
    """The step is to be undone. `again`: that has failed before, after which the others were undone first."""

    index: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """It has ended."""


Move = Plan | Look | TakeBack | Undo | Nothing


def decide(order: Order, journal: Journal, work: Work) -> Move:
    """The next move."""
    if journal.ended:
        return Nothing()
    if journal.phase is Phase.ROLLING_BACK:
        return _back(journal)
    cause = cancelled(order, journal, work)
    if not journal.planned:
        return Plan() if cause is None else TakeBack(cause)
    index = journal.index(State.RUNNING)
    assert index is not None, "a journal that is neither ended nor rolling back has one step begun"
    # A pivot that was begun is looked at first: only what it says tells whether there is a way back.
    if cause is not None and not journal.steps[index].pivot:
        return TakeBack(cause)
    return Look(index)


def cancelled(order: Order, journal: Journal, work: Work) -> str | None:
    """Why it is to be rolled back, if somebody does not want it any more and it can be; else None.

    Nothing was begun yet: also what is never rolled back later.
    """
    if not order.cancelled or order.rollback or not may_go_back(journal, work):
        return None
    return f"cancelled: {'it was deleted' if order.deleting else 'nobody wants it any more'}"


def may_go_back(journal: Journal, work: Work) -> bool:
    """Whether there is a way back."""
    return not journal.planned or (work is Work.SAGA and not journal.past_pivot)


def _back(journal: Journal) -> Move:
    index = journal.newest(State.UNDOING)
    if index is not None:
        return Undo(index)
    left = [n for n, step in enumerate(journal.steps) if step.state is State.UNDO_FAILED]
    # One that never comes about must not keep the others from being tried.
    return Undo(min(left, key=lambda n: (journal.steps[n].attempts or 0, -n)), again=True)
