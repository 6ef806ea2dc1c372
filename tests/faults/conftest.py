"""Campaigns against faults: FAULTS_SEEDS seeds for each flow (50), FAULTS_SECONDS of real time for all (2340).

A seed kills at one of FAULTS_STRIDE points (3), the next seed at the ones after them.

What has been gone through for this version of the code is remembered in the file that FAULTS_RECORD names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from simulator.findings import Campaign, table

_done: list[Campaign] = []


@pytest.fixture
def seeds() -> range:
    """The seeds of this run."""
    return range(int(os.environ.get("FAULTS_SEEDS", "50")))


@pytest.fixture
def stride() -> int:
    """Of how many crash points a seed takes one."""
    return int(os.environ.get("FAULTS_STRIDE", "3"))


@pytest.fixture(scope="session")
def until() -> float:
    """When the time for crash points is over (monotonic)."""
    return time.monotonic() + float(os.environ.get("FAULTS_SECONDS", "2340"))


@pytest.fixture
def seconds(until: float) -> float:
    """Real time that is left; a flow that needs much may have it."""
    return until - time.monotonic()


@pytest.fixture
def record() -> Path:
    """Where what has been gone through is remembered."""
    return Path(os.environ.get("FAULTS_RECORD", ".faults.jsonl"))


@pytest.fixture
def campaigns() -> list[Campaign]:
    """Where a campaign puts itself for the table at the end."""
    return _done


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _done:
        terminalreporter.section("crash points")
        terminalreporter.write_line(table(_done))
