"""The campaigns' counts, as a table at the end of the run."""

from __future__ import annotations

import pytest

from tests.faults.fuzz.campaign import SEED, TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many inputs each campaign tried, and what became of them."""
    if not TALLY:
        return
    terminalreporter.section(f"campaigns (FUZZ_SEED={SEED})")
    for name, counts in TALLY.items():
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in counts.most_common())
        terminalreporter.write_line(f"{name:32} {counts.total():7}  {outcomes}")
