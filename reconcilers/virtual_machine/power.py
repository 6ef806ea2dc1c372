"""Whether the VM should run now: the run policy, what happened to the guest, and what a person asked for. Pure.

The answer is kept in `status.power`, because it depends on the past: a guest that shut itself down under
RerunOnFailure stays off, also after the controller was restarted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from crds.virtual_machine import (
    Power,
    PowerAction,
    PowerRequestPhase,
    PowerRequestStatus,
    PowerState,
    RunPolicy,
    StartFailure,
    VirtualMachine,
    VMPhase,
)
from drivers.model import StopReason

FIRST_BACK_OFF = 5.0
LONGEST_BACK_OFF = 300.0
STABLE_AFTER = 600.0
"""Seconds of running after which earlier failures are forgotten."""
STALLED_AFTER = 5
"""Failures in a row after which a person should look."""

_CONTINUES = (RunPolicy.ALWAYS, RunPolicy.RERUN_ON_FAILURE)
_WAS_RUNNING = (VMPhase.RUNNING, VMPhase.PAUSED, VMPhase.STOPPING)
_TURNS = {
    PowerAction.START: (PowerState.ON, "PowerRequest"),
    PowerAction.SHUTDOWN: (PowerState.OFF, "PowerRequest"),
    PowerAction.FORCE_OFF: (PowerState.OFF, "ForceOff"),
}
"""What these actions make of `status.power`: state and reason. All others are done to the guest that runs."""
_REPEATABLE = (PowerAction.PAUSE, PowerAction.RESUME)
"""Actions on the running guest that may be done again when the answer to the first time was lost."""


@dataclass(frozen=True)
class Decision:
    """What the past and the spec come to."""

    power: Power
    request: PowerRequestStatus | None
    action: PowerAction | None = None
    """What to do to the running guest now, once `request` is recorded."""


def was_running(vm: VirtualMachine) -> bool:
    """Whether the VM ran when it was last seen; while its host cannot be asked, that is before the silence."""
    if vm.status.phase is not VMPhase.UNKNOWN:
        return vm.status.phase in _WAS_RUNNING
    seen = [t for t in vm.status.phase_transition_timestamps if t.phase is not VMPhase.UNKNOWN]
    last = max(seen, key=lambda t: (t.at, t.phase in _WAS_RUNNING), default=None)
    return last is not None and last.phase in _WAS_RUNNING


def decide_power(vm: VirtualMachine, *, active: bool, stopped: StopReason | None, now: datetime) -> Decision:
    """What should be, from what was decided before and what has happened since.

    `active`: the domain runs (or is paused) as far as is known. `stopped`: how it ended, once that is known.
    """
    power = _by_policy(vm, active=active, now=now)
    if stopped is not None and vm.status.power is not None and not active:
        power = _by_stop(vm, power, stopped, now)
    return _by_request(vm, power, active=active, now=now)


def _by_policy(vm: VirtualMachine, *, active: bool, now: datetime) -> Power:
    policy, before = vm.spec.run_policy, vm.status.power
    if before is not None and before.run_policy is policy:
        return before
    if policy is RunPolicy.MANUAL:
        state = before.state if before is not None else (PowerState.ON if active else PowerState.OFF)
    else:
        state = PowerState.ON if policy in _CONTINUES else PowerState.OFF
    return Power(state=state, reason="RunPolicy", run_policy=policy, since=now)


def _by_stop(vm: VirtualMachine, power: Power, stopped: StopReason, now: datetime) -> Power:
    if power.state is PowerState.OFF or vm.spec.run_policy is RunPolicy.ALWAYS:
        return power
    if stopped is StopReason.GUEST_SHUTDOWN:
        return Power(state=PowerState.OFF, reason="GuestShutdown", run_policy=power.run_policy, since=now)
    unexplained = stopped is StopReason.UNKNOWN and not was_running(vm)
    if vm.spec.run_policy is RunPolicy.MANUAL and not unexplained and stopped is not StopReason.FAILED:
        return Power(state=PowerState.OFF, reason="Crashed", run_policy=power.run_policy, since=now)
    return power


def _by_request(vm: VirtualMachine, power: Power, *, active: bool, now: datetime) -> Decision:
    wanted, known = vm.spec.power_request, vm.status.power_request
    if wanted is None:
        return Decision(power, None)
    if vm.status.power is None:
        return Decision(power, PowerRequestStatus(id=wanted.id, phase=PowerRequestPhase.RECORDED))
    if known is not None and known.id == wanted.id:
        return _continue(Decision(power, known), wanted.action, active=active, now=now)
    request = PowerRequestStatus(id=wanted.id, phase=PowerRequestPhase.RUNNING)
    refusal = _refusal(vm, wanted.action, active=active)
    if refusal:
        return Decision(power, refused(request, refusal, now))
    if wanted.action not in _TURNS:
        return Decision(power, request, wanted.action)
    state, reason = _TURNS[wanted.action]
    asked = Power(state=state, reason=reason, run_policy=power.run_policy, since=now)
    return _continue(Decision(asked, request), wanted.action, active=active, now=now)


def _refusal(vm: VirtualMachine, action: PowerAction, *, active: bool) -> str | None:
    if action is PowerAction.START and vm.spec.run_policy is RunPolicy.HALTED:
        return "runPolicy is Halted: change it to start the VM"
    if action not in _TURNS and not active:
        return "the VM is not running"
    return None


def _continue(decision: Decision, action: PowerAction, *, active: bool, now: datetime) -> Decision:
    """A request that is under way: done, or to be carried on (after a restart of ours too)."""
    request = decision.request
    if request is None or request.phase is not PowerRequestPhase.RUNNING:
        return decision
    if action in _REPEATABLE and active:
        return replace(decision, action=action)
    note = None
    if action not in _TURNS:
        note = (
            "the host's answer was lost, or the controller restarted: it may not have taken effect, and is not repeated"
        )
    elif active is not (action is PowerAction.START):
        return decision
    done = {"phase": PowerRequestPhase.SUCCEEDED, "completed_at": now, "message": note}
    return replace(decision, request=request.model_copy(update=done))


def succeeded(request: PowerRequestStatus, now: datetime) -> PowerRequestStatus:
    """The request, done."""
    return request.model_copy(update={"phase": PowerRequestPhase.SUCCEEDED, "completed_at": now})


def refused(request: PowerRequestStatus, why: str, now: datetime) -> PowerRequestStatus:
    """The request, which the VM or its host does not take."""
    return request.model_copy(update={"phase": PowerRequestPhase.REFUSED, "message": why[:1024], "completed_at": now})


def next_failure(before: StartFailure | None, message: str, now: datetime) -> StartFailure:
    """One more failure: the first is tried again at once, then after 5, 10, 20 … at most 300 seconds."""
    stale = before is not None and (now - before.last_at).total_seconds() > STABLE_AFTER + LONGEST_BACK_OFF
    count = 1 if before is None or stale else before.count + 1
    delay = 0.0 if count == 1 else min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** (count - 2))
    return StartFailure(count=count, last_at=now, next_at=now + timedelta(seconds=delay), message=message[:512])


def forgotten(failure: StartFailure | None, running_since: datetime | None, now: datetime) -> StartFailure | None:
    """The failures, or None once the VM has run for long enough since."""
    if failure is None or running_since is None or running_since < failure.last_at:
        return failure
    return None if (now - running_since).total_seconds() >= STABLE_AFTER else failure
