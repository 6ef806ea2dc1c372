"""What a look at a step, or a try of it, comes to; and why an operation is refused.

    Done         it is there, as it should be
    NotDone      surely not there, and nobody is making it
    InProgress   somebody is making it: look again
    Unknown      nobody can say now: nothing is repeated and nothing is taken back before somebody can

A step that fails raises: `Permanent` when trying again is no use, `Passing` when it may be, and both say that no call
is under way any more. Whatever else it raises leaves that open: nothing is repeated or undone before its deadline.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class Done:
    """`result`: in words, kept for people and for later steps (`Run.result`)."""

    result: str = ""


@dataclass(frozen=True, slots=True)
class NotDone:
    """It has to be done, or done again."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """`percent`: 0 to 100, where that is known. `again`: seconds until the next look."""

    percent: int | None = None
    again: float = 2.0


@dataclass(frozen=True, slots=True)
class Unknown:
    """`why`: in words for the user. `again`: seconds until the next look."""

    why: str
    again: float = 10.0


Observed = Done | NotDone | InProgress | Unknown


@dataclass(frozen=True, slots=True)
class Refusal:
    """An operation is not begun. `reason`: one CamelCase word; `message`: what the user can do about it."""

    reason: str
    message: str


class Passing(EngineError):
    """A try has failed for now, with a clear answer: no call of it is under way."""


class Permanent(EngineError):
    """A step, a check or a plan has failed for good: to try again is no use, and no call of it is under way."""
