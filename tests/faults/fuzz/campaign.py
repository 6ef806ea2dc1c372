"""What all campaigns share: how much is tried, under which seed, and what became of it.

FUZZ_EXAMPLES multiplies the number of inputs (1 by default; a large number runs for as long as one likes), FUZZ_SEED
repeats a run.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings

SEED = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))
MORE = float(os.environ.get("FUZZ_EXAMPLES") or 1)
TALLY: dict[str, Counter[str]] = {}


def campaign(examples: int, *, shrink: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Settings of one campaign, with that many inputs by default. shrink: look for the smallest input that fails."""
    chosen = settings(
        max_examples=max(1, round(examples * MORE)),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in Phase if shrink or phase not in (Phase.shrink, Phase.explain)],
    )
    return lambda test: seed(SEED)(chosen(test))


def tried(name: str, outcome: str) -> None:
    """Count one input."""
    TALLY.setdefault(name, Counter())[outcome] += 1
