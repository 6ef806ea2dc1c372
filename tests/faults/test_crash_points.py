"""Killed at every call that it makes, before, after and during it: what users declared comes true all the same."""

from __future__ import annotations

import pytest

from simulator.campaign import described, spread
from simulator.flows import FLOWS
from simulator.points import Campaign


@pytest.mark.timeout(0)
@pytest.mark.parametrize("flow", FLOWS)
def test_every_crash_point(flow: str, seeds: range, seconds: float, campaigns: list[Campaign]) -> None:
    found = spread(flow, seeds, seconds)
    campaigns.append(found)
    assert found.killed, "no crash point was found"
    assert not found.failures, described(found.failures)
