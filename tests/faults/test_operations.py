"""Operations whose process is killed at every call, or one of several with everything else; and bugs this must find.

FAULTS_SEEDS (50): a sixteenth of them for each story, in which each kills at one of FAULTS_STRIDE points (3) and the
next one at the ones after them, in turn in each of three ways; half of them for several processes at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from engine.operations import children, decide, journal, runner
from engine.operations.journal import Phase, State
from engine.operations.runner import Pass
from simulator import loop as virtual
from simulator import toys
from simulator.findings import Death
from simulator.operation_faults import STORIES, chaos, killed, points, told
from tests.unit.engine.operating import crowd

ENOUGH = 25
"""Seeds within which a planted bug must be found."""
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody reads the log of a campaign."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("story", STORIES)
def test_killed_at_every_call_it_ends_complete_or_undone(
    story: str, seeds: range, stride: int, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = 0
    for seed in range(max(stride, len(seeds) // 16)):
        total = points(story, seed)
        for ordinal in range(1 + seed % stride, total + 1, stride):
            death = list(Death)[(ordinal + seed) % 3]
            assert killed(story, seed, ordinal, death) == [], f"seed {seed}, call {ordinal} of {total}, {death}"
            kills += 1
    with capsys.disabled():
        sys.stdout.write(f"\noperations, {story}: {kills} kills\n")
    assert kills > 5


def test_several_processes_with_everything_that_can_befall_them(
    seeds: range, capsys: pytest.CaptureFixture[str]
) -> None:
    phases: dict[str, int] = {}
    refused = 0
    some = seeds[: max(10, len(seeds) // 2)]
    for seed in some:
        world = chaos(seed)
        assert world.violations == [], f"seed {seed}: {world.violations[:3]}"
        refused += world.toys.refused
        for obj in world.server.all("Operation"):
            phases[obj["status"]["phase"]] = phases.get(obj["status"]["phase"], 0) + 1
    with capsys.disabled():
        sys.stdout.write(f"\noperations: {phases}, {refused} late calls refused\n")
    assert phases["Succeeded"] > 5 * len(some) and phases["RolledBack"] > len(some)


@pytest.mark.parametrize("processes", [1, 3])
def test_two_hundred_operations_on_twenty_objects_all_get_their_turn(processes: int) -> None:
    virtual.run(crowd(operations=200, objects=20, processes=processes))


def effect_before_intent(patch: pytest.MonkeyPatch) -> None:
    """A step is done before the journal says that it is begun."""
    write = Pass._write

    async def late(self, new):
        if new.phase is Phase.RUNNING and self.journal.phase is Phase.RUNNING and not new.held_up:
            self.journal = new
            return
        await write(self, new)

    patch.setattr(Pass, "_write", late)


def deletes_what_it_finds(patch: pytest.MonkeyPatch) -> None:
    """An undo takes away whatever has the name."""

    async def undo(self, run):
        await self._ask(run, "remove")

    patch.setattr(toys.Make, "undo", undo)


def last_cause(patch: pytest.MonkeyPatch) -> None:
    """What goes wrong later takes the place of the first cause."""
    failed = journal.undo_failed
    patch.setattr(journal, "undo_failed", lambda j, n, m, now: replace(failed(j, n, m, now), first_cause=m))


def stops_at_a_failed_undo(patch: pytest.MonkeyPatch) -> None:
    """An undo that fails counts as done."""

    async def failed(self, index, error, run, *, again):
        await self._write(journal.undone(self.journal, index, self._now()))

    patch.setattr(Pass, "_undo_failed", failed)


def lets_go_on_the_way_back(patch: pytest.MonkeyPatch) -> None:
    """The locks are released when the way back begins."""
    run = Pass.run

    async def released(self):
        result = await run(self)
        if self.journal.phase is Phase.ROLLING_BACK:
            await self._grant.release()
        return result

    patch.setattr(Pass, "run", released)


def no_way_forward(patch: pytest.MonkeyPatch) -> None:
    """It goes back also after a pivot."""
    for module in (decide, runner):
        patch.setattr(module, "may_go_back", lambda j, work: not j.planned or work is decide.Work.SAGA)


def child_left(patch: pytest.MonkeyPatch) -> None:
    """A child that has succeeded is forgotten when its parent rolls back."""

    async def nothing(self, run, child):
        return None

    patch.setattr(children.ChildStep, "_taken_back", nothing)


def undoes_under_a_call(patch: pytest.MonkeyPatch) -> None:
    """What is undone may still be under way."""
    patch.setattr(Pass, "_calls_under_way", lambda _: 0.0)


def does_not_look(patch: pytest.MonkeyPatch) -> None:
    """After a restart the journal in the cache is believed, and what it says is begun counts as done."""
    forward = Pass._forward

    async def believed(self, index):
        if self._fresh is None and self.journal.steps[index].state is State.RUNNING:
            await self._done(index, "surely")
            return None
        return await forward(self, index)

    patch.setattr(Pass, "_forward", believed)


@pytest.mark.parametrize(
    "plant",
    [
        effect_before_intent,
        deletes_what_it_finds,
        last_cause,
        stops_at_a_failed_undo,
        lets_go_on_the_way_back,
        no_way_forward,
        child_left,
        undoes_under_a_call,
        does_not_look,
    ],
)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    if any(told(story, 1) for story in STORIES):
        return
    for seed in range(ENOUGH):
        if chaos(seed).violations:
            return
    pytest.fail(f"{plant.__name__} was not found by {ENOUGH} seeds: {plant.__doc__}")
