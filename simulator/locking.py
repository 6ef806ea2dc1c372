"""Several processes that lock the same objects, in virtual time, with everything that can befall them.

Processes are killed and frozen, answers are late, lost or refusals, the API server is away, clocks run differently and
jump. `play` goes through one seed and returns its history; what it proves is said there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from engine import errors
from engine.clock import LoopClock
from engine.kube import KubeClient
from engine.locks import Abandoned, Claim, Grant, Lockable, LockError, Locks, Scope, Session, SessionLost
from engine.locks.record import Mode
from engine.transport import Transport
from simulator import loop as virtual
from simulator.apiserver import ApiServer
from simulator.channel import ApiChannel, Faults
from simulator.doors import OpenGate
from simulator.history import History, Use
from simulator.loop import Scope as Inside

NAMESPACE = "default"
LOCKABLES = tuple(
    Lockable(kind, "ns", f"{kind.lower()}-{number}", f"uid-{number}", rank)
    for kind, rank, number in (("Pool", 0, 1), ("Machine", 1, 1), ("Machine", 1, 2), ("Image", 2, 1))
)
_PROCESSES = 3
_WORKERS = 3
_OPERATIONS = 400
_TROUBLE_EVERY = 6.0
_AT_PEACE = 400.0
"""Seconds in which, once nothing more happens, every lock must have become free."""


class DriftingClock:
    """A process's clocks: one that runs at a rate of its own, one that is set to anything at any time."""

    def __init__(self, rng: random.Random) -> None:
        """Up to 2 % fast or slow."""
        self.rate = rng.uniform(0.98, 1.02)
        self.offset = rng.uniform(0, 1e6)
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        """See Clock."""
        return self.offset + self.rate * asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """See Clock."""
        return self.wall + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class World:
    """What all processes share."""

    server: ApiServer
    history: History
    rng: random.Random
    left: list[int]
    """Operations that nobody has ended yet."""
    taken: dict[int, Process]
    peace: bool = False

    def claim(self, number: int) -> Claim:
        """What an operation wants is the same whoever works on it."""
        drawn = random.Random(f"{number}")
        wanted = drawn.sample(LOCKABLES, drawn.randint(1, 3))
        exclusive = [one for one in wanted if drawn.random() < 0.6]
        shared = [one for one in wanted if one not in exclusive]
        return Claim(f"op-{number}", "tests locks", exclusive, shared, priority=drawn.choice((0, 0, 0, 1)))


class Process:
    """One process: a session that is kept, locks, and workers."""

    def __init__(self, world: World, number: int) -> None:
        """`number`: never used twice."""
        self.name = f"process-{number}"
        self.world = world
        self.rng = random.Random(world.rng.random())
        self.inside = Inside(self.name)
        self.faults = Faults()
        self.clock = DriftingClock(self.rng)
        channel = ApiChannel(world.server, self.faults, self.inside, OpenGate(), self.rng)
        self.client = KubeClient(Transport(channel, timeout=3.0))
        self.session = Session(self.name, NAMESPACE, process=self.name, clock=self.clock)
        self.locks = Locks(
            self.client, self.session, namespace=NAMESPACE, recover=self._recover, clock=self.clock, rng=self.rng
        )
        self.task = self.inside.run(self._main())

    async def _main(self) -> None:
        await self.session.open(self.client)
        kept = asyncio.create_task(self.session.keep(self.client))
        await asyncio.gather(kept, *(self._work() for _ in range(_WORKERS)))

    async def _work(self) -> None:
        while not self.session.lost:
            await asyncio.sleep(self.rng.uniform(0.05, 2.0))
            number = self._next()
            if number is None:
                continue
            self.world.taken[number] = self
            try:
                await self._operation(number)
            except SessionLost:
                return
            except (LockError, errors.ApiError, TimeoutError):
                pass
            finally:
                if self.world.taken.get(number) is self and not self.inside.dead:
                    del self.world.taken[number]

    def _next(self) -> int | None:
        """An operation on which no living process works (a lost one still thinks it does)."""
        free = [
            number
            for number in self.world.left[:12]
            if (worker := self.world.taken.get(number)) is None or worker.session.lost or worker.inside.dead
        ]
        return self.rng.choice(free) if free else None

    async def _operation(self, number: int) -> None:
        claim = self.world.claim(number)
        wait = self.rng.choice((0.0, 0.0, 5.0, 60.0))
        acquired = self.locks.acquire(claim, scope=Scope.COMMAND, wait=wait)
        if self.rng.random() < 0.1:
            grant = await asyncio.wait_for(acquired, self.rng.uniform(0.0, 0.5))
        else:
            grant = await acquired
        if number not in self.world.left:  # ended meanwhile, by whoever found it abandoned
            await grant.release()
            return
        for _ in range(self.rng.randint(1, 4)):
            await self._use(grant)
            await asyncio.sleep(self.rng.expovariate(1.0))
        if self.rng.random() < 0.1:
            await grant.leave()
            return
        grant.check()
        self._ended(claim.operation)
        await grant.release()

    async def _use(self, grant: Grant) -> None:
        """One call to each object of the grant, some of them late."""
        child = grant.child(grant.claim)
        end = 0.0
        for lockable, mode in grant.claim.wanted():
            seconds = self.rng.uniform(0.0, child.time_left()) if self.rng.random() < 0.1 else 0.5
            child.check(seconds)
            late = self.rng.random() < 0.2
            if late:
                await asyncio.sleep(self.rng.uniform(0.0, 0.5))
            self._send(lockable, mode, grant, seconds, prompt=not late)
            end = max(end, asyncio.get_running_loop().time() + seconds / self.clock.rate)
            await asyncio.sleep(min(seconds, self.rng.uniform(0.0, 1.0)))
        await child.release()
        # A call counts until its deadline, so the work has not ended before.
        await asyncio.sleep(max(0.0, end - asyncio.get_running_loop().time()) * 1.01)

    def _send(self, lockable: Lockable, mode: Mode, grant: Grant, seconds: float, *, prompt: bool) -> None:
        now = asyncio.get_running_loop().time()
        use = Use(
            lockable.lease_name,
            grant.claim.operation,
            mode,
            grant.token(lockable),
            now,
            now + seconds / self.clock.rate,
            prompt,
        )
        self.world.history.used(use)

    def _ended(self, operation: str) -> None:
        self.world.history.ended(operation)
        number = int(operation.removeprefix("op-"))
        if number in self.world.left:
            self.world.left.remove(number)

    async def _recover(self, abandoned: Abandoned, grant: Grant) -> None:
        """The hook: rolls back at a pace of its own, and not always with success."""
        for lockable, mode in grant.claim.wanted():
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            grant.check(1.0)
            self._send(lockable, mode, grant, 1.0, prompt=True)
        await asyncio.sleep(1.1)
        if self.rng.random() < 0.2 and not self.world.peace:
            raise RuntimeError("the host does not answer")
        grant.check()
        self.world.history.recovered += 1
        self._ended(abandoned.operation)

    def kill(self) -> None:
        """SIGKILL."""
        _loop().kill(self.inside)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        _loop().freeze(self.inside)
        _loop().call_later(seconds, self._thaw)

    def _thaw(self) -> None:
        if not self.inside.dead:
            _loop().thaw(self.inside)

    @property
    def over(self) -> bool:
        """Whether another one has to be begun in its place."""
        return self.inside.dead or (self.session.lost and not self.inside.frozen and self.task.done())


def _loop() -> virtual.VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, virtual.VirtualLoop)
    return loop


def _befall(process: Process, rng: random.Random) -> None:
    """Something happens to one process."""
    faults = process.faults
    match rng.randrange(9):
        case 0:
            process.kill()
        case 1 | 2:
            process.freeze(rng.choice((0.5, 5.0, 12.0, 25.0, 60.0)))
        case 3:
            faults.lost_replies = rng.choice((0.05, 0.3))
        case 4:
            faults.answers = {409: rng.choice((0.1, 0.7)), 429: 0.05, 500: 0.05}
        case 5:
            faults.slow = (0.0, rng.choice((0.3, 0.3, 2.0, 20.0)))
        case 6:
            faults.silent = not faults.silent
        case 7:
            process.clock.wall += timedelta(seconds=rng.choice((-3600, 3600)))
        case _:
            process.faults.heal()


async def _chaos(world: World, processes: list[Process], seconds: float, begin: Callable[[], Process]) -> None:
    until = _loop().time() + seconds
    while _loop().time() < until and world.left:
        await asyncio.sleep(world.rng.expovariate(1 / _TROUBLE_EVERY))
        _befall(world.rng.choice(processes), world.rng)
        for number, process in enumerate(processes):
            if process.over:
                process.kill()
                processes[number] = begin()


async def _run(seed: int, seconds: float) -> History:
    rng = random.Random(seed)
    server = ApiServer(LoopClock(datetime(2026, 1, 1, tzinfo=UTC)), _loop().call_later, rng)
    history = History()
    server.subscribe(history.stored)
    world = World(server, history, rng, list(range(_OPERATIONS)), {})
    numbers = iter(range(10_000))

    def begin() -> Process:
        return Process(world, next(numbers))

    processes = [begin() for _ in range(_PROCESSES)]
    await _chaos(world, processes, seconds, begin)
    await _peace(world, processes, begin)
    return history


async def _peace(world: World, processes: list[Process], begin: Callable[[], Process]) -> None:
    """All processes end, frozen ones at last as well; a new one must get every lock."""
    world.peace = True
    for process in processes:
        process.faults.heal()
        process.kill()
    world.left.clear()
    last = begin()
    final = Claim("op-9999", "takes everything", exclusive=LOCKABLES)
    try:
        await asyncio.wait_for(last.inside.run(_all(last, final)), _AT_PEACE)
    except (LockError, TimeoutError) as error:
        world.history.violations.append(f"not free in the end: {error}")


async def _all(process: Process, claim: Claim) -> None:
    while not process.session.remaining():  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.1)
    async with await process.locks.acquire(claim, wait=_AT_PEACE / 2):
        pass


def play(seed: int, seconds: float = 300.0) -> History:
    """One seed, for that many virtual seconds of trouble."""
    return virtual.run(_run(seed, seconds))
