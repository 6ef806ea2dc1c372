"""What a benchmark says: figures with their targets, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured thing. Lower is better."""

    name: str
    unit: str
    values: tuple[float, ...]
    """One of each repetition."""
    must: float | None = None
    """More than this is a failure; None: only reported."""
    aim: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def holds(self) -> bool:
        """Whether the median is within what it must be."""
        return self.must is None or self.median <= self.must


def table(figures: Iterable[Figure]) -> str:
    """The figures for people, a line each."""
    rows: list[tuple[str, ...]] = [("what", "unit", "min", "median", "max", "must", "aim", "")]
    for figure in figures:
        bounds = ["–" if bound is None else _number(bound) for bound in (figure.must, figure.aim)]
        spread = [_number(value) for value in (min(figure.values), figure.median, max(figure.values))]
        rows.append((figure.name, figure.unit, *spread, *bounds, _verdict(figure)))
    return "\n".join(_lines(rows))


def document(figures: Sequence[Figure], conditions: dict[str, str]) -> str:
    """The figures for programs."""
    found = [{**asdict(figure), "median": figure.median, "holds": figure.holds} for figure in figures]
    return json.dumps({"conditions": conditions, "figures": found}, indent=2)


def _verdict(figure: Figure) -> str:
    if not figure.holds:
        return "TOO MUCH"
    return "aim" if figure.aim is not None and figure.median <= figure.aim else "ok" if figure.must is not None else ""


def _lines(rows: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield f"| {' | '.join([*names, *numbers])} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
