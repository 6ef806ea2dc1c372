"""A process that dies while it runs operations: a slice of its calls, and of seeds; `make faults` goes through all."""

from __future__ import annotations

import asyncio

import pytest

from engine.result import RequeueAfter
from simulator import loop as virtual
from simulator.findings import Death
from simulator.operating import OperationWorld
from simulator.operation_faults import STORIES, chaos, killed, points
from simulator.toys import parts
from tests.unit.engine.operating import build, states, virtual_time


@pytest.mark.parametrize("story", STORIES)
def test_killed_at_some_of_its_calls(story: str) -> None:
    total = points(story, 1)
    assert total > 20
    for number, ordinal in enumerate(range(5, total + 1, 23)):
        assert killed(story, 1, ordinal, list(Death)[number % 3]) == []


def test_several_processes_and_all_that_befalls_them() -> None:
    world = chaos(1, operations=10, seconds=60)
    assert world.violations == [] and len(world.processes) > 3


@virtual_time
async def test_a_process_that_ends_in_good_order_leaves_its_work_to_the_next_at_once(world: OperationWorld) -> None:
    first = world.process()
    name = await world.ask(build(*parts(3, part_2={"seconds": 20})))
    await world.until(lambda: world.phase(name) == "Running" and states(world, name)[1] == "Running")
    await first.stop()
    assert len([w for w in world.holders() if name in w]) == 1
    began = asyncio.get_running_loop().time()
    world.process()
    await world.ended(name)
    assert asyncio.get_running_loop().time() - began < 30
    await asyncio.sleep(2)
    assert world.phase(name) == "Succeeded" and world.judge() == [] and world.holders() == []


@virtual_time
async def test_who_wants_the_lock_of_the_dead_has_their_work_ended_first(world: OperationWorld) -> None:
    """The newcomer's process looks at the abandoned operation only because it finds its locks abandoned."""
    first = world.process()
    dead = await world.ask(build(*parts(3, part_2={"seconds": 10})))
    await world.until(lambda: world.phase(dead) == "Running" and states(world, dead)[1] == "Running")
    first.kill()
    second = world.process()
    reconcile = second.operations.reconcile
    wanted = await world.ask(build(*parts(2), once="2"))

    recover, found = second.operations.recover, []

    async def blind(key):
        return await reconcile(key) if key.name == wanted or found else RequeueAfter(1.0, "blind")

    async def recovered(abandoned, grant):
        found.append(abandoned.operation)
        await recover(abandoned, grant)

    second.controller._reconcilers["Operation"] = blind
    second.operations._keeper.recover = recovered
    second.operations.known.ahead = lambda _: None
    await world.ended(wanted, patience=200)
    assert world.phase(dead) == world.phase(wanted) == "Succeeded" and world.judge() == []
    assert world.order == [dead, wanted] and set(found) == {f"default/{dead}"}


@virtual_time
async def test_locks_of_one_that_never_began_are_free_for_those_who_come_before_it(world: OperationWorld) -> None:
    first = world.process()
    world.toys.fog = True
    early = await world.ask(build(*parts(1)))
    await world.until(lambda: world.phase(early) == "Pending" and len(world.holders()) == 1)
    first.kill()
    world.toys.fog = False
    urgent = await world.ask(build(*parts(1), once="2", priority=5))
    world.process()
    await world.ended(early, urgent, patience=120)
    assert world.order == [urgent, early] and world.judge() == []


@virtual_time
async def test_without_operations_there_is_no_session(world: OperationWorld) -> None:
    world.process()
    await asyncio.sleep(300)
    assert not world.server.all("Lease")
    await world.ended(await world.ask(build(*parts(1))))
    assert [lease for lease in world.server.all("Lease") if lease["metadata"]["name"].startswith("session.")]


@virtual_time
async def test_late_news_of_a_lost_session_costs_nothing_that_the_next_one_holds(world: OperationWorld) -> None:
    process = world.process()
    name = await world.ask(build(*parts(3, part_2={"seconds": 20})))
    await world.until(lambda: world.phase(name) == "Running" and states(world, name)[1] == "Running")
    process.operations._lost()
    began = asyncio.get_running_loop().time()
    await world.ended(name)
    await asyncio.sleep(2)
    assert asyncio.get_running_loop().time() - began < 25 and world.holders() == []


def test_a_lost_session_is_followed_by_another() -> None:
    async def inside() -> None:
        world = OperationWorld(5)
        only = world.process()
        name = await world.ask(build(*parts(3, part_2={"seconds": 30})))
        await world.until(lambda: world.phase(name) == "Running" and states(world, name)[1] == "Running")
        only.freeze(15)
        await world.ended(name)
        assert world.phase(name) == "Succeeded" and world.judge() == []
        sessions = {w.key.name for w in world.server.writes if w.key.name.startswith("session.")}
        assert len(sessions) == 2

    virtual.run(inside())
