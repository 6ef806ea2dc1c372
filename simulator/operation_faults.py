"""What can befall processes that run operations: killed at any call, or many at once with everything else; judged.

`points` counts the calls of one process, `killed` ends it at one of them; `chaos` goes through one seed with several.
"""

from __future__ import annotations

import asyncio
import random
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from engine.operations import Request
from simulator import loop as virtual
from simulator.findings import Death
from simulator.operating import OperationWorld, Process, target
from simulator.points import OnePoint, PointGate
from simulator.toys import Ask, Plan, Trouble, parts

PATIENCE = 1500.0
"""Virtual seconds in which all must have ended."""


@dataclass(frozen=True)
class Story:
    """Operations that are asked for, what goes wrong in the world, and which are deleted after that many seconds."""

    requests: tuple[Request, ...]
    troubles: tuple[tuple[str, str, str], ...] = ()
    """(verb, step, trouble), for ever; an undo fails some times only."""
    deleted_after: float | None = None


def _ask(kind: str, steps: list[dict[str, object]], alone: tuple[str, ...], shared: tuple[str, ...] = ()) -> Request:
    return Request(kind, target("a"), Plan(steps, alone, shared).to_dict())


_CHILD = Plan(parts(2, part_2={"seconds": 2}), alone=("a",)).to_dict()
_PARENT: list[dict[str, object]] = [{"name": "first"}, {"name": "child", "child": _CHILD}, {"name": "last"}]
_SLOW = parts(4, part_2={"seconds": 3})

STORIES: dict[str, Story] = {
    "two in a row": Story((_ask("Build", parts(3), ("a",), ("b",)), _ask("Mend", _SLOW, ("a", "b")))),
    "fails at the end": Story((_ask("Build", _SLOW, ("a",)),), (("make", "part-4", "broken"),)),
    "an undo fails": Story(
        (_ask("Build", parts(4), ("a",)),), (("make", "part-4", "broken"), ("remove", "part-2", "busy"))
    ),
    "a pivot": Story((_ask("Build", parts(4, part_2={"pivot": True}), ("a",)),), (("make", "part-3", "busy"),)),
    "parent and child": Story((_ask("Assemble", _PARENT, ("a",)),)),
    "a child is taken back": Story((_ask("Assemble", _PARENT, ("a",)),), (("make", "last", "broken"),)),
    "a name that is taken": Story((_ask("Build", parts(3, part_3={"name_of": "others/cup"}), ("a",)),)),
    "deleted too late": Story(
        (_ask("Build", parts(4, part_2={"pivot": True}, part_3={"seconds": 4}), ("a",)),), deleted_after=2.0
    ),
    "deleted": Story((_ask("Assemble", _PARENT, ("a",)),), deleted_after=1.0),
}


def told(story: str, seed: int) -> list[str]:
    """The story with nobody killed; what is wrong in the end."""
    return virtual.run(_told(STORIES[story], seed, PointGate(seed)))


def points(story: str, seed: int) -> int:
    """How many calls the process makes in this story."""
    gate = PointGate(seed)
    problems = virtual.run(_told(STORIES[story], seed, gate))
    assert not problems, f"{story}, seed {seed}: {problems}"
    return len(gate.points)


def killed(story: str, seed: int, ordinal: int, death: Death) -> list[str]:
    """The process dies at its call of that number, another one begins; what is wrong in the end."""
    gate = OnePoint(seed, ordinal, death)
    problems = virtual.run(_told(STORIES[story], seed, gate))
    return [f"{gate.died}: {problem}" for problem in problems]


async def _told(story: Story, seed: int, gate: PointGate) -> list[str]:
    world = OperationWorld(seed)
    world.toys.trouble = _passing(story.troubles)
    first = world.process(gate)

    def kill(pause: float) -> None:
        first.kill()
        _loop().call_later(pause, world.process, context=Context())

    gate.kill = kill
    await asyncio.sleep(1.0)
    gate.armed = True
    names = [await world.ask(request) for request in story.requests]
    if story.deleted_after is not None:
        await asyncio.sleep(story.deleted_after)
        for name in names:
            world.delete(name)
    try:
        await world.ended(*names, patience=PATIENCE)
        gate.armed = False
        await _swept(world)
    except AssertionError as error:
        return [str(error), *world.judge()]
    finally:
        gate.armed = False
    return world.judge()


def _passing(troubles: tuple[tuple[str, str, str], ...]) -> Trouble:
    """What is broken stays so; what is busy is so a few times."""
    left = {(verb, step): 5 for verb, step, trouble in troubles if trouble == "busy"}

    def befalls(ask: Ask) -> str | None:
        for verb, step, trouble in troubles:
            if (verb, step) != (ask.verb, ask.step):
                continue
            if trouble != "busy":
                return trouble
            left[verb, step] -= 1
            return trouble if left[verb, step] >= 0 else None
        return None

    return befalls


async def _swept(world: OperationWorld) -> None:
    """Every lock can be had in the end, also those that a dead process has left."""
    locks = tuple("abcdef")
    name = await world.ask(Request("Build", target("a"), Plan(parts(1), alone=locks).to_dict(), once="sweep"))
    await world.ended(name, patience=300)
    await asyncio.sleep(2.0)
    if world.phase(name) != "Succeeded":
        raise AssertionError(world.told(world.get(name)))
    if held := world.holders():
        raise AssertionError(f"held for ever: {held}")


# Several processes


_OBJECTS = tuple("abcdef")


def chaos(seed: int, *, operations: int = 25, processes: int = 3, seconds: float = 240.0) -> OperationWorld:
    """One seed. The world as it is in the end; its `violations` say what is wrong."""
    return virtual.run(_chaos(seed, operations, processes, seconds))


async def _chaos(seed: int, operations: int, processes: int, seconds: float) -> OperationWorld:
    world = OperationWorld(seed)
    rng = random.Random(f"chaos {seed}")
    fleet = [world.process() for _ in range(processes)]
    weather = _Weather(rng)
    world.toys.trouble = weather.befalls
    world.toys.slow = rng.choice((0.0, 0.1, 0.3))
    asking = asyncio.create_task(_asked(world, rng, operations, seconds))
    until = _loop().time() + seconds
    while _loop().time() < until:
        await asyncio.sleep(rng.expovariate(1 / 6.0))
        _befall(rng.choice(fleet), rng)
        for number, process in enumerate(fleet):
            if process.scope.dead or process.failure is not None:
                process.kill()
                fleet[number] = world.process()
    weather.fair = True
    world.toys.slow = 0.0
    for process in fleet:
        process.faults.heal()
    fleet[0].kill()
    world.process()
    try:
        names = await asking
        await world.ended(*names, patience=PATIENCE)
        await _swept(world)
    except AssertionError as error:
        world.violations.append(str(error)[:2000])
    world.violations = world.judge()
    return world


class _Weather:
    """Trouble of the world: some for good, most of it passing."""

    def __init__(self, rng: random.Random) -> None:
        self.fair = False
        self._rng = rng
        self._broken: set[tuple[str, str]] = set()

    def befalls(self, ask: Ask) -> str | None:
        """See toys.Trouble."""
        if self.fair:
            return None
        drawn = self._rng.random()
        if ask.verb == "make" and ((ask.maker, ask.step) in self._broken or drawn < 0.07):
            self._broken.add((ask.maker, ask.step))
            return "broken"
        return "busy" if drawn < 0.12 else "silent" if drawn < 0.2 else None


async def _asked(world: OperationWorld, rng: random.Random, number: int, seconds: float) -> list[str]:
    names = []
    for n in range(number):
        await asyncio.sleep(rng.expovariate(number / (seconds * 0.8)))
        names.append(await world.ask(_drawn(rng, n)))
        if rng.random() < 0.15:
            _loop().call_later(rng.uniform(0.1, 20.0), partial(world.delete, names[-1]), context=Context())
    return names


def _drawn(rng: random.Random, n: int) -> Request:
    wanted = rng.sample(_OBJECTS, rng.randint(1, 3))
    alone = tuple(one for one in wanted if rng.random() < 0.7)
    shared = tuple(one for one in wanted if one not in alone)
    slow = {f"part_{k}": {"seconds": rng.choice((0.5, 5.0))} for k in range(1, 6) if rng.random() < 0.3}
    steps = parts(rng.randint(3, 6), **slow)
    kind = rng.choice(("Build", "Build", "Mend", "Assemble"))
    if kind == "Build" and rng.random() < 0.3:
        steps[rng.randrange(len(steps))]["pivot"] = True
    if kind == "Assemble":
        child = Plan(parts(rng.randint(1, 3)), alone, shared).to_dict()
        steps.insert(rng.randrange(len(steps)), {"name": "child", "child": child, "lock": "Inherit"})
    plan = Plan(steps, alone, shared).to_dict()
    return Request(kind, target(wanted[0]), plan, once=str(n), priority=rng.choice((0, 0, 5)))


def _befall(process: Process, rng: random.Random) -> None:
    """Something happens to one process."""
    faults = process.faults
    match rng.randrange(8):
        case 0:
            process.kill()
        case 1 | 2:
            process.freeze(rng.choice((0.5, 5.0, 12.0, 25.0, 60.0)))
        case 3:
            faults.lost_replies = rng.choice((0.05, 0.3))
        case 4:
            faults.answers = {409: rng.choice((0.1, 0.5)), 429: 0.05, 500: 0.05}
        case 5:
            faults.slow = (0.0, rng.choice((0.3, 0.3, 2.0)))
        case 6:
            faults.silent = not faults.silent
        case _:
            faults.heal()


def _loop() -> virtual.VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, virtual.VirtualLoop)
    return loop
