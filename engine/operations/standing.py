"""How an operation stands, for `kubectl describe`, kstatus and Argo CD: conditions from its journal. Pure."""

from __future__ import annotations

from datetime import datetime

from engine.clock import timestamp
from engine.conditions import condition, merge
from engine.keys import Object
from engine.operations import journal as book
from engine.operations.journal import Journal, Phase, State
from engine.operations.order import PAUSED, Order

_HELD_UP = ("TakesLong", "UnknownStep")


def status(order: Order, journal: Journal, obj: Object, now: datetime) -> Object:
    """Every field of the status; None: it is not there. All of it is written by compare-and-set."""
    old = (obj.get("status") or {}).get("conditions") or ()
    ready, reconciling, stalled = _standing(order, journal)
    reason, message = _why(order, journal)
    kinds = (("Ready", ready), ("Reconciling", reconciling), ("Stalled", stalled))
    own = [
        condition(kind, value, reason, message if value or kind == "Ready" else "", order.generation)
        for kind, value in kinds
    ]
    if order.paused_by is not None and not journal.ended:
        said = f"{PAUSED} is set by {order.paused_by}: no step is begun"
        own.append(condition("Paused", True, "Paused", said, order.generation))
    return book.render(journal) | {
        "conditions": merge(old, own, now),
        "observedGeneration": order.generation,
    }


def now_text(now: datetime) -> str:
    """As the journal has it."""
    return timestamp(now)


def moment(text: str) -> datetime:
    """What `now_text` has written."""
    return datetime.fromisoformat(text)


def seconds(journal: Journal) -> float:
    """How long it worked; 0 if it has not begun or not ended."""
    if journal.started_at is None or journal.finished_at is None:
        return 0.0
    return (moment(journal.finished_at) - moment(journal.started_at)).total_seconds()


def _standing(order: Order, journal: Journal) -> tuple[bool, bool, bool]:
    """(Ready, Reconciling, Stalled)"""
    if not journal.ended:
        return False, True, journal.held_up
    good = journal.phase is (Phase.ROLLED_BACK if order.rollback else Phase.SUCCEEDED)
    return good, False, not good


def _why(order: Order, journal: Journal) -> tuple[str, str]:
    match journal.phase:
        case Phase.PENDING:
            return journal.reason or "Waiting", journal.message
        case Phase.FAILED:
            return journal.reason or "Refused", journal.message
        case Phase.SUCCEEDED:
            return "Succeeded", "; ".join(step.result for step in journal.steps if step.result)
        case Phase.ROLLED_BACK:
            return "RolledBack", journal.first_cause or ""
        case Phase.ROLLING_BACK:
            bad = [f"{s.name}: {s.message}" for s in journal.steps if s.state is State.UNDO_FAILED]
            return "RollingBack", "; ".join([journal.first_cause or "", *_prefixed("could not be undone: ", bad)])
        case Phase.RUNNING:
            return _running(order, journal)


def _running(order: Order, journal: Journal) -> tuple[str, str]:
    index = journal.index(State.RUNNING)
    step = journal.steps[index] if index is not None else None
    said = f"step {step.name}" if step is not None else ""
    if step is not None and step.attempts:
        said += f" has failed {step.attempts} times: {step.message}"
    if journal.held_up and journal.reason in _HELD_UP:
        return journal.reason, journal.message
    if order.cancelled:
        return "TooLateToCancel", f"it goes on to its end, and cannot be taken back: {said}"
    return ("StepFailed" if journal.held_up else "Running"), said


def _prefixed(prefix: str, lines: list[str]) -> list[str]:
    return [prefix + ", ".join(lines)] if lines else []
