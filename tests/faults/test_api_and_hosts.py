"""The API server away, slow, silent, set back, made anew; hosts that hang, lost answers, a share that is not there."""

from __future__ import annotations

import pytest

from tests.faults import frozen_stories, late_stories, stories
from tests.faults.played import Story, play

IMPORT_CALLS = (
    "create_volume:volume",
    "delete_volume:volume",
    "upload:volume",
    "copy_volume:volume",
    "resize_volume:volume",
    "create_volume:record",
    "upload:record",
    "volume:disks",
)
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
    *(frozen_stories.stopped_before(verb) for verb in ("define", "start", "create_volume", "upload", "placement")),
    frozen_stories.choice_stopped_before_it_is_written_down,
    *(frozen_stories.import_stopped_before(verb) for verb in IMPORT_CALLS),
    frozen_stories.blank_stopped_before_making_room,
    frozen_stories.purge_stopped_before_the_volume_goes,
    frozen_stories.purge_stopped_before_it_is_written_down,
    frozen_stories.take_over_stopped_while_others_purge,
    frozen_stories.growth_stopped_before_a_vm_starts,
    late_stories.host_is_another_machine,
    late_stories.host_is_replaced,
    late_stories.halted_and_started_elsewhere,
    late_stories.refused_and_started_elsewhere,
    late_stories.died_and_started_elsewhere,
    late_stories.deleted_before_it_was_defined,
    late_stories.one_disk_and_two_vms,
    *(late_stories.import_call_is_late("delete_volume", nth) for nth in (4, 8, 9)),
)
SEEDS = range(5)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_all_is_well_in_the_end(story: Story) -> None:
    play(story, SEEDS)
