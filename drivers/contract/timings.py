"""How long calls took: the table that the simulated driver's latencies are taken from."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping


class Timings:
    """Collects calls; an instance is what a driver calls an observer."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def __call__(self, method: str, seconds: float, outcome: str) -> None:
        """Take note of a call. Only those that the host answered with what was asked for count."""
        if outcome == "ok":
            self._seconds[method].append(seconds)

    @property
    def seconds(self) -> Mapping[str, list[float]]:
        """Durations by method."""
        return self._seconds

    def table(self) -> str:
        """A line per method, as in `drivers.simulated.latencies.MEASURED`."""
        return "\n".join(
            f'    "{method}": Latency({_percentile(seconds, 50):.4f}, {_percentile(seconds, 95):.4f}),'
            f"  # {len(seconds)} calls"
            for method, seconds in sorted(self._seconds.items())
        )


def _percentile(seconds: list[float], percent: int) -> float:
    if len(seconds) == 1:
        return seconds[0]
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]
