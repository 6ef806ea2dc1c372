"""A Network's status, computed from facts in one place."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crds.network import Network
from reconcilers.network.decide import Plan
from reconcilers.standing import conditions


def status(network: Network, plan: Plan, now: datetime) -> dict[str, Any]:
    """The whole status."""
    return {
        "hosts": [host.to_dict() for host in plan.hosts],
        "conditions": conditions(network, plan.verdict, now),
    }
