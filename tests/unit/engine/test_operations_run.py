"""One operation from its request to its end: forward, back, and what is written of it."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from simulator import loop as virtual
from simulator.operating import OperationWorld
from simulator.toys import Build, Make, parts
from tests.unit.engine.operating import build, conditions, some, states, steps_of, troubles, virtual_time


@pytest.mark.parametrize("steps", [1, 6, 8])
def test_a_clean_run_costs_one_write_a_step_and_few_more(steps: int) -> None:
    async def inside() -> None:
        world = OperationWorld(7)
        world.process()
        name = await world.ask(build(*parts(steps), shared=("b",)))
        await world.ended(name)
        await asyncio.sleep(5)
        assert world.phase(name) == "Succeeded" and world.judge() == []
        assert world.writes(name) == steps + 3 <= 12  # made; a write for each step; the end; the finalizer
        assert world.holders() == [] and "finalizers" not in world.get(name)["metadata"]
        status = world.get(name)["status"]
        assert status["progress"] == 100 and "step" not in status and "locks" not in status
        assert all(step["startedAt"] <= step["finishedAt"] for step in steps_of(world, name).values())
        assert [conditions(world, name)[kind]["status"] for kind in ("Ready", "Reconciling", "Stalled")] == [
            "True",
            "False",
            "False",
        ]

    virtual.run(inside())


@virtual_time
async def test_events_and_metrics_tell_what_happened(world: OperationWorld) -> None:
    def counted(result: str) -> float:
        labels = {"type": "Build", "result": result}
        return REGISTRY.get_sample_value("hostler_operation_seconds_count", labels) or 0.0

    before = counted("Succeeded"), counted("RolledBack")
    process = world.process()
    process.scope.run(process.recorder.run())
    world.toys.trouble = troubles(("make", "bad", "broken"))
    good = await world.ask(build(*parts(2)))
    bad = await world.ask(build(*parts(1), {"name": "bad"}))
    await world.ended(good, bad)
    await asyncio.sleep(5)
    told = [(e["regarding"]["name"], e["type"], e["reason"], e["note"]) for e in world.server.all("Event")]
    cause = "step bad: make bad: broken"
    assert {one for one in told if one[0] == good} == {
        (good, "Normal", "Started", "2 steps"),
        (good, "Normal", "Succeeded", "Build of Toy default/a"),
    }
    assert {one for one in told if one[0] == bad} == {
        (bad, "Normal", "Started", "2 steps"),
        (bad, "Warning", "RollingBack", cause),
        (bad, "Warning", "RolledBack", cause),
    }
    assert (counted("Succeeded"), counted("RolledBack")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("bad", range(1, 6))
def test_an_error_at_any_step_leaves_nothing(bad: int) -> None:
    async def inside() -> None:
        world = OperationWorld(bad)
        world.process()
        world.toys.trouble = troubles(("make", f"part-{bad}", "broken"))
        name = await world.ask(build(*parts(5)))
        await world.ended(name)
        await asyncio.sleep(5)
        assert world.phase(name) == "RolledBack" and world.judge() == [] and world.holders() == []
        assert list(world.toys.things) == ["others/cup"]
        assert world.get(name)["status"]["firstCause"] == f"step part-{bad}: make part-{bad}: broken"
        assert states(world, name) == ["Undone"] * bad + ["Pending"] * (5 - bad)
        assert conditions(world, name)["Stalled"]["message"].endswith("broken")

    virtual.run(inside())


@virtual_time
async def test_what_may_pass_is_tried_again_and_shown(world: OperationWorld) -> None:
    world.process()
    world.toys.trouble = some(3, "make", "part-2", "busy")
    name = await world.ask(build(*parts(3)))
    await world.until(lambda: steps_of(world, name).get("part-2", {}).get("attempts") == 2)
    assert steps_of(world, name)["part-2"]["message"] == "make part-2: busy"
    assert "has failed 2 times" in conditions(world, name)["Reconciling"]["message"]
    await world.ended(name)
    assert world.phase(name) == "Succeeded" and world.judge() == []


@virtual_time
async def test_what_does_not_pass_is_given_up_in_time(world: OperationWorld) -> None:
    world.process()
    world.toys.trouble = troubles(("make", "part-2", "busy"))
    name = await world.ask(build(*parts(3)))
    await world.ended(name)
    assert world.phase(name) == "RolledBack" and world.judge() == []
    assert asyncio.get_running_loop().time() > 300


@virtual_time
async def test_an_undo_that_fails_keeps_none_of_the_others_from_being_undone(world: OperationWorld) -> None:
    world.process()
    bad = {"on": True}

    def befalls(ask):
        if (ask.verb, ask.step) == ("make", "part-4"):
            return "broken"
        return "busy" if ask.verb == "remove" and ask.step in ("part-2", "part-3") and bad["on"] else None

    world.toys.trouble = befalls
    name = await world.ask(build(*parts(4)))
    await world.until(lambda: states(world, name) == ["Undone", "UndoFailed", "UndoFailed", "Undone"])
    await asyncio.sleep(400)
    assert all(steps_of(world, name)[step]["attempts"] > 4 for step in ("part-2", "part-3"))
    stalled = conditions(world, name)["Stalled"]
    assert stalled["status"] == "True" and "could not be undone: part-2: remove part-2: busy" in stalled["message"]
    bad["on"] = False
    await world.ended(name)
    assert world.phase(name) == "RolledBack" and world.judge() == []
    assert world.get(name)["status"]["firstCause"] == "step part-4: make part-4: broken"


@virtual_time
async def test_after_a_pivot_it_only_goes_forward(world: OperationWorld) -> None:
    world.process()
    bad = {"on": True}
    world.toys.trouble = lambda ask: "broken" if ask.verb == "make" and ask.step == "part-3" and bad["on"] else None
    name = await world.ask(build(*parts(3, part_2={"pivot": True})))
    await world.until(lambda: steps_of(world, name).get("part-3", {}).get("attempts") == 1)
    assert conditions(world, name)["Stalled"]["status"] == "True"
    assert conditions(world, name)["Ready"]["reason"] == "StepFailed"
    world.delete(name)
    await world.until(lambda: conditions(world, name)["Ready"]["reason"] == "TooLateToCancel")
    bad["on"] = False
    await world.until(lambda: world.phase(name) == "Gone")
    assert len(world.toys.things) == 4 and world.toys.violations == []


@virtual_time
async def test_a_pivot_that_surely_did_not_come_about_can_be_taken_back(world: OperationWorld) -> None:
    world.process()
    world.toys.trouble = troubles(("make", "part-2", "broken"))
    name = await world.ask(build(*parts(3, part_2={"pivot": True})))
    await world.ended(name)
    assert world.phase(name) == "RolledBack" and world.judge() == []


@virtual_time
async def test_forward_only_work_stays_and_is_tried_again(world: OperationWorld) -> None:
    world.process()
    bad = {"on": True}
    world.toys.trouble = lambda ask: "broken" if ask.verb == "make" and ask.step == "part-2" and bad["on"] else None
    name = await world.ask(build(*parts(3), type="Mend"))
    await world.until(lambda: steps_of(world, name).get("part-2", {}).get("attempts") == 1)
    assert conditions(world, name)["Stalled"]["status"] == "True"
    assert world.toys.things.keys() == {"others/cup", f"{world.get(name)['metadata']['uid']}/part-1"}
    bad["on"] = False
    await world.ended(name)
    assert world.phase(name) == "Succeeded" and world.judge() == []


@virtual_time
async def test_deleting_cancels_until_the_pivot(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(build(*parts(3, part_2={"seconds": 60})))
    await world.until(lambda: world.get(name).get("status", {}).get("step") == "2/3 part-2")
    world.delete(name)
    await world.until(lambda: world.phase(name) == "Gone")
    assert list(world.toys.things) == ["others/cup"] and world.toys.violations == []
    await asyncio.sleep(5)
    assert world.holders() == []


@virtual_time
async def test_deleting_does_not_stop_what_only_goes_forward(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(build(*parts(3, part_2={"seconds": 60}), type="Mend"))
    await world.until(lambda: world.get(name).get("status", {}).get("step") == "2/3 part-2")
    world.delete(name)
    await world.until(lambda: world.phase(name) == "Gone")
    assert len(world.toys.things) == 4 and world.toys.violations == []
    assert world.writes(name) == 3 + 3 + 3  # the deletion; that it is too late; how far the slow step is


@virtual_time
async def test_what_cannot_be_planned_yet_says_why(world: OperationWorld) -> None:
    world.process()
    world.toys.fog = True
    name = await world.ask(build(*parts(2)))
    await world.until(lambda: world.phase(name) == "Pending")
    stalled = conditions(world, name)["Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "CannotPlan") and "fog" in stalled["message"]
    world.toys.fog = False
    await world.ended(name)
    assert world.phase(name) == "Succeeded" and world.judge() == []


@virtual_time
async def test_a_step_that_this_version_does_not_know_stays_as_it_is(world: OperationWorld) -> None:
    class Older(Build):
        steps = (Make,)

    first = world.process()
    name = await world.ask(build(*parts(3, part_2={"pivot": True, "seconds": 30})))
    await world.until(lambda: world.phase(name) == "Running" and states(world, name)[1] == "Running")
    await first.stop()
    second = world.process()
    second.operations.types = {"Build": Older()}
    await world.until(lambda: conditions(world, name)["Stalled"]["reason"] == "UnknownStep")
    assert "knows no step Last of Build" in conditions(world, name)["Stalled"]["message"]
    await second.stop()
    world.process()
    await world.ended(name)
    assert world.phase(name) == "Succeeded" and world.judge() == []


@virtual_time
async def test_what_is_refused_writes_nothing_but_why(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(build(*parts(3), extra={"refuse": "8 GiB are missing"}))
    await world.ended(name)
    await asyncio.sleep(5)
    assert world.phase(name) == "Failed" and conditions(world, name)["Stalled"]["reason"] == "NoRoom"
    assert conditions(world, name)["Stalled"]["message"] == "8 GiB are missing"
    assert world.toys.calls == 0 and world.writes(name) == 3 and world.holders() == []


@virtual_time
async def test_somebody_elses_thing_is_neither_used_nor_taken_away(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(build(*parts(3, part_2={"name_of": "others/cup"})))
    await world.ended(name)
    assert world.phase(name) == "RolledBack" and world.judge() == []
    assert world.toys.things["others/cup"].maker == "others"


@virtual_time
async def test_an_answer_that_did_not_come_is_waited_out_before_anything_is_undone(world: OperationWorld) -> None:
    world.process()
    times = []

    def befalls(ask):
        if ask.verb == "make" and ask.step == "part-2":
            times.append(asyncio.get_running_loop().time())
            return "silent"
        if ask.verb == "remove":
            times.append(asyncio.get_running_loop().time())
        return "busy" if ask.verb == "look" and ask.step == "part-2" and len(times) < 2 else None

    world.toys.trouble = befalls
    name = await world.ask(build(*parts(2)))
    await world.until(lambda: len(times) == 1)
    world.delete(name)
    await world.until(lambda: world.phase(name) == "Gone")
    assert times[1] - times[0] >= 4.9 and list(world.toys.things) == ["others/cup"]


@virtual_time
async def test_slow_work_shows_how_far_it_is_and_writes_little(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(build(*parts(2, part_1={"seconds": 900})))
    await world.until(lambda: steps_of(world, name).get("part-1", {}).get("progress") == 50)
    await world.until(lambda: conditions(world, name)["Ready"]["reason"] == "TakesLong", 700)
    await world.ended(name)
    assert world.phase(name) == "Succeeded" and world.writes(name) <= 8


@virtual_time
async def test_paused_is_hands_off(world: OperationWorld) -> None:
    world.process()
    name = await world.ask(build(*parts(3, part_2={"seconds": 30})))
    await world.until(lambda: world.get(name).get("status", {}).get("step") == "2/3 part-2")
    world.annotate(name, "hostler.dev/paused", "anna")
    await asyncio.sleep(100)
    assert states(world, name) == ["Done", "Running", "Pending"] and "Paused" in conditions(world, name)
    calls = world.toys.calls
    await asyncio.sleep(100)
    assert world.toys.calls == calls
    world.annotate(name, "hostler.dev/paused", None)
    await world.ended(name)
    assert world.judge() == []
