"""How tests of operations begin: a world of toys in virtual time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from engine.operations import Request
from simulator import loop as virtual
from simulator.operating import OperationWorld, target
from simulator.toys import Ask, Plan, parts

Test = Callable[[OperationWorld], Coroutine[None, None, None]]


def virtual_time(test: Test) -> Callable[[], None]:
    @functools.wraps(test)
    def wrapped() -> None:
        async def inside() -> None:
            await test(OperationWorld(7))

        virtual.run(inside())

    del wrapped.__wrapped__  # pytest would see the argument
    return wrapped


def build(*steps: dict[str, Any], alone: tuple[str, ...] = ("a",), shared: tuple[str, ...] = (), **of: Any) -> Request:
    """A request for toys; `of`: type, once, priority."""
    kind = of.pop("type", "Build")
    extra = of.pop("extra", {})
    return Request(kind, target("a"), Plan(list(steps), alone, shared).to_dict() | extra, **of)


def troubles(*what: tuple[str, str, str]) -> Callable[[Ask], str | None]:
    """(verb, step, trouble), for ever."""
    return lambda ask: next((bad for verb, step, bad in what if (ask.verb, ask.step) == (verb, step)), None)


def some(times: int, verb: str, step: str, trouble: str) -> Callable[[Ask], str | None]:
    """The first so many calls only."""
    left = [times]

    def befalls(ask: Ask) -> str | None:
        if (ask.verb, ask.step) != (verb, step) or not left[0]:
            return None
        left[0] -= 1
        return trouble

    return befalls


def steps_of(world: OperationWorld, name: str) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in world.get(name)["status"].get("steps") or ()}


def states(world: OperationWorld, name: str) -> list[str]:
    return [step["state"] for step in steps_of(world, name).values()]


def conditions(world: OperationWorld, name: str) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in world.get(name)["status"]["conditions"]}


async def crowd(*, operations: int, objects: int, processes: int) -> None:
    """So many operations, each on three objects and of one of three priorities, all asked for at once."""
    world = OperationWorld(11)
    for _ in range(processes):
        world.process()
    wanted = []
    for n in range(operations):
        one, two, three = (f"t{m}" for m in world.rng.sample(range(objects), 3))
        wanted.append(build(*parts(3), alone=(one, two), shared=(three,), once=str(n), priority=n % 3))
    names = [await world.ask(request) for request in wanted]
    await world.ended(*names, patience=900)
    assert all(world.phase(name) == "Succeeded" for name in names) and world.judge() == []
    assert max(world.writes(name) for name in names) <= 12
    places: list[list[int]] = [[], [], []]
    for place, name in enumerate(world.order):
        places[names.index(name) % 3].append(place)
    means = [sum(of) / len(of) for of in reversed(places)]
    assert means == sorted(means)
    await asyncio.sleep(60)
    assert world.holders() == []
