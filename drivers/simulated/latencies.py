"""How long calls take, measured on real hosts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import NamedTuple


class Latency(NamedTuple):
    """Seconds from sending a call to its answer."""

    median: float
    high: float
    """95th percentile."""

    def draw(self, rng: random.Random) -> float:
        """One such time: log-normal, as waiting times are."""
        if self.high <= self.median:
            return self.median
        sigma = math.log(self.high / self.median) / 1.645
        return self.median * math.exp(sigma * rng.gauss(0.0, 1.0))


Latencies = Mapping[str, Latency]
"""By name of the call; `*` for all that are not named, `event` for the way of an event to its listeners."""

MEASURED: Latencies = {
    "*": Latency(0.002, 0.010),
    "connect": Latency(0.060, 0.150),
    "copy_volume": Latency(0.100, 0.300),
    "create_volume": Latency(0.030, 0.080),
    "define": Latency(0.005, 0.020),
    "destroy": Latency(0.120, 0.300),
    "event": Latency(0.001, 0.005),
    "facts": Latency(0.020, 0.060),
    "start": Latency(0.350, 0.700),
}
