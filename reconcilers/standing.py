"""Ready, Reconciling and Stalled: what kstatus, `kubectl wait` and Argo CD read, computed in one place.

An object is as declared (Ready), on its way (Reconciling, for a bounded time), held up by
something that a person must mend (Stalled), or unknown because a host cannot be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from crds.base import PAUSED_ANNOTATION, Resource
from engine.conditions import Condition, condition, merge


class Standing(Enum):
    """How an object stands to what is declared."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    STALLED = "Stalled"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Verdict:
    """How an object stands, and why.

    `bound` is the number of seconds that PROGRESSING may last before it counts as stalled too.
    """

    standing: Standing
    reason: str
    message: str
    bound: float | None = None


def ready(reason: str, message: str = "") -> Verdict:
    """As declared."""
    return Verdict(Standing.READY, reason, message)


def progressing(reason: str, message: str, bound: float) -> Verdict:
    """On its way, for at most `bound` seconds."""
    return Verdict(Standing.PROGRESSING, reason, message, bound)


def stalled(reason: str, message: str) -> Verdict:
    """Waits for something that a person must mend."""
    return Verdict(Standing.STALLED, reason, message)


def unknown(reason: str, message: str) -> Verdict:
    """Nobody can say: a host cannot be asked."""
    return Verdict(Standing.UNKNOWN, reason, message)


def seconds_left(obj: Resource[Any, Any], verdict: Verdict, now: datetime) -> float | None:
    """Time until a progressing object counts as stalled; None when that time does not run.

    The clock starts when Reconciling became True, and starts anew when its reason changes.
    """
    if verdict.standing is not Standing.PROGRESSING or verdict.bound is None:
        return None
    before = obj.status.condition("Reconciling")
    if before is None or before.status != "True" or before.reason != verdict.reason:
        return verdict.bound
    since: datetime = before.last_transition_time
    return max(0.0, verdict.bound - (now - since).total_seconds())


def conditions(obj: Resource[Any, Any], verdict: Verdict, now: datetime, *others: Condition) -> list[Condition]:
    """The conditions to write: the three of the verdict, Paused while the annotation is set, and the kind's own.

    Reconciling and Stalled are False where they do not apply, so that `kubectl wait --for=condition=Stalled=False`
    works.
    """
    generation = obj.metadata.generation
    left = seconds_left(obj, verdict, now)
    late = left is not None and left <= 0
    progressing_now = verdict.standing is Standing.PROGRESSING
    status = {Standing.READY: True, Standing.UNKNOWN: None}.get(verdict.standing, False)
    stalled_now = late or verdict.standing in (Standing.STALLED, Standing.UNKNOWN)
    own = [
        condition("Ready", status, verdict.reason, verdict.message, generation),
        condition(
            "Reconciling", progressing_now, verdict.reason, verdict.message if progressing_now else "", generation
        ),
        condition("Stalled", stalled_now, verdict.reason, verdict.message if stalled_now else "", generation),
    ]
    if obj.metadata.paused_by is not None:
        message = f"{PAUSED_ANNOTATION} is set by {obj.metadata.paused_by}: nothing is done to this {obj.kind}"
        own.append(condition("Paused", True, "Paused", message, generation))
    old = [c.to_dict() for c in obj.status.conditions]
    return _restart_clock(obj, verdict, merge(old, [*own, *others], now), now)


def news(obj: Resource[Any, Any], written: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    """(reason, message) when the object, by the conditions to be `written`, is held up and was not, or not for that."""
    now = next((c for c in written if c["type"] == "Stalled"), None)
    if now is None or now["status"] != "True":
        return None
    before = obj.status.condition("Stalled")
    if before is not None and (before.status, before.reason) == ("True", now["reason"]):
        return None
    return now["reason"], now["message"]


def _restart_clock(
    obj: Resource[Any, Any], verdict: Verdict, merged: list[Condition], now: datetime
) -> list[Condition]:
    """A new reason of Reconciling is a new piece of work with its own bound: its time starts now."""
    before = obj.status.condition("Reconciling")
    if verdict.standing is Standing.PROGRESSING and before is not None and before.reason != verdict.reason:
        fresh = merge([], [c for c in merged if c["type"] == "Reconciling"], now)
        return [fresh[0] if c["type"] == "Reconciling" else c for c in merged]
    return merged
