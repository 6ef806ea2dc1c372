"""Which of the fitting hosts is better. A weight gives 0 (worst) to 100 (best)."""

from __future__ import annotations

from collections.abc import Callable

from crds.host_pool import Overcommit, PlacementPolicy
from placement.facts import Candidate, Request
from placement.filters import free_cpus, free_memory, share

Weight = Callable[[Request, Candidate, Overcommit], float]


def room(request: Request, host: Candidate, overcommit: Overcommit) -> float:
    """Free share of the scarcer of CPU and memory, with the VM on it."""
    memory = share(host.memory, overcommit.memory)
    cpus = share(host.cpus, overcommit.cpu)
    left = (
        (free_memory(host, overcommit) - request.memory) / memory if memory else 0.0,
        (free_cpus(host, overcommit) - request.cpus) / cpus if cpus else 0.0,
    )
    return 100.0 * max(0.0, min(left))


def fullness(request: Request, host: Candidate, overcommit: Overcommit) -> float:
    """The opposite of room."""
    return 100.0 - room(request, host, overcommit)


def nothing(request: Request, host: Candidate, overcommit: Overcommit) -> float:
    """All are alike."""
    return 0.0


WEIGHTS: dict[PlacementPolicy, Weight] = {
    PlacementPolicy.SPREAD: room,
    PlacementPolicy.PACK: fullness,
    PlacementPolicy.NONE: nothing,
}
"""What each policy goes by."""


def score(request: Request, host: Candidate, policy: PlacementPolicy, overcommit: Overcommit) -> float:
    """The host's score under a policy; higher is better, comparable within one decision only."""
    return round(WEIGHTS[policy](request, host, overcommit), 3)
