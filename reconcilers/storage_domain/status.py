"""A StorageDomain's status, computed from facts in one place."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crds.storage_domain import StorageDomain
from engine.conditions import condition
from reconcilers.standing import Verdict, conditions
from reconcilers.storage_domain.decide import Plan
from reconcilers.storage_domain.space import Low


def status(
    domain: StorageDomain,
    plan: Plan,
    verdict: Verdict,
    figures: tuple[str | None, str | None],
    low: Low | None,
    disks: int,
    now: datetime,
) -> dict[str, Any]:
    """The whole descriptive status; the id is critical and written elsewhere.

    `figures`: capacity and free space, rounded. `low` None: no host can be asked.
    """
    generation = domain.metadata.generation
    if low is not None:
        reason = "SpaceLow" if low.is_low else "SpaceEnough"
        space = condition("SpaceLow", low.is_low, reason, low.message, generation)
    else:
        space = condition("SpaceLow", None, "NotReachable", "no host can be asked", generation)
    return {
        "phase": str(plan.phase),
        "capacity": figures[0],
        "available": figures[1],
        "hosts": [reach.to_dict() for reach in plan.reach],
        "diskCount": disks,
        "conditions": conditions(domain, verdict, now, space),
    }
