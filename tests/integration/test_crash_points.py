"""Every eighth crash point of every flow, under two seeds; `make faults` has all of them and many seeds."""

from __future__ import annotations

import pytest

from simulator.campaign import spread
from simulator.findings import described
from simulator.flows import FLOWS

SEEDS = range(2026, 2028)
STRIDE = 8


@pytest.mark.parametrize("flow", FLOWS)
def test_crash_points(flow: str) -> None:
    found = spread(flow, SEEDS, float("inf"), stride=STRIDE)
    assert found.killed, "no crash point was found"
    assert not found.failures, described(found.failures)
