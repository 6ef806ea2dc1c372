"""How long to wait between tries to connect."""

from __future__ import annotations

import random
from collections.abc import Iterator

FIRST_DELAY = 0.5
LAST_DELAY = 15.0


def delays(rng: random.Random | None = None) -> Iterator[float]:
    """Seconds to wait before each further try to connect, with jitter (rng: where it comes from), for ever."""
    uniform = (random if rng is None else rng).uniform
    delay = FIRST_DELAY
    while True:
        yield delay * uniform(0.8, 1.2)
        delay = min(delay * 2, LAST_DELAY)
