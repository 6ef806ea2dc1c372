"""The API server away, slow, silent, set back, made anew; hosts that hang, lost answers, a share that is not there."""

from __future__ import annotations

import pytest

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
    stories.taken_over_from_another,
    stories.start_is_not_answered,
    stories.host_hangs_while_starting,
    stories.host_cut_off_while_starting,
    stories.chosen_host_lost_while_stopped,
    stories.volume_gone,
    *(stories.stopped_before(verb) for verb in ("define", "start", "create_volume", "upload", "placement")),
)
SEEDS = range(5)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_all_is_well_in_the_end(story: Story) -> None:
    play(story, SEEDS)
