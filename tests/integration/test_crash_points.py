"""Every crash point of every flow, once, under one seed; `make faults` has many."""

from __future__ import annotations

import pytest

from simulator.campaign import described, spread
from simulator.flows import FLOWS

SEED = 2026
SECONDS = 8.0
"""Real time for one flow; the points that are left out on a slow machine are for `make faults`."""


@pytest.mark.parametrize("flow", FLOWS)
def test_every_crash_point_once(flow: str) -> None:
    found = spread(flow, range(SEED, SEED + 2), SECONDS)
    assert found.killed, "no crash point was found"
    assert not found.failures, described(found.failures)
