"""Killed at every call that it makes, before, after and during it: what users declared comes true all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.campaign import spread
from simulator.findings import Campaign, described
from simulator.flows import FLOWS


@pytest.mark.timeout(0)
@pytest.mark.parametrize("flow", FLOWS)
def test_every_crash_point(
    flow: str, seeds: range, stride: int, seconds: float, record: Path, campaigns: list[Campaign]
) -> None:
    found = spread(flow, seeds, seconds, path=record, stride=stride)
    campaigns.append(found)
    assert not found.failures, described(found.failures)
    assert not found.left, f"there was no time for {found.left} seeds: the same command again goes on with them"
    assert found.killed, "no crash point was found"
