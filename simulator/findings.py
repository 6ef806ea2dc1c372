"""What a campaign finds: crash points, what came of a kill at one, and all of it counted."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Death(StrEnum):
    """When the controller dies, seen from the call."""

    BEFORE = "before"
    """Before it is sent."""
    AFTER = "after"
    """When it has been carried out, and the answer has not come."""
    LATE = "late"
    """When it was sent; it is carried out only after the next controller has begun."""


@dataclass(frozen=True)
class Point:
    """One crash point: the call, and which of its like it is in its run."""

    ordinal: int
    call: str
    nth: int

    @property
    def name(self) -> str:
        """What it is called in every run."""
        return f"{self.call}#{self.nth}"


@dataclass
class Outcome:
    """What came of one run."""

    flow: str
    seed: int
    point: Point | None
    death: str
    problems: list[str]
    seconds: float = 0.0
    """Virtual time."""
    writes: int = 0
    digest: str = ""
    """Of everything that happened: equal for two runs only if they were the same."""
    history: str = ""
    """Of the calls that passed the gate and their order, whenever they were made."""

    @property
    def repeat(self) -> str:
        """The command that shows it again."""
        at = f" --kill {self.point.ordinal} --death {self.death}" if self.point is not None else ""
        return f"python -m simulator run --flow {self.flow} --seed {self.seed}{at}"


@dataclass
class Campaign:
    """What a campaign over one flow and some seeds has found."""

    flow: str
    seeds: int = 0
    points: dict[str, int] = field(default_factory=dict)
    """Kills at each point, over all seeds and ways to die."""
    deaths: dict[str, int] = field(default_factory=dict)
    """Kills by the way to die."""
    histories: list[str] = field(default_factory=list)
    """Those of the runs in which nobody was killed, each once."""
    killed: int = 0
    left: int = 0
    """Seeds for which there was no time."""
    cpu_seconds: float = 0.0
    virtual_seconds: float = 0.0
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        self.virtual_seconds += outcome.seconds
        if outcome.point is not None:
            self.killed += 1
            self.points[outcome.point.name] = self.points.get(outcome.point.name, 0) + 1
            self.deaths[outcome.death] = self.deaths.get(outcome.death, 0) + 1
        elif outcome.history and outcome.history not in self.histories:
            self.histories.append(outcome.history)
        if outcome.problems:
            self.failures.append(outcome)

    def merge(self, part: Campaign) -> None:
        """Put the findings of a part to these."""
        self.seeds += part.seeds
        for counts, more in ((self.points, part.points), (self.deaths, part.deaths)):
            for name, kills in more.items():
                counts[name] = counts.get(name, 0) + kills
        self.histories += [each for each in part.histories if each not in self.histories]
        self.killed += part.killed
        self.left += part.left
        self.cpu_seconds += part.cpu_seconds
        self.virtual_seconds += part.virtual_seconds
        self.failures += part.failures

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Campaign:
        """What another process found."""
        said = json.loads(text)
        failures = [
            Outcome(**{**each, "point": Point(**each["point"]) if each["point"] else None}) for each in said["failures"]
        ]
        return cls(**{**said, "failures": failures})


_COLUMNS = ("seeds", "histories", "points", "kills", *Death, "violations", "seeds left", "virtual hours", "CPU s")


def table(campaigns: Collection[Campaign]) -> str:
    """What was done and found, a line for each flow and one for all."""
    total = Campaign("all")
    for each in campaigns:
        total.merge(each)
    lines = [f"{'flow':8}" + "".join(f"  {name}" for name in _COLUMNS)]
    lines += [_line(each, len(each.points)) for each in campaigns]
    # Points of two flows are two points, whatever they are called.
    return "\n".join([*lines, _line(total, sum(len(each.points) for each in campaigns))])


def _line(found: Campaign, points: int) -> str:
    figures = (
        found.seeds,
        len(found.histories),
        points,
        found.killed,
        *(found.deaths.get(death, 0) for death in Death),
        len(found.failures),
        found.left,
        round(found.virtual_seconds / 3600, 1),
        round(found.cpu_seconds),
    )
    shown = (f"  {figure:>{len(name)}}" for name, figure in zip(_COLUMNS, figures, strict=True))
    return f"{found.flow:8}" + "".join(shown)


def described(failures: Iterable[Outcome], limit: int = 10) -> str:
    """The first failures, each with the command that shows it again."""
    found = list(failures)
    lines = []
    for failure in found[:limit]:
        at = f"killed {failure.death} {failure.point.name}" if failure.point is not None else "not killed"
        lines += [f"{failure.flow}, seed {failure.seed}, {at}: {failure.repeat}"]
        lines += [f"    {problem}" for problem in failure.problems]
    if len(found) > limit:
        lines.append(f"… and {len(found) - limit} more")
    return "\n".join(lines)
