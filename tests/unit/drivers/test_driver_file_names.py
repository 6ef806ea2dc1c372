"""Names of files that a scan saw: those that begin so, in order, whatever scan came before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.model import FileNames

NAMES = st.frozensets(st.text("ab.", min_size=1, max_size=4), max_size=12)


@given(st.lists(NAMES, min_size=1, max_size=4), st.text("ab.", max_size=2), st.integers(0, 3))
def test_whatever_was_scanned_and_ordered_before(scans: list[frozenset[str]], beginning: str, ordered: int) -> None:
    last = FileNames()
    for number, found in enumerate(scans):
        last = FileNames(found).after(last)
        if number >= ordered:
            last.starting("")
    assert last.starting(beginning) == tuple(sorted(name for name in scans[-1] if name.startswith(beginning)))
    assert last == scans[-1]
