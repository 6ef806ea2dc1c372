"""Every row of docs/bad-input.md names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split(" | ")]
    for line in (ROOT / "docs" / "bad-input.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| input")
]


def test_there_are_rows() -> None:
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_row_is_whole_and_its_test_exists(row: list[str]) -> None:
    assert len(row) == 6
    assert all(row)
    found = re.fullmatch(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`", row[5].rstrip(" |"))
    assert found is not None, row[5]
    assert re.search(rf"^(async )?def {found[2]}\(", (ROOT / found[1]).read_text(), re.MULTILINE), row[5]
