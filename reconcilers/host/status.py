"""A Host's status, computed from facts in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crds.host import Host, HostCapabilities
from drivers.model import ConnectionState, ConnectionView, HostFacts
from engine.conditions import Condition, condition
from reconcilers.host.decide import Plan, schedulable
from reconcilers.standing import conditions


@dataclass(frozen=True)
class Figures:
    """What changes all the time, rounded already."""

    allocatable_memory: str
    allocated_cpus: int
    allocated_memory: str
    vms: int
    foreign: int


@dataclass(frozen=True)
class Reach:
    """Which storage domains or networks of its pool the host lacks, and why, by name."""

    missing: Mapping[str, str]
    total: int


def status(
    host: Host,
    plan: Plan,
    view: ConnectionView | None,
    figures: Figures | None,
    storage: Reach,
    networks: Reach,
    now: datetime,
) -> dict[str, Any]:
    """The whole descriptive status. What cannot be asked now stays as it was seen last, under a phase that says so."""
    before = host.status.to_dict()
    out: dict[str, Any] = {
        k: before[k]
        for k in ("uuid", "capabilities", "allocatable", "allocated", "vmCount", "foreignDomains")
        if k in before
    }
    facts = view.facts if view is not None else None
    if facts is not None:
        out["uuid"] = host.status.uuid if plan.keeps_uuid else facts.uuid
        out["capabilities"] = _capabilities(facts)
    if facts is not None and figures is not None:
        out["allocatable"] = {"cpus": facts.cpus, "memory": figures.allocatable_memory}
        out["allocated"] = {"cpus": figures.allocated_cpus, "memory": figures.allocated_memory}
        out["vmCount"], out["foreignDomains"] = figures.vms, figures.foreign
    connected = view is not None and view.state is ConnectionState.CONNECTED
    own = [
        _connected(host, view, plan),
        condition("Schedulable", *schedulable(host, plan), host.metadata.generation),
        _reach("StorageReady", "StorageDomain", storage, host, connected=connected),
        _reach("NetworksReady", "Network", networks, host, connected=connected),
    ]
    return {**out, "phase": str(plan.phase), "conditions": conditions(host, plan.verdict, now, *own)}


def _capabilities(facts: HostFacts) -> dict[str, Any]:
    return HostCapabilities(
        architecture=facts.architecture,
        virtualization=facts.virtualization,
        libvirt_version=facts.libvirt_version,
        hypervisor_version=facts.hypervisor_version,
        cpu_model=facts.cpu_model,
        machines=[types[0] for _, types in sorted(facts.machines.items()) if types][:64],
    ).to_dict()


def _connected(host: Host, view: ConnectionView | None, plan: Plan) -> Condition:
    generation = host.metadata.generation
    if view is not None and view.state is ConnectionState.CONNECTED:
        return condition("Connected", True, "Connected", "", generation)
    return condition("Connected", False, plan.verdict.reason, plan.verdict.message, generation)


def _reach(kind: str, what: str, reach: Reach, host: Host, *, connected: bool) -> Condition:
    generation = host.metadata.generation
    if not connected:
        return condition(kind, None, "NotConnected", "the host cannot be asked", generation)
    if not reach.missing:
        return condition(kind, True, "Ready", f"{reach.total} of {reach.total}", generation)
    message = "; ".join(f"{what} {name}: {why}" for name, why in sorted(reach.missing.items()))
    return condition(kind, False, "Missing", message[:1024], generation)
