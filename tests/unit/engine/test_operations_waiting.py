"""Operations that wait for one another: in order, in words, cheaply; and what ended ones leave."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc

from engine.keys import Key
from engine.operations import Retention, order, requests
from engine.operations.order import FINALIZER
from engine.operations.turns import Turns
from simulator import loop as virtual
from simulator.operating import OperationWorld
from simulator.toys import parts
from tests.unit.engine.operating import build, conditions, crowd, virtual_time


@virtual_time
async def test_who_waits_says_for_whom_and_is_next(world: OperationWorld) -> None:
    world.process()
    first = await world.ask(build(*parts(1, part_1={"seconds": 30}), once="1"))
    await world.until(lambda: world.phase(first) == "Running")
    second = await world.ask(build(*parts(1), once="2"))
    await world.until(lambda: world.phase(second) == "Pending")
    ready = conditions(world, second)["Ready"]
    assert ready["reason"] == "Waiting" and ready["message"] == f"Toy default/a is held by default/{first}"
    began = asyncio.get_running_loop().time()
    await world.ended(first, second)
    assert asyncio.get_running_loop().time() - began < 31.5 and world.judge() == []
    assert world.writes(second) == 5


@virtual_time
async def test_priority_then_age_decide(world: OperationWorld) -> None:
    world.process()
    held = await world.ask(build(*parts(1, part_1={"seconds": 20}), once="0"))
    await world.until(lambda: world.phase(held) == "Running")
    names = {}
    for name, priority in (("old", 0), ("young", 0), ("high", 5)):
        names[await world.ask(build(*parts(2), once=name, priority=priority))] = name
        await asyncio.sleep(1.5)
    await world.ended(*names)
    assert [names[name] for name in world.order if name in names] == ["high", "old", "young"]


@virtual_time
async def test_some_share_and_who_wants_it_alone_is_not_overtaken(world: OperationWorld) -> None:
    world.process()
    slow = {"part_1": {"seconds": 20}}
    shared = [await world.ask(build(*parts(1, **slow), alone=(), shared=("a",), once=str(n))) for n in range(2)]
    await world.until(lambda: all(world.phase(name) == "Running" for name in shared), 10)
    await asyncio.sleep(1.5)
    alone = await world.ask(build(*parts(1), once="alone"))
    await asyncio.sleep(1.5)
    late = await world.ask(build(*parts(1), alone=(), shared=("a",), once="late"))
    await world.ended(alone, late)
    assert world.order == [*world.order[:2], alone, late] and world.judge() == []


@virtual_time
async def test_one_that_waits_can_be_cancelled(world: OperationWorld) -> None:
    world.process()
    first = await world.ask(build(*parts(1, part_1={"seconds": 60}), once="1"))
    second = await world.ask(build(*parts(1), once="2"))
    await world.until(lambda: world.phase(second) == "Pending")
    world.delete(second)
    await world.until(lambda: world.phase(second) == "Gone", 10)
    await world.ended(first)
    assert world.judge() == []


@virtual_time
async def test_one_that_waits_no_longer_fails(world: OperationWorld) -> None:
    world.process()
    first = await world.ask(build(*parts(1, part_1={"seconds": 200}), once="1"))
    await world.until(lambda: world.phase(first) == "Running")
    second = await world.ask(build(*parts(1), type="Hurry"))
    await world.ended(second, patience=100)
    assert asyncio.get_running_loop().time() > 60 and world.phase(second) == "Failed"
    ready = conditions(world, second)["Ready"]
    assert ready["reason"] == "WaitedTooLong" and ready["message"].endswith(f"is held by default/{first}")
    await world.ended(first)
    assert world.judge() == []


@virtual_time
async def test_one_whose_deletion_the_watch_has_lost_is_found_gone(world: OperationWorld) -> None:
    process = world.process()
    first = await world.ask(build(*parts(1, part_1={"seconds": 20}), once="1"))
    await world.until(lambda: world.phase(first) == "Running")
    gone = await world.ask(build(*parts(1), once="2"))
    await world.until(lambda: world.phase(gone) == "Pending")
    key = Key("Operation", "default", gone)
    hear = process.event
    process.event = lambda type_, obj: hear(type_, obj) if type_ != "DELETED" else None
    world.server.take_finalizer(key, FINALIZER)
    world.server.erase(key)
    await world.ended(first)
    last = await world.ask(build(*parts(1), once="3"))
    await world.ended(last)
    assert world.holders() == [] and process.cache.get(key) is None


@virtual_time
async def test_one_whose_type_nobody_knows_says_so(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(build(*parts(1)))
    world.server.erase(Key("Operation", "default", name))
    definition = world.asker.operations.types
    world.asker.operations.types = {**definition, "Fly": definition["Build"]}
    strange = await world.ask(build(*parts(1), type="Fly"))
    await world.until(lambda: world.phase(strange) == "Pending")
    assert conditions(world, strange)["Stalled"]["reason"] == "UnknownType"


def test_many_operations_on_few_objects_all_get_their_turn() -> None:
    virtual.run(crowd(operations=40, objects=8, processes=2))


def test_a_thousand_that_wait_are_cheap() -> None:
    async def inside() -> None:
        world = OperationWorld(5)
        home = world.asker.operations
        orders = []
        for n in range(1000):
            alone, shared = (f"t{n % 20}", f"t{(n * 7 + 1) % 20}"), (f"t{(n * 3 + 2) % 20}",)
            request = build(*parts(8), alone=tuple(dict.fromkeys(alone)), shared=() if shared[0] in alone else shared)
            orders.append(requests.ordered(home, request, name=f"op-{n}"))
        body = json.dumps(order.render_spec(orders[0]))
        assert len(body) < 5_000
        tracemalloc.start()
        turns = Turns()
        for one in orders:
            turns.put(one, running=False)
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert used / 1000 < 5_000
        began = time.process_time()
        free = [one for one in orders if turns.ahead(one.key) is None]
        for one in orders:
            turns.remove(one.key)
        assert (time.process_time() - began) / 1000 < 0.001
        assert free and len(turns) == 0

    virtual.run(inside())


def test_ended_ones_go_by_age_and_by_number() -> None:
    async def inside() -> None:
        world = OperationWorld(3, Retention(100, 1000, succeeded_count=3, failed_count=3))
        world.process()
        failing = await world.ask(build(*parts(1), once="bad", extra={"refuse": "no"}))
        names = [await world.ask(build(*parts(1), once=str(n))) for n in range(5)]
        await world.ended(failing, *names)
        await world.until(lambda: sum(world.phase(name) == "Gone" for name in names) == 2, 20)
        assert world.phase(failing) == "Failed"
        await world.until(lambda: all(world.phase(name) == "Gone" for name in names), 200)
        assert asyncio.get_running_loop().time() > 100 and world.phase(failing) == "Failed"
        await world.until(lambda: world.phase(failing) == "Gone", 1200)

    virtual.run(inside())
