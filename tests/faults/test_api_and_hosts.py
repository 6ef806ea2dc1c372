"""The API server away, slow, silent, set back, made anew; hosts that hang, lost answers, a share that is not there."""

from __future__ import annotations

import pytest

from simulator.loop import run
from tests.faults import stories
from tests.faults.played import Story, play

STORIES: tuple[Story, ...] = (
    stories.api_away,
    stories.api_in_trouble,
    stories.watch_silent,
    stories.api_set_back,
    stories.api_set_back_while_running,
    stories.recreated,
    stories.share_not_mounted,
    stories.start_is_not_answered,
    stories.host_hangs_while_starting,
)
SEEDS = range(5)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_all_is_well_in_the_end(story: Story) -> None:
    play(story, SEEDS)


@pytest.mark.parametrize("verb", ["define", "start", "create_volume", "upload"])
def test_stopped_for_twenty_seconds_between_check_and_send_with_another_controller(verb: str) -> None:
    for seed in SEEDS:
        found = run(_stopped(verb, seed))
        assert not found, "\n".join([f"seed {seed}:", *found])


async def _stopped(verb: str, seed: int) -> list[str]:
    from simulator import oracle
    from simulator.scene import NotSettled, Scene

    scene = Scene(seed)
    gate = stories.FreezeOnce(scene, verb, 20.0)
    scene.gate = gate
    await scene.infrastructure()
    gate.armed = True
    try:
        await stories.three_vms(scene)
        await scene.settled()
    except NotSettled as error:
        return [str(error), *oracle.judge(scene)]
    finally:
        scene.end()
    assert gate.done, f"no call of {verb} was made"
    return oracle.judge(scene)
