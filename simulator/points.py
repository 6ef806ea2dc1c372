"""The crash-point finder: what passes the doors of a controller is numbered, and at each number it is killed.

At every point the process forks, once for each way to die. The child kills the controller there, has another one begin
after a random delay, plays on until all is at rest, and is judged; the parent goes on to the next point. So the points
of a run are found by the run itself, and each is met in exactly the state in which it was found.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import random
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from simulator import oracle
from simulator.doors import Call, Send
from simulator.findings import Campaign, Death, Outcome, Point
from simulator.flows import FLOWS, Flow
from simulator.loop import Deadlock, Livelock, run
from simulator.scene import NotSettled, Scene

RESTART = (0.2, 20.0)
"""Seconds between the end of a controller and the begin of the next."""
PACES = (0.0, 0.05, 3.0)
"""Seconds that users let pass at most between two things that they do; the seed chooses."""
PATIENCE = 1800.0
"""Virtual seconds in which all must have come to rest."""
WRITES_MORE = 60
"""Changes of objects that a crash may cost beyond those of the flow."""


QUESTIONS = 4
"""Before a call that changes nothing one seed in so many kills: what a dead controller leaves in the world is then what
it had left after the last call that changed something, and that one is a point of its own.
"""


class PointGate:
    """Numbers the calls of a controller, and lets something happen at each."""

    def __init__(self, seed: int) -> None:
        """Not armed: everything passes."""
        self.seed = seed
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
        rng = random.Random(f"{self.seed} {point} {death}")
        delay = rng.uniform(*RESTART)
        kill = partial(self.kill, delay)
        match death:
            case Death.BEFORE:
                pass
            case Death.AFTER:
                send(0.0, kill)
                await asyncio.get_running_loop().create_future()
            case Death.LATE:
                send(delay + rng.uniform(0.0, 5.0), _nothing)
                await asyncio.sleep(0)  # what is sent in a task of its own leaves now
                await asyncio.sleep(0.0005)
        kill()
        await asyncio.get_running_loop().create_future()


class OnePoint(PointGate):
    """Dies at one point."""

    def __init__(self, seed: int, ordinal: int, death: Death) -> None:
        """`ordinal`: number of the call, counted from 1."""
        super().__init__(seed)
        self._ordinal, self._death = ordinal, death

    def decide(self, point: Point, call: Call) -> Death | None:
        """See PointGate."""
        return self._death if point.ordinal == self._ordinal else None


class ForkingGate(PointGate):
    """Dies at every point, in a child of its own each time."""

    def __init__(self, flow: str, seed: int, deaths: Callable[[Point, Call], tuple[Death, ...]]) -> None:
        """`deaths`: which ways to die are tried at a point."""
        super().__init__(seed)
        self._flow = flow
        self._deaths = deaths
        self.report: int | None = None
        """In a child: where to write what came of it."""
        self.outcomes: list[Outcome] = []

    def decide(self, point: Point, call: Call) -> Death | None:
        """See PointGate."""
        for death in self._deaths(point, call):
            reading, writing = os.pipe()
            loop = asyncio.get_running_loop()
            child = os.fork()
            if child == 0:
                asyncio._set_running_loop(loop)  # which otherwise runs in the parent only
                os.close(reading)
                gc.disable()  # it does not live long enough for that to be worth it
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
                said_nothing = ["the child ended without a word"]
                self.outcomes.append(Outcome(self._flow, self.seed, point, death, said_nothing))
        return None

    def tell(self, outcome: Outcome) -> None:
        """In a child: say what came of it, and end."""
        assert self.report is not None
        with os.fdopen(self.report, "w") as pipe:
            json.dump({**asdict(outcome), "point": None}, pipe)
        os._exit(0)


def _nothing() -> None:
    """Nobody waits for it."""


async def play(flow: Flow, seed: int, gate: PointGate, *, quiet: float = 60.0) -> tuple[Scene, list[str]]:
    """One run from its beginning to its judgement: (scene, problems)."""
    scene = Scene(seed, gate=gate)
    problems: list[str] = []
    try:
        await scene.infrastructure()
        for act in flow.given:
            act(scene)
        await scene.settled(quiet=5.0)
        first = scene.controller

        def kill(pause: float) -> None:
            first.kill()
            scene.restart_in(pause)

        gate.kill = kill
        before = len(scene.server.writes)
        gate.armed = True
        await _users(flow, scene)
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


async def _users(flow: Flow, scene: Scene) -> None:
    """What users do, in the seed's order and at its pace."""
    rng = random.Random(f"users {scene.seed}")
    acts, pace = list(flow.when), rng.choice(PACES)
    rng.shuffle(acts)
    for act in acts:
        act(scene)
        await asyncio.sleep(rng.uniform(0.0, pace))


def find(
    flow: Flow, seed: int, campaign: Campaign, *, every_death: bool, one_is_enough: bool = False, stride: int = 1
) -> list[Outcome]:
    """Run a flow under one seed, with a kill at each of its points, and add what came of it: that is returned.

    `every_death`: in every way at every point; otherwise in one, and the next seed takes the next one.
    `stride`: only at every point of that many, and under the next seed at the ones after them.
    `one_is_enough`: nobody is killed any more once something went wrong.
    """

    def deaths(point: Point, call: Call) -> tuple[Death, ...]:
        if one_is_enough and any(outcome.problems for outcome in gate.outcomes):
            return ()
        if (point.ordinal + seed) % stride:
            return ()
        ways = [Death.BEFORE]
        if call.acts:
            ways += [Death.AFTER, Death.LATE]
        if every_death:
            return tuple(ways)
        # Counted by the seeds that come to this point, so that each way and each question has its turn there.
        turn = seed // stride + zlib.crc32(point.name.encode())
        if not call.acts and turn % QUESTIONS:
            return ()
        return (ways[turn % len(ways)],)

    gate = ForkingGate(flow.name, seed, deaths)
    begun = _cpu_seconds()
    gc.collect()
    gc.freeze()
    try:
        outcome = run(_judged(flow, seed, gate))
    except (Deadlock, Livelock) as error:
        outcome = Outcome(flow.name, seed, None, "", [f"{type(error).__name__}: {error}"])
    except BaseException:
        if gate.report is None:
            raise
        outcome = Outcome(flow.name, seed, None, str(gate.died and gate.died[1]), [traceback.format_exc()])
    if gate.report is not None:
        gate.tell(outcome)
    campaign.seeds += 1
    campaign.cpu_seconds += _cpu_seconds() - begun
    outcomes = [outcome, *gate.outcomes]
    for each in outcomes:
        campaign.add(each)
    return outcomes


async def _judged(flow: Flow, seed: int, gate: PointGate) -> Outcome:
    scene, problems = await play(flow, seed, gate)
    died = str(gate.died[1]) if gate.died is not None else ""
    history = _hashed([point.name for point in gate.points])
    outcome = Outcome(
        flow.name, seed, None, died, problems, scene.loop.time(), len(scene.server.writes), scene.digest(), history
    )
    if isinstance(gate, ForkingGate) and gate.report is not None:
        gate.tell(outcome)
    return outcome


def _hashed(what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def one(flow: str, seed: int, ordinal: int | None, death: Death) -> Outcome:
    """One run again, with a kill or without."""
    gate = PointGate(seed) if ordinal is None else OnePoint(seed, ordinal, death)
    return run(_judged(FLOWS[flow], seed, gate))
