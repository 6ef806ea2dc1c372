"""What to do about a VM: every rule, as a pure function of what is declared and what is observed.

`decide` returns one step. The step is carried out, the world is observed again, and `decide` is asked again: doing a
step twice, late, or after a crash gives the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from crds.virtual_machine import (
    Placement,
    PowerAction,
    PowerState,
    StartFailure,
    VirtualMachine,
    VMDeletionPolicy,
    VMPhase,
)
from drivers.model import DomainObservation, DomainState, StopReason
from reconcilers.ownership import AskPerson, MayStart, MustWait, RunsOn
from reconcilers.standing import Verdict, progressing, ready, stalled, unknown
from reconcilers.virtual_machine.plan import (
    Act,
    Apply,
    Destroy,
    Nothing,
    Observed,
    Plan,
    Release,
    Shutdown,
    Stamp,
    Start,
    Step,
    Undefine,
)
from reconcilers.virtual_machine.power import (
    STABLE_AFTER,
    STALLED_AFTER,
    Decision,
    decide_power,
    forgotten,
    next_failure,
    was_running,
)

START_BOUND = 120.0
UNSCHEDULABLE_BOUND = 120.0
STABLE_CHECK = STABLE_AFTER + 1.0
CHANGE_BOUND = 120.0
TRAY_PATIENCE = 30.0
"""Seconds for which a guest is asked to let go of a medium before its tray is opened by force."""
TRAY_AGAIN = 5.0
"""Seconds after which it is asked again."""
SHUTDOWN_AGAIN = 15.0
"""Seconds after which a guest that still runs is asked once more to shut down: an early boot hears nothing."""


def decide(vm: VirtualMachine, seen: Observed) -> Plan:
    """The next step for the VM."""
    if vm.metadata.deleting:
        return _remove(vm, seen)
    plan = _keep(vm, seen)
    return plan if vm.metadata.paused_by is None else _hands_off(vm, seen, plan)


def _hands_off(vm: VirtualMachine, seen: Observed, plan: Plan) -> Plan:
    """Paused: what is observed is shown, nothing is written down and nothing is done."""
    answer, who = seen.ownership.answer, f"hostler.dev/paused is set by {vm.metadata.paused_by}"
    if isinstance(plan.step, Start):
        phase = VMPhase.STOPPED if vm.status.placement is not None else VMPhase.PENDING
        return Plan(Nothing(), stalled("Paused", f"{who}: the VM is not started"), phase)
    if isinstance(answer, RunsOn) and plan.phase is VMPhase.STOPPING:
        return Plan(Nothing(), stalled("Paused", f"{who}: the VM is not stopped"), _running_phase(answer.domain))
    return Plan(Nothing(), plan.verdict, plan.phase, again=plan.again if isinstance(plan.step, Nothing) else None)


def _keep(vm: VirtualMachine, seen: Observed) -> Plan:
    match seen.ownership.answer:
        case AskPerson(reason=reason, message=message):
            return Plan(Nothing(), stalled(reason, message), VMPhase.UNKNOWN)
        case MustWait(hosts=hosts):
            return _silent(vm, seen, hosts)
        case RunsOn(fresh=False, host=host):
            return _silent(vm, seen, (host,))
        case RunsOn() as runs:
            return _running(vm, seen, runs)
        case MayStart() as may:
            return _off(vm, seen, may)


def _silent(vm: VirtualMachine, seen: Observed, hosts: tuple[str, ...]) -> Plan:
    """Hosts that may hold the VM cannot be asked. Nothing is ever started elsewhere without proof."""
    lost = sorted(seen.lost.intersection(hosts))
    if not lost:
        # A short silence changes nothing that is shown; only a spec that nobody answered yet gets a word.
        unanswered = vm.status.observed_generation != vm.metadata.generation
        verdict = progressing("HostSilent", f"waits for an answer of host {', '.join(hosts)}", START_BOUND)
        return Plan(Nothing(), verdict if unanswered else None, vm.status.phase or VMPhase.PENDING, again=5.0)
    message = (
        f"host {', '.join(lost)} may still run this VM and does not answer: bring it back. "
        "Until it answers, the VM is not started elsewhere: nothing else proves that it is off"
    )
    return Plan(Nothing(), unknown("HostUnreachable", message), VMPhase.UNKNOWN)


# Running -------------------------------------------------------------------------------------------------------------


def _running(vm: VirtualMachine, seen: Observed, runs: RunsOn) -> Plan:
    if seen.ownership.destroy:
        return Plan(Destroy(seen.ownership.destroy), progressing("StaleDomain", _stale(seen), 60), VMPhase.RUNNING)
    decision = decide_power(vm, active=True, stopped=None, now=seen.now)
    bound = _bound(vm, runs, seen)
    # A request for the guest is noted right before it is carried out: noted earlier, it would count as done.
    noted = decision if decision.action is None else replace(decision, request=None)
    fields = _changed(vm, _decision_fields(noted), bound)
    if decision.power.state is PowerState.OFF:
        return _stopping(vm, seen, runs, decision, fields)
    identity = runs.domain.identity
    assert identity is not None, "ownership answers RunsOn for stamped domains only"
    if identity.uid != vm.metadata.uid or identity.epoch != seen.ownership.epoch:
        return Plan(
            Stamp(runs.host, runs.domain.uuid),
            _running_verdict(runs.domain, seen),
            _running_phase(runs.domain),
            fields,
        )
    if decision.action is not None:
        step: Step = Act(runs.host, runs.domain.uuid, decision.action)
        fields = _changed(vm, _decision_fields(decision), bound)
        return Plan(step, _running_verdict(runs.domain, seen), _running_phase(runs.domain), fields)
    verdict, phase = _running_verdict(runs.domain, seen), _running_phase(runs.domain)
    change = _change(runs, seen)
    if change is not None:
        return Plan(change, verdict, phase, fields)
    # What an earlier run has left defined on another host could be started there behind our back.
    step = Undefine(seen.ownership.remnants) if seen.ownership.remnants else Nothing()
    again = min((min(TRAY_AGAIN - t.last, TRAY_PATIENCE - t.first) for t in seen.trays.values()), default=None)
    return Plan(step, verdict, phase, fields, again)


def _change(runs: RunsOn, seen: Observed) -> Apply | None:
    """What is to be changed in the running domain now. A guest that holds a tray is asked again, and in the end not."""
    if seen.changes is None:
        return None
    force = frozenset(alias for alias, tray in seen.trays.items() if tray.first >= TRAY_PATIENCE)
    waits = {alias for alias, tray in seen.trays.items() if tray.last < TRAY_AGAIN} - force
    changes = replace(seen.changes, update=tuple(alias for alias in seen.changes.update if alias not in waits))
    if not (changes.attach or changes.detach or changes.update):
        return None
    return Apply(runs.host, runs.domain.uuid, changes, force.intersection(changes.update))


def _stale(seen: Observed) -> str:
    return f"an older copy of this VM is destroyed on {', '.join(seen.ownership.destroy)}: a newer one is seen running"


def _running_phase(domain: DomainObservation) -> VMPhase:
    if domain.state is DomainState.PAUSED:
        return VMPhase.PAUSED
    return VMPhase.RUNNING


def _running_verdict(domain: DomainObservation, seen: Observed) -> Verdict:
    """It runs; what is declared and cannot be had, or not yet, is said beside it."""
    if domain.state is DomainState.PAUSED and domain.paused_reason == "ioerror":
        return stalled("StorageError", "the VM is paused because its storage failed: mend it, then request Resume")
    if seen.needs is not None and seen.lacking:
        return seen.needs
    if seen.trays:
        drives = ", ".join(sorted(alias.removeprefix("ua-disk-") for alias in seen.trays))
        message = (
            f"the guest holds the tray of drive {drives}: let go of the medium there (unmount it). "
            f"After {TRAY_PATIENCE:.0f} s the tray is opened by force"
        )
        return progressing("TrayLocked", message, CHANGE_BOUND)
    if domain.state is DomainState.PAUSED:
        return ready("Paused", "the VM is paused: request Resume to go on")
    # What is missing is missing for the next start only: all that is declared is seen in the running domain.
    return ready("Running", f"it could not be started now: {seen.needs.message}" if seen.needs is not None else "")


def _bound(vm: VirtualMachine, runs: RunsOn, seen: Observed) -> dict[str, Any]:
    """Where the VM is observed to run, where that differs from what is written down."""
    domain, before = runs.domain, vm.status.placement
    fields: dict[str, Any] = {}
    candidates = sorted({runs.host, *seen.ownership.others})
    epoch = seen.ownership.epoch
    if before is None or (before.host, before.epoch, sorted(before.candidates)) != (runs.host, epoch, candidates):
        since = before.since if before is not None and before.host == runs.host else seen.now
        fields["placement"] = Placement(host=runs.host, epoch=epoch, since=since, candidates=candidates)
    if vm.status.uuid != domain.uuid:
        fields["uuid"] = domain.uuid
    kept = forgotten(vm.status.start_failure, seen.running_since, seen.now)
    if kept is None and vm.status.start_failure is not None:
        fields["startFailure"] = None
    return fields


def _stopping(vm: VirtualMachine, seen: Observed, runs: RunsOn, decision: Decision, fields: Mapping[str, Any]) -> Plan:
    since = decision.power.since
    force = decision.power.reason == "ForceOff"
    step, again = _stop_step(vm, seen, runs, since, force=force)
    verdict = progressing("Stopping", _stop_message(force=force), vm.spec.lifecycle.shutdown_timeout_seconds + 60.0)
    return Plan(step, verdict, VMPhase.STOPPING, fields, again)


def _stop_message(*, force: bool) -> str:
    return (
        "the VM's power is being cut" if force else "the guest is asked to shut down; its power is cut when it does not"
    )


def _stop_step(vm: VirtualMachine, seen: Observed, runs: RunsOn, since: datetime, *, force: bool) -> tuple[Step, float]:
    deadline = since + timedelta(seconds=vm.spec.lifecycle.shutdown_timeout_seconds)
    left = (deadline - seen.now).total_seconds()
    if force or left <= 0:
        return Destroy((runs.host,)), 1.0
    if runs.domain.state is DomainState.PAUSED:
        # A paused guest hears no shutdown request.
        return Act(runs.host, runs.domain.uuid, PowerAction.RESUME), 1.0
    if seen.last_shutdown is None or seen.last_shutdown >= SHUTDOWN_AGAIN:
        return Shutdown(runs.host, runs.domain.uuid), min(left, SHUTDOWN_AGAIN)
    return Nothing(), min(left, SHUTDOWN_AGAIN - seen.last_shutdown)


# Off -----------------------------------------------------------------------------------------------------------------


def _off(vm: VirtualMachine, seen: Observed, may: MayStart) -> Plan:
    stopped = _end(vm, may)
    reason = stopped.stop_reason if stopped is not None else None
    if reason is None and may.only is not None and was_running(vm):
        reason = StopReason.UNKNOWN
    decision = decide_power(vm, active=False, stopped=reason, now=seen.now)
    failure = _failure(vm, seen, reason)
    if decision.power.state is PowerState.OFF:
        return _stopped(vm, seen, may, decision)
    fields = _changed(vm, _decision_fields(decision), {"startFailure": failure})
    backs_off = failure is not None and failure.next_at > seen.now
    # With this end, or a failed start, it gives up its place: an end is so looked at once. Hosts of which nobody knows
    # stay candidates.
    ended = reason is not None or backs_off
    left = {**fields, **(_vacated(vm, seen, may, keep=may.only or frozenset()) if ended else {})}
    if failure is not None and backs_off:
        return _backing_off(failure, left, seen.now)
    if seen.needs is not None:
        return Plan(Nothing(), seen.needs, VMPhase.PENDING, left)
    waits = _checks(vm, "poweron")
    if waits:
        return Plan(Nothing(), stalled("PowerOnHeld", f"starting waits for {waits}"), VMPhase.PENDING, left)
    return Plan(
        Start(may.only), progressing("Starting", "the VM is being started", START_BOUND), VMPhase.STARTING, fields
    )


def _end(vm: VirtualMachine, may: MayStart) -> DomainObservation | None:
    """How the run ended that was decided last. A domain of an older epoch tells of an earlier run, which is settled."""
    placement, stopped = vm.status.placement, may.stopped
    if stopped is None or stopped.identity is None or placement is None:
        return None
    return stopped if stopped.identity.epoch >= placement.epoch else None


def _failure(vm: VirtualMachine, seen: Observed, reason: StopReason | None) -> StartFailure | None:
    """The failures in a row, this end counted once: it is new while the VM still has its place.

    The end of a VM that was to be off is none, also if it is to be on again by now.
    """
    before, placement, power = vm.status.start_failure, vm.status.placement, vm.status.power
    if placement is None or placement.host is None or reason in (None, StopReason.MIGRATED):
        return before
    if power is not None and power.state is PowerState.OFF:
        return before
    words = {
        StopReason.GUEST_SHUTDOWN: "the guest shut itself down",
        StopReason.CRASHED: "QEMU died or the guest panicked",
        StopReason.DESTROYED: "the domain was destroyed by somebody else",
        StopReason.FAILED: "the domain failed to start",
    }
    return next_failure(before, f"{words.get(reason, 'the VM ended')} on host {placement.host}", seen.now)


def _backing_off(failure: StartFailure, fields: dict[str, Any], now: datetime) -> Plan:
    wait = (failure.next_at - now).total_seconds()
    message = f"failed {failure.count} times, the next try is at {failure.next_at:%H:%M:%S} UTC: {failure.message}"
    if failure.count >= STALLED_AFTER:
        # Still on its way, and held up: a bound of nothing.
        verdict = progressing("CrashBackOff", f"{message}. Look at the guest's console and the host's QEMU log", 0.0)
    else:
        verdict = progressing("CrashBackOff", message, 600.0)
    return Plan(Nothing(), verdict, VMPhase.CRASHED, fields, wait)


def _stopped(vm: VirtualMachine, seen: Observed, may: MayStart, decision: Decision) -> Plan:
    fields = _changed(vm, _decision_fields(decision), {**_vacated(vm, seen, may), "startFailure": None})
    remnants = seen.ownership.remnants
    step: Step = Undefine(remnants) if remnants else Nothing()
    if decision.power.reason == "Crashed":
        verdict = stalled("Crashed", "the VM crashed and its runPolicy is Manual: request Start to run it again")
        return Plan(step, verdict, VMPhase.CRASHED, fields)
    words = {"GuestShutdown": "the guest shut itself down", "PowerRequest": "as requested", "ForceOff": "as requested"}
    return Plan(step, ready("Stopped", words.get(decision.power.reason, "")), VMPhase.STOPPED, fields)


def _vacated(
    vm: VirtualMachine, seen: Observed, may: MayStart, *, keep: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The VM has no place any more; its epoch stays.

    A host that still defines it, and where nobody knows how it ended, stays a candidate until it is undefined there: a
    start that was sent earlier may still reach the definition.
    """
    before = vm.status.placement
    candidates = sorted(keep.union((may.only or frozenset()).intersection(seen.ownership.remnants)))
    if before is None or (before.host is None and sorted(before.candidates) == candidates):
        return {}
    epoch = max(before.epoch, seen.ownership.epoch)
    return {"placement": Placement(host=None, epoch=epoch, since=seen.now, candidates=candidates)}


# Removal -------------------------------------------------------------------------------------------------------------


def _remove(vm: VirtualMachine, seen: Observed) -> Plan:
    if vm.metadata.paused_by is not None:
        message = f"hostler.dev/paused is set by {vm.metadata.paused_by}: the VM is not deleted"
        return Plan(Nothing(), stalled("Paused", message), vm.status.phase)
    waits = _checks(vm, "delete")
    if waits:
        return Plan(Nothing(), stalled("DeletionHeld", f"deletion waits for {waits}"), vm.status.phase)
    if vm.spec.lifecycle.deletion_policy is VMDeletionPolicy.ORPHAN:
        return Plan(Release(orphan=True), progressing("Deleting", "the domain is left as it is", 60), vm.status.phase)
    match seen.ownership.answer:
        case AskPerson(reason="OwnedByOther"):
            return Plan(Release(orphan=True), progressing("Deleting", "nothing of it is ours", 60), vm.status.phase)
        case AskPerson(reason=reason, message=message):
            return Plan(Nothing(), stalled(reason, message), vm.status.phase)
        case MustWait(hosts=hosts):
            return _removal_waits(vm, hosts)
        case RunsOn(fresh=False, host=host):
            return _removal_waits(vm, (host,))
        case RunsOn() as runs:
            return _remove_running(vm, seen, runs)
        case MayStart():
            verdict = progressing("Deleting", "what is left of the VM is removed", 120)
            return Plan(Release(orphan=False, hosts=seen.ownership.remnants), verdict, VMPhase.STOPPED)


def _removal_waits(vm: VirtualMachine, hosts: tuple[str, ...]) -> Plan:
    message = f"deletion waits for host {', '.join(hosts)}, which may hold the VM and does not answer"
    return Plan(Nothing(), unknown("HostUnreachable", message), vm.status.phase, again=15.0)


def _remove_running(vm: VirtualMachine, seen: Observed, runs: RunsOn) -> Plan:
    if seen.ownership.destroy:
        return Plan(Destroy(seen.ownership.destroy), progressing("Deleting", _stale(seen), 60), VMPhase.STOPPING)
    assert vm.metadata.deletion_timestamp is not None
    since = vm.metadata.deletion_timestamp
    power = vm.status.power
    force = power is not None and power.reason == "ForceOff"
    step, again = _stop_step(vm, seen, runs, since, force=force)
    verdict = progressing("Deleting", _stop_message(force=force), vm.spec.lifecycle.shutdown_timeout_seconds + 60.0)
    return Plan(step, verdict, VMPhase.STOPPING, again=again)


# Fields --------------------------------------------------------------------------------------------------------------


def _decision_fields(decision: Decision) -> dict[str, Any]:
    fields: dict[str, Any] = {"power": decision.power}
    if decision.request is not None:
        fields["powerRequest"] = decision.request
    return fields


def _changed(vm: VirtualMachine, *parts: Mapping[str, Any]) -> dict[str, Any]:
    """Of the critical fields, those that differ from what is written down."""
    before = {
        "power": vm.status.power,
        "powerRequest": vm.status.power_request,
        "placement": vm.status.placement,
        "startFailure": vm.status.start_failure,
        "uuid": vm.status.uuid,
    }
    wanted = {key: value for part in parts for key, value in part.items()}
    return {key: value for key, value in wanted.items() if value != before[key]}


def _checks(vm: VirtualMachine, action: str) -> str:
    """Who holds up an action by annotation, for a message; empty when nobody does."""
    prefix = f"{action}.check.hostler.dev/"
    return ", ".join(sorted(k.removeprefix(prefix) for k in vm.metadata.annotations if k.startswith(prefix)))
