"""Processes with locks on a simulated API server, in virtual time, for tests that look at one thing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from engine.clock import LoopClock
from engine.kube import KubeClient
from engine.locks import Abandoned, Claim, Grant, Lockable, Locks, Session, Timing
from engine.locks.record import parse
from engine.transport import Transport
from simulator import loop as virtual
from simulator.apiserver import ApiServer
from simulator.channel import ApiChannel, Faults
from simulator.doors import OpenGate
from simulator.loop import Scope as Inside

POOL = Lockable("Pool", "", "main", "u-0", rank=0)
WEB = Lockable("Machine", "default", "web", "u-1", rank=3)
DB = Lockable("Machine", "default", "db", "u-2", rank=3)
NAMESPACE = "default"


class Process:
    def __init__(self, bed: Bed, name: str, timing: Timing | None = None) -> None:
        self.name = name
        self.faults = Faults()
        self.inside = Inside(name)
        channel = ApiChannel(bed.server, self.faults, self.inside, OpenGate(), bed.rng)
        self.client = KubeClient(Transport(channel, timeout=3.0))
        self.clock = LoopClock()
        self.session = Session(name, NAMESPACE, process=f"pod {name}", clock=self.clock, timing=timing)
        self.recovered: list[tuple[Abandoned, Grant]] = []
        self.trouble: Exception | None = None
        self.locks = Locks(
            self.client, self.session, namespace=NAMESPACE, recover=self._recover, clock=self.clock, rng=bed.rng
        )

    async def start(self) -> Process:
        await self.session.open(self.client)
        self.kept = self.inside.run(self.session.keep(self.client))
        return self

    async def _recover(self, abandoned: Abandoned, grant: Grant) -> None:
        self.recovered.append((abandoned, grant))
        grant.check()
        if self.trouble:
            raise self.trouble

    def kill(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual.VirtualLoop)
        loop.kill(self.inside)


class Bed:
    def __init__(self) -> None:
        self.rng = random.Random(7)
        self.server = ApiServer(LoopClock(), asyncio.get_running_loop().call_later, self.rng)

    async def process(self, name: str, timing: Timing | None = None) -> Process:
        return await Process(self, name, timing).start()

    def lease(self, lockable: Lockable) -> dict[str, Any] | None:
        return self.server.get("Lease", lockable.lease_name, NAMESPACE)

    def writes(self, part: str) -> int:
        return sum(part in write.key.name for write in self.server.writes)


def claim(operation: str, *exclusive: Lockable, shared: tuple[Lockable, ...] = (), priority: int = 0) -> Claim:
    return Claim(operation, f"works on {operation}", exclusive, shared, priority)


def run(test: Coroutine[Any, Any, None]) -> None:
    virtual.run(test)


def held_by(bed: Bed, *lockables: Lockable) -> list[list[str]]:
    leases = [bed.lease(lockable) for lockable in lockables]
    return [[h.operation for h in parse(lease).holders] if lease else [] for lease in leases]


async def crowd(bed: Bed, *, operations: int, objects: int) -> float:
    """Operations of two processes, each on three objects; the longest that one of them waited (seconds)."""
    processes = [await bed.process(name) for name in ("one", "two")]
    pool = [Lockable("Machine", "default", f"m{n}", f"u{n}", rank=1) for n in range(objects)]
    waits: list[float] = []

    async def work(number: int) -> None:
        first, second, third = bed.rng.sample(pool, 3)
        began = asyncio.get_running_loop().time()
        wanted = claim(f"op{number}", first, second, shared=(third,))
        async with await processes[number % 2].locks.acquire(wanted, wait=600):
            waits.append(asyncio.get_running_loop().time() - began)
            await asyncio.sleep(0.5)

    await asyncio.gather(*(processes[n % 2].inside.run(work(n)) for n in range(operations)))
    assert len(waits) == operations and not any(held_by(bed, *pool))
    return max(waits)
