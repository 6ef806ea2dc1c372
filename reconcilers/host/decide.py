"""How a host stands: every rule, as a pure function of what is declared and what is observed.

There is little to do about a host but to know how it stands: the connection keeps itself up. What is decided here is
its phase, when to look again so that silence is noticed in time, and whether a deleted Host may go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from crds.host import Host, HostMode, HostPhase, Management
from drivers.errors import ConnectFailed
from drivers.model import ConnectionState, ConnectionView
from reconcilers.relations import listed
from reconcilers.standing import Standing, Verdict, progressing, ready, stalled

INITIALIZING_BOUND = 60.0
DRAINING_BOUND = 600.0
LOOK_AGAIN = 30.0
"""Seconds between two looks at a host of which nothing new is expected; events come earlier."""


@dataclass(frozen=True)
class Observed:
    """What `decide` goes by."""

    view: ConnectionView | None
    """None while there is no connection, since nobody knows yet how to reach the host."""
    monotonic: float
    trying_since: float
    """Monotonic time of this process's first look at the connection."""
    failed_after: float
    """Silence, in seconds, after which the host is lost."""
    problem: Verdict | None = None
    """What is wrong with the target."""
    baseline_known: bool = False
    incompatible: str | None = None
    """Why it cannot run the pool's VMs."""
    duplicate_of: str | None = None
    """The older Host with the same UUID."""
    another_machine: bool = False
    """Whether not the machine answers that its VMs were started on."""
    vms: tuple[str, ...] = ()
    """VMs that run or may run here, as namespace/name."""


@dataclass(frozen=True)
class Plan:
    """How the host stands, and what follows from that."""

    phase: HostPhase
    verdict: Verdict
    again: float
    """Seconds until silence could be long enough, or until the next look."""
    remove: bool = False
    """The Host is deleted and nothing hangs on it: close the connection and let it go."""
    keeps_uuid: bool = False
    """The UUID in the status stays that of the machine of before."""


def decide(host: Host, seen: Observed) -> Plan:
    """How the host stands now."""
    plan = _standing(host, seen)
    if seen.problem is not None:
        plan = replace(plan, verdict=seen.problem)
    if host.metadata.deleting:
        return _leaving(plan, seen)
    return plan


def schedulable(host: Host, plan: Plan) -> tuple[bool, str, str]:
    """The Schedulable condition: whether VMs may be placed here, the reason and a message."""
    if host.metadata.deleting:
        return False, "Deleting", "the host is being deleted"
    if host.spec.management is Management.OBSERVE:
        return False, "Observed", "spec.management is Observe: nothing is done on this host"
    if host.spec.mode is not HostMode.ACTIVE:
        return False, str(host.spec.mode), f"spec.mode is {host.spec.mode}"
    if plan.phase is not HostPhase.UP:
        return False, str(plan.phase), plan.verdict.message
    if plan.verdict.standing is not Standing.READY:
        return False, plan.verdict.reason, plan.verdict.message
    return True, "Schedulable", ""


def _leaving(plan: Plan, seen: Observed) -> Plan:
    if not seen.vms:
        return replace(plan, remove=True)
    message = f"deletion waits for VMs that run or may run here: {listed(sorted(seen.vms))}. "
    message += "Stop or delete them" if plan.phase is not HostPhase.NON_RESPONSIVE else "Bring the host back first"
    return replace(plan, verdict=stalled("InUse", message), again=LOOK_AGAIN)


def _standing(host: Host, seen: Observed) -> Plan:
    view = seen.view
    if view is None:
        return _never_seen(host, seen)
    silence = seen.monotonic - (view.last_seen if view.last_seen is not None else seen.trying_since)
    if view.state is ConnectionState.CONNECTED and silence < seen.failed_after:
        return _connected(host, seen, view, _until(seen.failed_after - silence))
    if view.last_seen is None and host.status.uuid is None:
        return _never_connected(seen, view)
    return _silent(host, seen, view, silence)


def _never_seen(host: Host, seen: Observed) -> Plan:
    """Nobody knows how to reach it. One that this cluster has been connected to is lost, not new."""
    phase = HostPhase.NON_RESPONSIVE if host.status.phase is HostPhase.NON_RESPONSIVE else HostPhase.CONNECTING
    if host.status.uuid is not None and seen.monotonic - seen.trying_since >= seen.failed_after:
        phase = HostPhase.NON_RESPONSIVE
    verdict = progressing("Connecting", "the host is being connected to", seen.failed_after)
    return Plan(phase, verdict, LOOK_AGAIN)


def _never_connected(seen: Observed, view: ConnectionView) -> Plan:
    if isinstance(view.error, ConnectFailed):
        return Plan(HostPhase.CONNECTING, stalled(view.error.reason, view.error.message), LOOK_AGAIN)
    verdict = progressing("Connecting", "the host is being connected to", seen.failed_after)
    return Plan(HostPhase.CONNECTING, verdict, _until(seen.failed_after))


def _silent(host: Host, seen: Observed, view: ConnectionView, silence: float) -> Plan:
    """It was connected once, by this process or an earlier one, and does not answer now."""
    lost = silence >= seen.failed_after or host.status.phase is HostPhase.NON_RESPONSIVE
    phase = HostPhase.NON_RESPONSIVE if lost else host.status.phase or HostPhase.CONNECTING
    again = LOOK_AGAIN if lost else _until(seen.failed_after - silence)
    refused = isinstance(view.error, ConnectFailed) and view.error.reason != "Unreachable"
    if refused and view.error is not None:
        return Plan(phase, stalled(view.error.reason, view.error.message), again)
    if not lost:
        return Plan(phase, progressing("NonResponsive", "the host does not answer", seen.failed_after), again)
    message = (
        "the host does not answer: look at its power, its network and its libvirt daemon. "
        "Its VMs are Unknown until it is back, and are not started elsewhere"
    )
    return Plan(phase, stalled("NonResponsive", message), again)


def _connected(host: Host, seen: Observed, view: ConnectionView, again: float) -> Plan:
    if seen.another_machine and view.facts is not None:
        message = (
            f"another machine answers (UUID {view.facts.uuid}) than the one that VMs with a place here were started on "
            f"(UUID {host.status.uuid}): set spec.uri back. Nothing is started for them elsewhere"
        )
        return Plan(HostPhase.NON_OPERATIONAL, stalled("AnotherMachine", message), again, keeps_uuid=True)
    if view.facts is None or view.inventory is None or not view.fresh:
        verdict = progressing("Initializing", "the host is asked what it is and what runs on it", INITIALIZING_BOUND)
        return Plan(HostPhase.INITIALIZING, verdict, again)
    if seen.duplicate_of is not None:
        message = f"Host {seen.duplicate_of} is the same machine (UUID {view.facts.uuid}): delete one of the two"
        return Plan(HostPhase.NON_OPERATIONAL, stalled("DuplicateHost", message), again)
    if host.spec.mode is HostMode.MAINTENANCE:
        return _maintenance(seen, again)
    if not seen.baseline_known:
        message = f"HostPool {host.spec.pool} has not settled on a CPU for its guests yet"
        return Plan(HostPhase.INITIALIZING, progressing("PoolNotReady", message, INITIALIZING_BOUND), again)
    if seen.incompatible is not None:
        message = f"the host cannot run VMs of pool {host.spec.pool}: {seen.incompatible}"
        return Plan(HostPhase.NON_OPERATIONAL, stalled("Incompatible", message), again)
    return Plan(HostPhase.UP, ready("Up"), again)


def _maintenance(seen: Observed, again: float) -> Plan:
    if not seen.vms:
        return Plan(HostPhase.MAINTENANCE, ready("Maintenance", "no VM runs here"), again)
    message = f"waits for VMs that run here: {listed(sorted(seen.vms))}. Stop them"
    return Plan(HostPhase.PREPARING_FOR_MAINTENANCE, progressing("WaitingForVMs", message, DRAINING_BOUND), again)


def _until(seconds: float) -> float:
    """A little later than that, so that the look finds it to be so."""
    return max(0.0, seconds) + 0.1
