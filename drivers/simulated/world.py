"""The truth: stores, machines, and what happened, in virtual time.

All time is the running event loop's, all chance is one seeded generator's, so the same seed gives the same history.
What the world does later it does in a context of its own: nothing of it belongs to the process that asked for it, and
so nothing of it stops with that process.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple

from drivers.simulated.breaches import Breach, Violation
from drivers.simulated.faults import Faults
from drivers.simulated.files import Store
from drivers.simulated.latencies import MEASURED, Latencies, Latency
from drivers.simulated.machine import Machine

_NO_LATENCY = Latency(0.0, 0.0)


class Entry(NamedTuple):
    """One thing that happened."""

    time: float
    where: str
    """The machine or the store."""
    what: str


class World:
    """All machines and stores there are."""

    def __init__(
        self, *, seed: int = 0, latencies: Latencies = MEASURED, obedient: bool = False, log_size: int | None = None
    ) -> None:
        """obedient: every guest obeys, as if it ran a system; else only one whose disk holds one (see `guests`).

        log_size: how many entries are kept; None keeps all.
        """
        self.random = random.Random(seed)  # noqa: S311 - chance that can be repeated is the point
        self.latencies = latencies
        self.obedient = obedient
        self.machines: dict[str, Machine] = {}
        self.stores: dict[str, Store] = {}
        self.faults = Faults(self.random)
        self.log: deque[Entry] = deque(maxlen=log_size)
        self.violations: list[Violation] = []
        self._context = Context()
        self._default = latencies.get("*", _NO_LATENCY)

    def store(self, name: str, capacity: int = 2**40) -> Store:
        """A new store of capacity bytes."""
        if name in self.stores:
            raise ValueError(f"there is a store {name} already")
        made = self.stores[name] = Store(name, capacity, lambda what: self.note(name, what))
        return made

    def machine(self, name: str, *, cpus: int = 8, memory: int = 2**34, bridges: tuple[str, ...] = ("lan",)) -> Machine:
        """A new machine, powered on and reachable; memory in bytes. It mounts nothing yet."""
        if name in self.machines:
            raise ValueError(f"there is a machine {name} already")
        made = self.machines[name] = Machine(self, name, cpus=cpus, memory=memory, bridges=bridges)
        return made

    @property
    def now(self) -> float:
        """The event loop's time; 0 before it runs."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return 0.0

    def note(self, where: str, what: str) -> None:
        """Add to the log."""
        self.log.append(Entry(self.now, where, what))

    def violate(self, breach: Breach, machines: tuple[str, ...], what: str) -> None:
        """Record a breach."""
        self.violations.append(Violation(self.now, breach, machines, what))
        self.note("/".join(machines), f"VIOLATION {breach}: {what}")

    def latency(self, method: str) -> float:
        """Seconds that this call takes this time."""
        return self.latencies.get(method, self._default).draw(self.random)

    def later(self, seconds: float, call: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        """Have something happen after seconds, whatever becomes of the process that runs now."""
        return asyncio.get_running_loop().call_later(seconds, call, *arguments, context=self._context)

    def soon(self, context: Context, call: Callable[..., None], *arguments: object) -> None:
        """Have code of some process run in that process's context."""
        asyncio.get_running_loop().call_soon(call, *arguments, context=context)
