"""The small algebra that a reconcile returns, instead of booleans and exceptions used as signals.

Waiting is always one of these, never a sleep: the worker is free while the object waits.

    Done           nothing more until something changes
    RequeueAfter   look again after so many seconds
    WaitFor        look again when a named fact is announced, or after a bound
    Failed         it could not be done; the kind of failure says what happens next
"""

from dataclasses import dataclass
from enum import Enum

from engine.queue import Priority


class FailureKind(Enum):
    """What to do next about a failure."""

    RETRY_SOON = "RetrySoon"
    """A passing fault: try again with growing back-off."""
    WAIT_FOR_USER = "WaitForUser"
    """Only an edit of some object heals it: its change wakes us, and a slow second look repairs a lost one."""
    WAIT_FOR_HOST = "WaitForHost"
    """A host must come back first: its fact wakes us, and a second look every half minute."""
    BUG = "Bug"
    """Ours: logged as an error, tried again with growing back-off."""


@dataclass(frozen=True, slots=True)
class Done:
    """Desired and observed agree."""


@dataclass(frozen=True, slots=True)
class RequeueAfter:
    """Look again in `seconds`, with that priority; `why` goes to the log."""

    seconds: float
    why: str
    priority: Priority = Priority.PERIODIC


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Look again when `fact` (or one of `also`) is announced by `Controller.wake`, at latest after `at_most` seconds.

    A fact announced while the reconcile was still running counts.
    """

    fact: str
    at_most: float
    why: str
    also: frozenset[str] = frozenset()

    @property
    def facts(self) -> frozenset[str]:
        return self.also | {self.fact}


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not be done.

    `retry_after` in seconds replaces what the kind would do; `facts` wake it earlier, as in WaitFor.
    """

    kind: FailureKind
    message: str
    retry_after: float | None = None
    facts: frozenset[str] = frozenset()


Result = Done | RequeueAfter | WaitFor | Failed

_GRAVITY = (FailureKind.BUG, FailureKind.RETRY_SOON, FailureKind.WAIT_FOR_HOST, FailureKind.WAIT_FOR_USER)


def earliest(*results: Result) -> Result:
    """One result for several phases of one reconcile: nothing that one of them waits for is lost.

    The gravest failure wins; else a wait; else the soonest requeue; else Done. What wins takes over every fact
    that any of them waits for, and the shortest time that any of them named.
    """
    facts = frozenset[str]().union(*(_facts(result) for result in results))
    times = [seconds for seconds in map(_seconds, results) if seconds is not None]
    failures = [result for result in results if isinstance(result, Failed)]
    if failures:
        gravest = min(failures, key=lambda failed: _GRAVITY.index(failed.kind))
        message = "; ".join(dict.fromkeys(failed.message for failed in failures))
        return Failed(gravest.kind, message, min(times, default=None), facts)
    waits = [result for result in results if isinstance(result, WaitFor)]
    if waits:
        why = "; ".join(dict.fromkeys(wait.why for wait in waits))
        return WaitFor(waits[0].fact, min(times), why, facts - {waits[0].fact})
    requeues = [result for result in results if isinstance(result, RequeueAfter)]
    if requeues:
        soonest = min(requeues, key=lambda requeue: requeue.seconds)
        return RequeueAfter(soonest.seconds, soonest.why, min(requeue.priority for requeue in requeues))
    return Done()


def _facts(result: Result) -> frozenset[str]:
    if isinstance(result, WaitFor | Failed):
        return result.facts
    return frozenset()


def _seconds(result: Result) -> float | None:
    match result:
        case RequeueAfter(seconds=seconds):
            return seconds
        case WaitFor(at_most=at_most):
            return at_most
        case Failed(retry_after=retry_after):
            return retry_after
        case _:
            return None
