"""Whether a VM should run: the table row by row, power requests, and the back-off."""

from __future__ import annotations

from datetime import timedelta

import pytest

from crds.virtual_machine import PowerAction, PowerState, RunPolicy, StartFailure, VirtualMachine
from drivers.model import StopReason
from reconcilers.virtual_machine.power import decide_power, forgotten, next_failure, refused, succeeded, was_running
from tests.unit.reconcilers.builders import VmBuilder, after, at, vm, written

POLICIES = ("Always", "RerunOnFailure", "Manual", "Halted")
NOW = after(100)


def decided(built: VmBuilder | VirtualMachine, *, active: bool = False, stopped: StopReason | None = None):
    obj = built.build() if isinstance(built, VmBuilder) else built
    return decide_power(obj, active=active, stopped=stopped, now=NOW)


def kept(built: VmBuilder, decision) -> VirtualMachine:
    """The VM as it is once the decision is written down."""
    found: VirtualMachine = written(built.build(), power=decision.power, powerRequest=decision.request)
    return found


# The table -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "state"), list(zip(POLICIES, ("On", "On", "Off", "Off"), strict=True)))
def test_first_seen(policy, state):
    decision = decided(vm(policy=policy))
    assert (decision.power.state, decision.power.reason) == (state, "RunPolicy")
    assert decision.power.run_policy == policy
    assert decision.power.since == NOW


@pytest.mark.parametrize(("policy", "state"), list(zip(POLICIES, ("On", "On", "On", "Off"), strict=True)))
def test_first_seen_while_it_runs_already(policy, state):
    assert decided(vm(policy=policy), active=True).power.state == state


ENDS = {
    StopReason.GUEST_SHUTDOWN: ("On", "Off", "Off", "Off"),
    StopReason.CRASHED: ("On", "On", "Off", "Off"),
    StopReason.DESTROYED: ("On", "On", "Off", "Off"),
    StopReason.FAILED: ("On", "On", "On", "Off"),
    StopReason.UNKNOWN: ("On", "On", "Off", "Off"),
}


@pytest.mark.parametrize("reason", ENDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_what_follows_an_end(reason, policy):
    was = vm(policy=policy).running_on("kvm1").power("Off" if policy == "Halted" else "On")
    decision = decided(was, stopped=reason)
    assert decision.power.state == ENDS[reason][POLICIES.index(policy)]
    if decision.power.state is PowerState.OFF and policy != "Halted":
        assert decision.power.reason == ("GuestShutdown" if reason is StopReason.GUEST_SHUTDOWN else "Crashed")


@pytest.mark.parametrize("action", ["Shutdown", "ForceOff"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_requested_stop_holds_until_start_or_another_policy(policy, action):
    asked = vm(policy=policy).running_on("kvm1").requests("1", "Reset", "Recorded").requests("2", action)
    first = decided(asked, active=True)
    assert first.power.state is PowerState.OFF
    assert first.request is not None
    assert first.request.phase == "Running"
    # Off, and stays so, whatever the end is said to have been.
    off = kept(asked, first)
    for reason in StopReason:
        again = decided(off, stopped=reason)
        assert again.power.state is PowerState.OFF
        assert again.request is not None
        assert again.request.phase == "Succeeded"
    other = "Always" if policy != "Always" else "RerunOnFailure"
    edited = off.model_copy(update={"spec": off.spec.model_copy(update={"run_policy": RunPolicy(other)})})
    assert decided(edited).power.state is PowerState.ON


@pytest.mark.parametrize("policy", ["Always", "RerunOnFailure", "Manual"])
def test_a_requested_start_turns_it_on_again(policy):
    off = vm(policy=policy).power("Off", "PowerRequest").requests("3", "Start")
    decision = decided(off)
    assert decision.power.state is PowerState.ON
    assert decision.request is not None
    assert decision.request.phase == "Running"
    assert decided(kept(off, decision), active=True).request.phase == "Succeeded"


def test_a_policy_edit_to_manual_leaves_it_as_it_is():
    for state in ("On", "Off"):
        was = vm(policy="Manual").power(state, policy="Always")
        assert decided(was, active=state == "On").power.state == state


def test_a_policy_edit_to_halted_stops_it():
    was = vm(policy="Halted").running_on("kvm1").power("On", policy="Always")
    assert decided(was, active=True).power.state is PowerState.OFF


def test_nothing_new_is_decided_while_nothing_happens():
    for policy in POLICIES:
        was = vm(policy=policy).power("On")
        assert decided(was, active=True).power == was.build().status.power


# Power requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", list(PowerAction))
@pytest.mark.parametrize("active", [True, False])
def test_a_request_that_is_there_at_creation_is_recorded_and_never_run(action, active):
    new = vm(policy="Manual").requests("7", action)
    decision = decided(new, active=active)
    assert decision.action is None
    assert decision.request is not None
    assert (decision.request.id, decision.request.phase) == ("7", "Recorded")
    assert decision.power.state is (PowerState.ON if active else PowerState.OFF)
    again = decided(kept(new, decision), active=active)
    assert (again.action, again.request) == (None, decision.request)
    assert again.power == decision.power


RUNNING_ACTIONS = ("Reboot", "Reset", "Pause", "Resume")


@pytest.mark.parametrize("action", RUNNING_ACTIONS)
def test_an_action_for_a_running_guest_is_taken(action):
    decision = decided(vm().running_on("kvm1").requests("2", action), active=True)
    assert decision.action == action
    assert decision.request is not None
    assert decision.request.phase == "Running"
    assert decision.power.state is PowerState.ON


@pytest.mark.parametrize("action", RUNNING_ACTIONS)
def test_an_action_for_a_running_guest_is_refused_when_there_is_none(action):
    decision = decided(vm().power("On").requests("2", action))
    assert decision.action is None
    assert decision.request is not None
    assert decision.request.phase == "Refused"
    assert decision.request.message == "the VM is not running"
    assert decision.request.completed_at == NOW


def test_start_is_refused_while_the_policy_is_halted():
    decision = decided(vm(policy="Halted").power("Off").requests("2", "Start"))
    assert decision.request is not None
    assert decision.request.phase == "Refused"
    assert "Halted" in (decision.request.message or "")
    assert decision.power.state is PowerState.OFF


@pytest.mark.parametrize("action", ["Reboot", "Reset"])
def test_a_reboot_is_never_done_twice(action):
    """The controller died between noting the request and its end: nobody knows, and it is said so."""
    decision = decided(vm().running_on("kvm1").requests("2", action, "Running"), active=True)
    assert decision.action is None
    assert decision.request is not None
    assert decision.request.phase == "Succeeded"
    assert "not repeated" in (decision.request.message or "")


@pytest.mark.parametrize("action", ["Pause", "Resume"])
def test_a_pause_that_was_interrupted_is_carried_on(action):
    asked = vm().running_on("kvm1").requests("2", action, "Running")
    assert decided(asked, active=True).action == action
    assert decided(asked, active=False).action is None


@pytest.mark.parametrize("phase", ["Recorded", "Succeeded", "Refused"])
@pytest.mark.parametrize("action", list(PowerAction))
def test_a_request_that_has_ended_is_over(phase, action):
    asked = vm().running_on("kvm1").requests("2", action, phase)
    decision = decided(asked, active=True)
    assert decision.action is None
    assert decision.request == asked.build().status.power_request
    assert decision.power.state is PowerState.ON


def test_a_new_id_is_a_new_request():
    asked = vm().running_on("kvm1").status(powerRequest={"id": "1", "phase": "Succeeded"}).requests("2", "Reboot")
    assert decided(asked, active=True).action is PowerAction.REBOOT


def test_a_request_that_asks_for_what_is_already_so_is_done_at_once():
    assert decided(vm().running_on("kvm1").requests("2", "Start"), active=True).request.phase == "Succeeded"
    assert decided(vm().power("Off").requests("2", "Shutdown")).request.phase == "Succeeded"


def test_force_off_is_told_from_shutdown():
    asked = vm().running_on("kvm1")
    assert decided(asked.requests("2", "Shutdown"), active=True).power.reason == "PowerRequest"
    assert decided(asked.requests("3", "ForceOff"), active=True).power.reason == "ForceOff"


def test_a_request_ends_with_its_words():
    request = decided(vm().running_on("kvm1").requests("2", "Reboot"), active=True).request
    assert succeeded(request, NOW).phase == "Succeeded"
    ended = refused(request, "no", NOW)
    assert (ended.phase, ended.message, ended.completed_at) == ("Refused", "no", NOW)


# Whether it ran ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "ran"),
    [("Running", True), ("Paused", True), ("Stopping", True), ("Starting", False), ("Stopped", False), (None, False)],
)
def test_whether_it_ran_when_it_was_last_seen(phase, ran):
    assert was_running(vm().status(phase=phase).build()) is ran


def test_whether_it_ran_before_its_host_fell_silent():
    def silent(*phases):
        seen = [{"phase": p, "at": at(t)} for t, p in enumerate(phases)]
        return was_running(vm().status(phase="Unknown", phaseTransitionTimestamps=seen).build())

    assert silent("Starting", "Running", "Unknown")
    assert not silent("Running", "Stopping", "Stopped", "Unknown")
    assert not silent("Unknown")


# Back-off ------------------------------------------------------------------------------------------------------------


def test_the_back_off_series():
    failure: StartFailure | None = None
    delays, now = [], NOW
    for _ in range(10):
        failure = next_failure(failure, "QEMU died", now)
        delays.append((failure.next_at - now).total_seconds())
        now = failure.next_at
    assert delays == [0, 5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert failure is not None
    assert failure.count == 10


def test_a_failure_long_ago_counts_no_more():
    first = next_failure(next_failure(None, "x", NOW), "x", NOW)
    assert next_failure(first, "x", NOW + timedelta(seconds=899)).count == 3
    assert next_failure(first, "x", NOW + timedelta(seconds=901)).count == 1


def test_a_long_message_is_cut():
    assert len(next_failure(None, "x" * 5000, NOW).message) == 512


def test_failures_are_forgotten_after_ten_minutes_of_running():
    failure = next_failure(None, "x", NOW)
    assert forgotten(failure, NOW, NOW + timedelta(seconds=599)) is failure
    assert forgotten(failure, NOW, NOW + timedelta(seconds=600)) is None
    assert forgotten(failure, NOW - timedelta(seconds=1), NOW + timedelta(hours=1)) is failure
    assert forgotten(failure, None, NOW + timedelta(hours=1)) is failure
    assert forgotten(None, NOW, NOW) is None
