"""How a network stands, as a pure function of what its hosts have."""

from __future__ import annotations

from dataclasses import dataclass

from crds.network import HostNetwork, Network
from reconcilers.relations import listed
from reconcilers.standing import Verdict, progressing, ready, stalled

WAITING_BOUND = 60.0
MISSING_SECONDS = 15.0
"""Seconds between two looks while a bridge is missing."""


@dataclass(frozen=True)
class HostFact:
    """One host of the network's pools; `bridges` is None while it cannot be asked."""

    name: str
    bridges: frozenset[str] | None


@dataclass(frozen=True)
class Observed:
    """What `decide` goes by."""

    hosts: tuple[HostFact, ...]
    unknown_pools: tuple[str, ...] = ()
    audit_seconds: float = 300.0
    users: tuple[str, ...] = ()
    """VMs with a card in the network, for a deletion."""


@dataclass(frozen=True)
class Plan:
    """How the network stands on each host and in all."""

    hosts: tuple[HostNetwork, ...]
    verdict: Verdict
    again: float
    release: bool = False


def decide(network: Network, seen: Observed) -> Plan:
    """How the network stands now."""
    hosts = tuple(_host(network, fact) for fact in seen.hosts)
    missing = [fact.name for fact in seen.hosts if _lacks(network, fact)]
    again = MISSING_SECONDS if missing else seen.audit_seconds
    plan = Plan(hosts, _verdict(network, seen, missing), again)
    if not network.metadata.deleting:
        return plan
    if not seen.users:
        return Plan(hosts, plan.verdict, again, release=True)
    message = f"deletion waits for VirtualMachines with a card in this network: {listed(sorted(seen.users))}"
    return Plan(hosts, stalled("InUse", message), 30.0)


def _verdict(network: Network, seen: Observed, missing: list[str]) -> Verdict:
    bridge = network.spec.bridge.name
    if seen.unknown_pools:
        return stalled("PoolNotFound", f"there is no HostPool {listed(list(seen.unknown_pools))}: change spec.pools")
    if not seen.hosts:
        return stalled("NoHosts", f"HostPool {listed(network.spec.pools)} has no hosts")
    if missing:
        who = listed(missing)
        return stalled(
            "BridgeMissing", f"host {who}: there is no bridge {bridge}. Make it there, or change spec.bridge"
        )
    silent = [fact.name for fact in seen.hosts if fact.bridges is None]
    if len(silent) == len(seen.hosts):
        return progressing("WaitingForHosts", f"no host can be asked: {listed(silent)}", WAITING_BOUND)
    if silent:
        return ready("Available", f"on all hosts but those that are not connected: {listed(silent)}")
    return ready("Available", f"on {len(seen.hosts)} hosts")


def _lacks(network: Network, fact: HostFact) -> bool:
    return fact.bridges is not None and network.spec.bridge.name not in fact.bridges


def _host(network: Network, fact: HostFact) -> HostNetwork:
    if fact.bridges is None:
        return HostNetwork(name=fact.name, available=False, message="the host is not connected")
    if _lacks(network, fact):
        return HostNetwork(name=fact.name, available=False, message=f"there is no bridge {network.spec.bridge.name}")
    return HostNetwork(name=fact.name, available=True)
