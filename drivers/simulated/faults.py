"""Faults of single calls: which call, and what becomes of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from drivers.errors import HypervisorError


@dataclass(frozen=True)
class Raise:
    """The host answers with this error, and has done nothing."""

    error: HypervisorError


@dataclass(frozen=True)
class Delay:
    """The call arrives that many seconds later."""

    seconds: float


@dataclass(frozen=True)
class LoseRequest:
    """The call never arrives; its caller hears nothing."""


@dataclass(frozen=True)
class LoseReply:
    """The call takes effect; its caller hears nothing."""


Fault = Raise | Delay | LoseRequest | LoseReply


@dataclass(eq=False)
class Rule:
    """Which calls a fault befalls. None stands for any."""

    what: Fault
    machine: str | None = None
    method: str | None = None
    """Name of the call as metrics have it: a method of Hypervisor, or `connect`, `heartbeat`, `list`, `read`, `facts`,
    `volume_path`."""
    nth: int | None = None
    """Only the nth call that matches, counted from 1; None: each."""
    probability: float = 1.0
    seen: int = field(default=0, init=False)
    """Calls that matched so far."""
    fired: int = field(default=0, init=False)
    """Calls that the fault befell so far."""

    def befalls(self, machine: str, method: str, rng: random.Random) -> bool:
        """Count a call, and tell whether the fault befalls it."""
        if self.machine not in {None, machine} or self.method not in {None, method}:
            return False
        self.seen += 1
        if self.nth is not None and self.seen != self.nth:
            return False
        if self.probability < 1.0 and rng.random() >= self.probability:
            return False
        self.fired += 1
        return True


class Faults:
    """All rules of a world."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> Rule:
        """Have a rule hold from now on."""
        self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Have a rule hold no more; one that does not is fine."""
        if rule in self._rules:
            self._rules.remove(rule)

    def clear(self) -> None:
        """No faults any more."""
        self._rules.clear()

    def of(self, machine: str, method: str) -> list[Fault]:
        """What befalls this call."""
        return [rule.what for rule in self._rules if rule.befalls(machine, method, self._rng)]
