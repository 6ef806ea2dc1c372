"""What has passed for one version of the code, and what was measured meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lab.state import locked


class Results:
    """A JSON file of one version's results; those of any other version are forgotten. No file: memory only."""

    def __init__(self, file: Path | None, version: str) -> None:
        self._file = file
        self._version = version
        held = json.loads(file.read_text()) if file is not None and file.exists() else {}
        held = held if held.get("version") == version else {}
        self.passed: set[str] = set(held.get("passed", ()))
        self.figures: dict[str, list[str]] = held.get("figures", {})
        self._new: dict[str, list[str]] = {}

    def record(self, test: str) -> None:
        """This test has passed, with the figures that it has said."""
        self.passed.add(test)
        if test in self._new:
            self.figures[test] = self._new[test]
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Another slice may have added to the file meanwhile.
        with locked(self._file.with_suffix(".lock")):
            other = Results(self._file, self._version)
            self.passed |= other.passed
            self.figures = {**other.figures, **self.figures}
            document = {"version": self._version, "passed": sorted(self.passed), "figures": self.figures}
            self._file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")

    def say(self, test: str, line: str) -> None:
        """Keep a figure, until the test has passed."""
        self._new.setdefault(test, []).append(line)

    def table(self) -> list[str]:
        """All figures, of this run and, for tests that had passed before, of earlier ones."""
        known = {**self.figures, **self._new}
        return [f"{test.rpartition('::')[2]}: {line}" for test in sorted(known) for line in known[test]]


class Figures:
    """One test's measurements, each against its bound."""

    def __init__(self, results: Results, test: str) -> None:
        self._results = results
        self._test = test

    def within(self, what: str, measured: float, bound: float, unit: str = "s") -> None:
        """Note the figure. AssertionError when it is beyond its bound."""
        self._results.say(self._test, f"{what}: {measured:.4g} {unit} (bound {bound:g})")
        assert measured <= bound, f"{what}: {measured:.4g} {unit}, more than {bound:g}"


def slice_of(tests: Sequence[str], part: str) -> list[str]:
    """Slice `i/n` (1/n to n/n) of these tests: every n-th, so that neighbours, alike in length, are spread."""
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"SLICE={part} is none of 1/n to n/n")
    return list(tests[int(number) - 1 :: int(count)])
