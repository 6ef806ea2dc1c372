"""Every promise in docs/promises.md names tests that there are, and a tier that `make` has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINES = (ROOT / "docs" / "promises.md").read_text().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in LINES if line.startswith("| ")]
PROMISES = [row for row in ROWS if len(row) == 3 and row[0] not in ("promise", "tier") and not row[0].startswith("`")]
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_promises() -> None:
    assert len(PROMISES) > 20


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0])
def test_the_promise_names_tests_that_exist(row: list[str]) -> None:
    _, tier, shown = row
    tiers = re.findall(r"`([a-z-]+)`", tier)
    assert tiers
    assert set(tiers) <= TARGETS
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`", shown)
    assert len(named) == shown.count("::")
    assert named or "make" in shown or ".md" in shown
    for path, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), (path, test)
