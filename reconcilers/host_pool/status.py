"""A HostPool's status, computed from facts in one place."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crds.host_pool import HostPool
from reconcilers.host_pool.decide import Observed
from reconcilers.standing import Verdict, conditions


def status(pool: HostPool, verdict: Verdict, seen: Observed, now: datetime) -> dict[str, Any]:
    """The whole descriptive status; the baseline is critical and written elsewhere."""
    return {
        "hosts": len(seen.members),
        "readyHosts": sum(1 for member in seen.members if member.usable),
        "conditions": conditions(pool, verdict, now),
    }
