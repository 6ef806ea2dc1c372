"""The doors out of a controller: every request to the API server and every call to a host passes one.

A gate stands in each. It names what passes, so that crash points are found and not listed by hand, and it may stop the
controller right there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Door(StrEnum):
    """To whom."""

    API = "api"
    HOST = "host"


@dataclass(frozen=True, order=True)
class Call:
    """One call, without names that differ from run to run."""

    door: Door
    verb: str
    kind: str
    """Kind of object, in the API's plural; or of what a host is asked about."""
    acts: bool
    """Whether it changes anything, if it is carried out."""

    def __str__(self) -> str:
        return f"{self.door}:{self.verb}:{self.kind}"


Send = Callable[[float, Callable[[], None]], None]
"""Puts the call on its way: (seconds that it takes longer, called when it has been carried out)."""


class Gate(Protocol):
    """Sees every call before it leaves."""

    async def enter(self, call: Call, send: Send) -> None:
        """Send it now, or do something else first. It may never return."""
        ...


class OpenGate:
    """Lets everything pass."""

    async def enter(self, call: Call, send: Send) -> None:
        """Send it."""
        send(0.0, lambda: None)


class Doorway:
    """Where a gate stands, and can be changed for another one."""

    def __init__(self, inner: Gate) -> None:
        """`inner`: the gate that stands here first."""
        self.inner = inner

    async def enter(self, call: Call, send: Send) -> None:
        """See Gate."""
        await self.inner.enter(call, send)
