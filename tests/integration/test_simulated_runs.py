"""A run is decided by its seed: it can be shown again, also what a campaign has found in a fork of another run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from simulator import campaign
from simulator.findings import Campaign, Death, Outcome, described, table
from simulator.flows import FLOWS
from simulator.loop import Livelock, run
from simulator.points import find, one

# Coroutines of killed controllers are never closed, as nobody closes those of a killed process.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_one_seed_gives_one_run_and_another_seed_another():
    first, again, other = (one("stop", seed, 6, Death.LATE) for seed in (3, 3, 4))
    assert (first.digest, first.history, first.seconds) == (again.digest, again.history, again.seconds)
    assert first.digest != other.digest
    assert first.problems == again.problems == []


def test_seeds_differ_in_order_and_not_in_times_alone():
    assert len({one("stop", seed, None, Death.BEFORE).history for seed in range(4)}) > 1


def test_what_a_campaign_finds_can_be_shown_again():
    outcomes = find(FLOWS["stop"], 3, Campaign("stop"), every_death=True, stride=15)
    killed = [outcome for outcome in outcomes if outcome.point is not None]
    assert len({outcome.point.ordinal for outcome in killed if outcome.point}) > 1
    for outcome in killed:
        assert outcome.point is not None
        assert one("stop", 3, outcome.point.ordinal, Death(outcome.death)).digest == outcome.digest


def test_a_campaign_goes_on_where_it_was(tmp_path: Path):
    path, given = tmp_path / "record", {"every_death": False, "stride": 20}
    campaign.work("stop", [1], 1000.0, path, **given)  # type: ignore[arg-type]
    before = path.read_text()
    found = campaign.spread("stop", range(1, 2), 0.0, path=path, **given)  # type: ignore[arg-type]
    assert path.read_text() == before
    assert (found.seeds, found.left) == (1, 0)
    assert found.killed == sum(found.points.values()) == sum(found.deaths.values()) > 0
    assert campaign.spread("stop", range(1, 3), -1.0, path=path, **given).left == 1  # type: ignore[arg-type]


def test_what_another_version_of_the_code_has_shown_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kind = campaign.kind_of(every_death=False, stride=1)
    with monkeypatch.context() as patch:
        patch.setattr(campaign, "version", lambda: "older")
        campaign.Record(tmp_path / "record").add(1, kind, Campaign("stop", seeds=1))
    assert campaign.Record(tmp_path / "record").known("stop", kind) == {}


def test_findings_add_up_and_keep_what_went_wrong():
    one_part, other = Campaign("stop", seeds=1, left=2), Campaign("stop", seeds=1)
    one_part.add(Outcome("stop", 1, None, "", [], history="a"))
    other.add(Outcome("stop", 2, None, "", ["a guest is gone"], history="b"))
    one_part.merge(Campaign.from_json(other.to_json()))
    assert (one_part.seeds, one_part.left, one_part.histories) == (2, 2, ["a", "b"])
    assert "--flow stop --seed 2" in described(one_part.failures)
    assert len({len(line) for line in table([one_part]).splitlines()}) == 1


def test_time_that_stands_still_is_an_error():
    async def restless() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        run(restless())
