"""Operations that are parts of others, taken back with them or not; and batches."""

from __future__ import annotations

import asyncio

import pytest

from engine.keys import Object
from engine.operations import Request, batch, refusals
from simulator import loop as virtual
from simulator.operating import OperationWorld, target
from simulator.toys import Plan, parts
from tests.unit.engine.operating import build, conditions, some, states, troubles, virtual_time


def assembly(child: Plan, *, after: int = 1, **of: str) -> Request:
    """Makes a part, has a child do something, and makes more parts."""
    steps = [{"name": "first"}, {"name": "child", "child": child.to_dict(), **of}]
    return build(*steps, *({"name": f"last-{n}"} for n in range(1, after + 1)), type="Assemble")


def children(world: OperationWorld, name: str) -> list[Object]:
    return [o for o in world.server.all("Operation") if o["spec"].get("parent", {}).get("name") == name]


@virtual_time
async def test_a_child_works_under_its_parents_locks_and_the_parent_waits(world: OperationWorld) -> None:
    world.process()
    child = Plan([{"name": "inner", "seconds": 20}], alone=("a",))
    name = await world.ask(assembly(child))
    await world.until(lambda: len(children(world, name)) == 1)
    (inner,) = children(world, name)
    assert inner["metadata"]["labels"] == {"hostler.dev/operation-uid": world.get(name)["metadata"]["uid"]}
    assert inner["spec"]["context"]["correlationId"] == name
    await world.ended(name)
    assert world.phase(name) == "Succeeded" and world.judge() == []
    assert world.order == [name, inner["metadata"]["name"]]
    leases = [w for w in world.server.writes if w.key.name.startswith("lock.")]
    assert len(leases) == 2  # taken once, given back once
    assert world.writes(name) <= 7
    await asyncio.sleep(5)
    assert all("finalizers" not in o["metadata"] for o in world.server.all("Operation"))


@virtual_time
async def test_a_child_that_fails_fails_its_parent_with_its_cause(world: OperationWorld) -> None:
    world.process()
    world.toys.trouble = troubles(("make", "part-2", "broken"))
    name = await world.ask(assembly(Plan(parts(3), alone=("a",))))
    await world.ended(name)
    assert world.phase(name) == "RolledBack" and world.judge() == []
    assert world.get(name)["status"]["firstCause"].endswith("step part-2: make part-2: broken")
    assert list(world.toys.things) == ["others/cup"]


@pytest.mark.parametrize(
    ("compensation", "left", "lock"),
    [
        ("Inherit", 1, "Inherit"),
        ("Inherit", 1, "Own"),
        ("Inherit", 1, "None"),
        ("Own", 3, "Inherit"),
        ("Own", 3, "Own"),
        ("Detached", 3, "Own"),
        ("Detached", 3, "None"),
    ],
)
def test_what_becomes_of_a_child_that_succeeded_when_its_parent_rolls_back(
    compensation: str, left: int, lock: str
) -> None:
    async def inside() -> None:
        world = OperationWorld(3)
        world.process()
        world.toys.trouble = troubles(("make", "last-1", "broken"))
        child = Plan(parts(2), alone=("a",) if lock == "Inherit" else ("b",) if lock == "Own" else ())
        name = await world.ask(assembly(child, compensation=compensation, lock=lock))
        await world.ended(name, *(o["metadata"]["name"] for o in children(world, name)))
        await asyncio.sleep(30)
        assert world.phase(name) == "RolledBack" and len(world.toys.things) == left and world.judge() == []
        rollbacks = [o for o in world.server.all("Operation") if o["spec"]["executionReason"] == "Rollback"]
        assert len(rollbacks) == (compensation == "Inherit")
        for undo in rollbacks:
            conditions = {c["type"]: c["status"] for c in undo["status"]["conditions"]}
            assert undo["status"]["phase"] == "RolledBack" and conditions["Ready"] == "True"
        assert world.holders() == []

    virtual.run(inside())


@virtual_time
async def test_a_child_that_runs_is_cancelled_with_its_parent(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(assembly(Plan(parts(3, part_2={"seconds": 300}), alone=("a",))))
    await world.until(lambda: len(world.toys.things) == 4)
    world.delete(name)
    await world.until(lambda: world.phase(name) == "Gone", 60)
    assert list(world.toys.things) == ["others/cup"] and world.toys.violations == []
    await asyncio.sleep(5)
    assert world.holders() == [] and not world.server.all("Operation")


@virtual_time
async def test_a_grandchild_is_taken_back_too(world: OperationWorld) -> None:
    world.process()
    world.toys.trouble = troubles(("make", "last-1", "broken"))
    inner = Plan([{"name": "deep", "child": Plan(parts(2), alone=("a",)).to_dict()}, {"name": "x"}], alone=("a",))
    name = await world.ask(assembly(inner, type="Assemble"))
    await world.ended(name)
    await asyncio.sleep(30)
    assert world.phase(name) == "RolledBack" and world.judge() == []
    assert list(world.toys.things) == ["others/cup"] and world.holders() == []


@virtual_time
async def test_a_child_that_wants_what_its_parent_has_not_got_is_refused(world: OperationWorld) -> None:
    world.process()
    inherits = await world.ask(assembly(Plan(parts(1), alone=("b",)), after=0))
    await world.ended(inherits)
    assert "which default/" in world.get(inherits)["status"]["firstCause"]
    own = await world.ask(assembly(Plan(parts(1), alone=("a",)), after=0, lock="Own"))
    await world.ended(own)
    assert "wants what its parent" in world.get(own)["status"]["firstCause"] and world.judge() == []


@virtual_time
async def test_one_that_nobody_waits_for_cannot_work_under_anybodys_locks(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(assembly(Plan(parts(1)), after=0, compensation="Detached", lock="Inherit"))
    await world.ended(name)
    assert "one that does not wait for it" in world.get(name)["status"]["firstCause"] and world.judge() == []


@virtual_time
async def test_a_child_with_locks_of_its_own_does_not_queue_behind_those_who_wait_for_its_parent(
    world: OperationWorld,
) -> None:
    world.process()
    child = Plan([{"name": "inner", "seconds": 5}], alone=("b",))
    steps = [{"name": "first", "seconds": 20}, {"name": "child", "child": child.to_dict(), "lock": "Own"}]
    parent = await world.ask(build(*steps, type="Assemble", alone=("a",)))
    await world.until(lambda: world.phase(parent) == "Running")
    waiting = await world.ask(build(*parts(1), alone=("a", "b"), priority=100))
    await world.ended(parent, waiting, patience=120)
    assert world.phase(parent) == world.phase(waiting) == "Succeeded" and world.judge() == []


@virtual_time
async def test_a_namespace_that_ends_takes_back_what_was_done(world: OperationWorld) -> None:
    world.process()
    world.toys.trouble = some(1, "make", "last-1", "silent")
    name = await world.ask(assembly(Plan(parts(2), alone=("a",)), after=2))
    await world.until(lambda: len(world.toys.things) == 5)
    world.end_namespace("default")
    await world.until(lambda: world.phase(name) == "Gone", 200)
    assert list(world.toys.things) == ["others/cup"] and world.toys.violations == []
    (undo,) = world.server.all("Operation")
    assert undo["metadata"]["namespace"] == "hostler-system" and undo["status"]["phase"] == "RolledBack"


def several(*refused: int) -> Request:
    requests = [build(*parts(2), once=str(n), extra={"refuse": "no"} if n in refused else {}) for n in range(4)]
    return batch(requests, target("a"), once="1", requested_by="anna")


@virtual_time
async def test_a_batch_is_all_or_none(world: OperationWorld) -> None:
    world.process()
    refused = await world.ask(several(1, 3))
    await world.ended(refused)
    assert world.phase(refused) == "Failed" and len(world.server.all("Operation")) == 1
    assert conditions(world, refused)["Ready"]["message"].startswith("2 of 4 cannot be done: Build of Toy default/a")
    name = await world.ask(several())
    await world.ended(name)
    begun = children(world, name)
    assert len(begun) == 4 and states(world, name) == ["Done"]
    await world.ended(*(o["metadata"]["name"] for o in begun))
    assert world.judge() == []
    assert {o["spec"]["context"]["correlationId"] for o in begun} == {name}


@virtual_time
async def test_a_batch_can_be_asked_about_before(world: OperationWorld) -> None:
    requests = [build(*parts(1)), build(*parts(1), extra={"refuse": "no room"}), Request("Fly", target("a"))]
    against = await world.asker.scope.run(refusals(world.asker.operations, requests))
    assert [(request.type, refusal.message) for request, refusal in against] == [
        ("Build", "no room"),
        ("Fly", "there is no operation Fly"),
    ]
    assert not world.server.all("Operation")


@virtual_time
async def test_asking_twice_makes_one(world: OperationWorld) -> None:
    names = {await world.ask(build(*parts(2), once="7")) for _ in range(3)}
    assert len(names) == 1 and len(world.server.all("Operation")) == 1
    assert await world.ask(build(*parts(2), once="8")) not in names
