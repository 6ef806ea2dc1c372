"""What to do about a pool: when and from which hosts its baseline is made, as a pure function.

The baseline is what every domain document of the pool is made from, so it is made once and kept: a host that joins
later must be able to give it, or is NonOperational. Only a person changes it, by `spec.cpu.model`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from crds.host_pool import CPUBaseline, HostPool, PoolBaseline, PoolMachine
from drivers.model import HostFacts
from reconcilers.standing import Verdict, progressing, ready, stalled

GATHER_SECONDS = 30.0
"""How long the pool waits for its other hosts once the first is connected."""
BASELINE_BOUND = 60.0
READY_BOUND = 60.0
LOOK_AGAIN = 5.0


@dataclass(frozen=True)
class Member:
    """One host of the pool."""

    name: str
    connected: bool
    usable: bool
    """Whether VMs can be placed there."""
    facts: HostFacts | None
    state: str
    """Its phase, for a message."""


@dataclass(frozen=True)
class Observed:
    """What `decide` goes by."""

    members: tuple[Member, ...]
    gathered_for: float
    """Seconds since the first of them was seen connected; 0 when none is."""
    users: tuple[str, ...] = ()
    """Hosts and VMs that refer to the pool, for a deletion."""


@dataclass(frozen=True)
class MakeBaseline:
    """Make the baseline from these hosts' facts; ask the first of them for the CPU, unless the user names one."""

    hosts: tuple[str, ...]


@dataclass(frozen=True)
class ChangeCPU:
    """The user names another CPU than the baseline has."""

    baseline: PoolBaseline


@dataclass(frozen=True)
class Release:
    """The pool is deleted and nothing refers to it."""


@dataclass(frozen=True)
class Nothing:
    """Nothing to do."""


Step = MakeBaseline | ChangeCPU | Release | Nothing


@dataclass(frozen=True)
class Plan:
    """One step, how the pool stands meanwhile, and when to look again (None: when something changes)."""

    step: Step
    verdict: Verdict
    again: float | None = None


def decide(pool: HostPool, seen: Observed) -> Plan:
    """What to do now."""
    if pool.metadata.deleting:
        return _leaving(seen)
    if pool.status.baseline is None:
        return _without_baseline(pool, seen)
    verdict = _standing(seen)
    again = LOOK_AGAIN if not any(m.usable for m in seen.members) and seen.members else None
    wanted = pool.spec.cpu.model if pool.spec.cpu is not None else None
    if wanted is not None and wanted != pool.status.baseline.cpu.model and pool.metadata.paused_by is None:
        changed = pool.status.baseline.model_copy(update={"cpu": CPUBaseline(model=wanted)})
        return Plan(ChangeCPU(changed), verdict, again)
    return Plan(Nothing(), verdict, again)


def common_machines(facts: tuple[HostFacts, ...]) -> list[PoolMachine]:
    """Of each family the newest machine type that all these hosts know; a family that they do not share is left out."""
    found = []
    for family in sorted(facts[0].machines):
        known = [set(f.machines.get(family, ())) for f in facts]
        newest = next((machine for machine in facts[0].machines[family] if all(machine in k for k in known)), None)
        if newest is not None:
            found.append(PoolMachine(family=family, type=newest))
    return found


def baseline(facts: tuple[HostFacts, ...], cpu: CPUBaseline) -> PoolBaseline | Verdict:
    """The baseline of hosts of one architecture, or why there can be none."""
    machines = common_machines(facts)
    if not machines:
        return stalled("NoCommonMachine", "the pool's hosts have no machine type in common: upgrade QEMU on the oldest")
    kvm = all(f.virtualization == "kvm" for f in facts)
    return PoolBaseline(
        architecture=facts[0].architecture, virtualization="kvm" if kvm else "qemu", cpu=cpu, machines=machines
    )


def _leaving(seen: Observed) -> Plan:
    if not seen.users:
        return Plan(Release(), progressing("Deleting", "", 60))
    message = f"deletion waits for what refers to the pool: {', '.join(seen.users)}. Delete or change it first"
    return Plan(Nothing(), stalled("InUse", message), 30.0)


def _without_baseline(pool: HostPool, seen: Observed) -> Plan:
    name = pool.metadata.name
    if not seen.members:
        return Plan(Nothing(), stalled("NoHosts", f"no Host has spec.pool: {name}: create one"))
    connected = [m for m in seen.members if m.connected and m.facts is not None]
    if not connected:
        message = f"no host of the pool is connected: {_states(seen)}"
        return Plan(Nothing(), progressing("WaitingForHosts", message, READY_BOUND), LOOK_AGAIN)
    if len(connected) < len(seen.members) and seen.gathered_for < GATHER_SECONDS:
        message = f"waits up to {GATHER_SECONDS:.0f} s for all hosts before it settles on a CPU: {_states(seen)}"
        again = GATHER_SECONDS - seen.gathered_for + 0.1
        return Plan(Nothing(), progressing("WaitingForHosts", message, READY_BOUND), again)
    verdict = progressing("MakingBaseline", "the CPU that all hosts share is computed", BASELINE_BOUND)
    if pool.metadata.paused_by is not None:
        return Plan(Nothing(), verdict)
    return Plan(MakeBaseline(_of_one_architecture(connected)), verdict, LOOK_AGAIN)


def _of_one_architecture(members: list[Member]) -> tuple[str, ...]:
    """The hosts of the architecture that most of them have; the others cannot be in this pool, and will say so."""
    counts = Counter(m.facts.architecture for m in members if m.facts is not None)
    most = min(counts, key=lambda a: (-counts[a], a))
    return tuple(m.name for m in members if m.facts is not None and m.facts.architecture == most)


def _standing(seen: Observed) -> Verdict:
    usable = sum(1 for m in seen.members if m.usable)
    if not seen.members:
        return stalled("NoHosts", "the pool has no host: create a Host with this pool in spec.pool")
    if usable == 0:
        return progressing("NoReadyHosts", f"no VM can be placed on any host: {_states(seen)}", READY_BOUND)
    return ready("HostsReady", f"{usable} of {len(seen.members)} hosts are ready")


def _states(seen: Observed) -> str:
    shown = [f"{m.name} is {m.state}" for m in seen.members[:10]]
    return ", ".join(shown) + (f" and {len(seen.members) - 10} more" if len(seen.members) > 10 else "")
