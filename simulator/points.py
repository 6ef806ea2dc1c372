"""The crash-point finder: what passes the doors of a controller is numbered, and at each number it is killed.

At every point the process forks, once for each way to die. The child kills the controller there, has another one begin
after a random delay, plays on until all is at rest, and is judged; the parent goes on to the next point. So the points
of a run are found by the run itself, and each is met in exactly the state in which it was found.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial

from simulator import oracle
from simulator.doors import Call, Door, Send
from simulator.flows import FLOWS, Flow
from simulator.loop import Deadlock, VirtualLoop, run
from simulator.scene import NotSettled, Scene

RESTART = (0.2, 20.0)
"""Seconds between the end of a controller and the begin of the next."""
PATIENCE = 1800.0
"""Virtual seconds in which all must have come to rest."""
WRITES_MORE = 60
"""Changes of objects that a crash may cost beyond those of the flow."""


class Death(StrEnum):
    """When the controller dies, seen from the call."""

    BEFORE = "before"
    """Before it is sent."""
    AFTER = "after"
    """When it has been carried out, and the answer has not come."""
    LATE = "late"
    """When it was sent; it is carried out only after the next controller has begun."""


@dataclass(frozen=True)
class Point:
    """One crash point: the call, and which of its like it is in its run."""

    ordinal: int
    call: str
    nth: int

    @property
    def name(self) -> str:
        """What it is called in every run."""
        return f"{self.call}#{self.nth}"


@dataclass
class Outcome:
    """What came of one run."""

    flow: str
    seed: int
    point: Point | None
    death: str
    problems: list[str]
    seconds: float = 0.0
    """Virtual time."""
    writes: int = 0

    @property
    def repeat(self) -> str:
        """The command that shows it again."""
        at = f" --kill {self.point.ordinal} --death {self.death}" if self.point is not None else ""
        return f"python -m simulator run --flow {self.flow} --seed {self.seed}{at}"


class PointGate:
    """Numbers the calls of a controller, and lets something happen at each."""

    def __init__(self) -> None:
        """Not armed: everything passes."""
        self.armed = False
        self.points: list[Point] = []
        self._nth: Counter[str] = Counter()
        self.kill: Callable[[float], None] | None = None
        """Ends the controller; the next begins after that many seconds."""
        self.died: tuple[Point, Death] | None = None

    async def enter(self, call: Call, send: Send) -> None:
        """See doors.Gate."""
        if not self.armed:
            send(0.0, _nothing)
            return
        self._nth[str(call)] += 1
        point = Point(len(self.points) + 1, str(call), self._nth[str(call)])
        self.points.append(point)
        death = self.decide(point, call)
        if death is None:
            send(0.0, _nothing)
            return
        self.armed = False
        self.died = point, death
        await self._die(death, point, send)

    def decide(self, point: Point, call: Call) -> Death | None:
        """How the controller dies at this point; None: it lives."""
        return None

    async def _die(self, death: Death, point: Point, send: Send) -> None:
        assert self.kill is not None
        # Drawn apart, so that it disturbs no other chance.
        delay = random.Random(f"{point} {death}").uniform(*RESTART)
        kill = partial(self.kill, delay)
        match death:
            case Death.BEFORE:
                pass
            case Death.AFTER:
                send(0.0, kill)
                await asyncio.get_running_loop().create_future()
            case Death.LATE:
                send(delay + random.Random(f"{point}").uniform(0.0, 5.0), _nothing)
                await asyncio.sleep(0)  # what is sent in a task of its own leaves now
                await asyncio.sleep(0.0005)
        kill()
        await asyncio.get_running_loop().create_future()


class OnePoint(PointGate):
    """Dies at one point."""

    def __init__(self, ordinal: int, death: Death) -> None:
        """`ordinal`: number of the call, counted from 1."""
        super().__init__()
        self._ordinal, self._death = ordinal, death

    def decide(self, point: Point, call: Call) -> Death | None:
        """See PointGate."""
        return self._death if point.ordinal == self._ordinal else None


class ForkingGate(PointGate):
    """Dies at every point, in a child of its own each time."""

    def __init__(self, deaths: Callable[[Point, Call], tuple[Death, ...]], deadline: float) -> None:
        """`deaths`: which ways to die are tried at a point. `deadline`: real time until which children are begun."""
        super().__init__()
        self._deaths = deaths
        self._deadline = deadline
        self.report: int | None = None
        """In a child: where to write what came of it."""
        self.outcomes: list[Outcome] = []
        self.skipped = 0

    def decide(self, point: Point, call: Call) -> Death | None:
        """See PointGate."""
        for death in self._deaths(point, call):
            if time.monotonic() > self._deadline:
                self.skipped += 1
                continue
            reading, writing = os.pipe()
            loop = asyncio.get_running_loop()
            child = os.fork()
            if child == 0:
                asyncio._set_running_loop(loop)  # which otherwise runs in the parent only
                os.close(reading)
                self.report = writing
                return death
            os.close(writing)
            with os.fdopen(reading) as pipe:
                text = pipe.read()
            os.waitpid(child, 0)
            if text:
                said = json.loads(text)
                self.outcomes.append(Outcome(**{**said, "point": point}))
            else:
                self.outcomes.append(Outcome("", 0, point, death, ["the child ended without a word"]))
        return None


def _nothing() -> None:
    """Nobody waits for it."""


async def play(flow: Flow, seed: int, gate: PointGate, *, quiet: float = 60.0) -> tuple[Scene, list[str]]:
    """One run from its beginning to its judgement: (scene, problems)."""
    scene = Scene(seed, gate=gate)
    problems: list[str] = []
    try:
        await scene.infrastructure()
        flow.given(scene)
        await scene.settled(quiet=5.0)
        first = scene.controller

        def kill(pause: float) -> None:
            first.kill()
            scene.restart_in(pause)

        gate.kill = kill
        before = len(scene.server.writes)
        gate.armed = True
        flow.when(scene)
        await scene.settled(quiet, PATIENCE)
        gate.armed = False
        problems = oracle.judge(scene)
        changes = sum(w.changed and w.who != "user" and w.key.kind != "Event" for w in scene.server.writes[before:])
        allowed = flow.writes + (WRITES_MORE if len(scene.processes) > 1 else 0)
        if changes > allowed:
            problems.append(f"{changes} changes of objects, and {allowed} are allowed")
    except NotSettled as error:
        problems = [str(error), *oracle.judge(scene)]
    scene.end()
    return scene, problems


@dataclass
class Campaign:
    """What a campaign over one flow and some seeds has found."""

    flow: str
    seeds: int = 0
    points: dict[str, int] = field(default_factory=dict)
    """Kills at each point, over all seeds and ways to die."""
    killed: int = 0
    skipped: int = 0
    virtual_seconds: float = 0.0
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        self.virtual_seconds += outcome.seconds
        if outcome.point is not None:
            self.killed += 1
            self.points[outcome.point.name] = self.points.get(outcome.point.name, 0) + 1
        if outcome.problems:
            self.failures.append(outcome)


def find(
    flow: Flow, seed: int, campaign: Campaign, *, deadline: float, every_death: bool, one_is_enough: bool = False
) -> None:
    """Run a flow under one seed, with a kill at each of its points, and add what came of it.

    `one_is_enough`: nobody is killed any more once something went wrong.
    """

    def deaths(point: Point, call: Call) -> tuple[Death, ...]:
        if one_is_enough and any(outcome.problems for outcome in gate.outcomes):
            return ()
        ways = [Death.BEFORE]
        if call.acts:
            ways.append(Death.AFTER)
            ways += [Death.LATE] if call.door is Door.HOST else []
        if every_death:
            return tuple(ways)
        return (ways[(seed + point.ordinal) % len(ways)],)

    gate = ForkingGate(deaths, deadline)
    gc.collect()
    gc.freeze()
    try:
        outcome = run(_judged(flow, seed, gate))
    except Deadlock as error:
        outcome = Outcome(flow.name, seed, None, "", [f"deadlock: {error}"])
    except BaseException:
        if gate.report is None:
            raise
        outcome = Outcome(flow.name, seed, None, str(gate.died and gate.died[1]), [traceback.format_exc()])
    if gate.report is not None:
        with os.fdopen(gate.report, "w") as pipe:
            json.dump({**asdict(outcome), "point": None}, pipe)
        sys.stdout.flush()
        os._exit(0)
    campaign.seeds += 1
    campaign.skipped += gate.skipped
    for each in (outcome, *gate.outcomes):
        campaign.add(each)


async def _judged(flow: Flow, seed: int, gate: PointGate) -> Outcome:
    scene, problems = await play(flow, seed, gate)
    died = str(gate.died[1]) if gate.died is not None else ""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return Outcome(flow.name, seed, None, died, problems, loop.time(), len(scene.server.writes))


def one(flow: str, seed: int, ordinal: int | None, death: Death) -> Outcome:
    """One run again, with a kill or without."""
    gate = PointGate() if ordinal is None else OnePoint(ordinal, death)
    return run(_judged(FLOWS[flow], seed, gate))
