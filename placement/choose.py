"""The choice of a host, with an explanation short enough for a condition's message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crds.host_pool import Overcommit, PoolPlacement
from placement.facts import Candidate, Request
from placement.filters import FILTERS
from placement.weights import score

_NAMED_AT_MOST = 20
_PLURAL = {"is": "are", "has": "have", "does": "do"}


@dataclass(frozen=True)
class Decision:
    """Where a VM goes: `host`, or None when no host fits; and what was found of each of the others."""

    host: str | None
    scores: Mapping[str, float]
    """Of each fitting host."""
    rejected: Mapping[str, str]
    """Of each other host, why not, as a verb phrase."""
    explanation: str
    """For a person: names each host once, at most 20 of them for one reason."""


def rejection(request: Request, candidate: Candidate, overcommit: Overcommit) -> str | None:
    """The first reason why the host cannot take the VM, as a verb phrase; None when it can."""
    return next((why for f in FILTERS if (why := f(request, candidate, overcommit)) is not None), None)


def choose(request: Request, candidates: Iterable[Candidate], policy: PoolPlacement) -> Decision:
    """The best host for a VM. The order of the candidates does not matter; equal scores go to the first name."""
    hosts = sorted(candidates, key=lambda host: host.name)
    found = {host.name: rejection(request, host, policy.overcommit) for host in hosts}
    rejected = {name: why for name, why in found.items() if why is not None}
    scores = {
        host.name: score(request, host, policy.policy, policy.overcommit) for host in hosts if host.name not in rejected
    }
    best = min(scores, key=lambda name: (-scores[name], name), default=None)
    if request.host is not None and request.host not in found:
        why = f"the pool has no host {request.host}, the only one that spec.placement.host allows"
        return Decision(None, scores, rejected, why)
    return Decision(best, scores, rejected, _explain(best, scores, rejected, policy))


def _explain(best: str | None, scores: Mapping[str, float], rejected: Mapping[str, str], policy: PoolPlacement) -> str:
    total = len(scores) + len(rejected)
    if total == 0:
        return "the pool has no hosts"
    reasons = [_phrase(names, why) for why, names in _grouped(rejected).items()]
    if best is None:
        return f"0 of {total} hosts fit: " + "; ".join(reasons)
    others = [name for name in scores if name != best]
    also = [f"{_names(others)} would do too"] if others else []
    head = f"{best}, by policy {policy.policy} from {len(scores)} of {total} hosts"
    return "; ".join([head, *also, *reasons])


def _grouped(rejected: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, why in rejected.items():
        groups.setdefault(why, []).append(name)
    return groups


def _phrase(names: list[str], why: str) -> str:
    verb, _, rest = why.partition(" ")
    if len(names) > 1:
        verb = _PLURAL.get(verb, verb)
    return f"{_names(names)} {verb} {rest}".rstrip()


def _names(names: list[str]) -> str:
    if len(names) <= _NAMED_AT_MOST:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED_AT_MOST])} and {len(names) - _NAMED_AT_MOST} more"
