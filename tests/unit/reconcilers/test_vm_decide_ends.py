"""What is done about a VM that stops, ended, is silent or is deleted, read aloud."""

from __future__ import annotations

import pytest

from crds.virtual_machine import PowerAction, PowerState, StartFailure, VMPhase
from drivers.model import StopReason
from reconcilers.ownership import AskPerson, MayStart, MustWait, Ownership
from reconcilers.virtual_machine.decide import decide
from reconcilers.virtual_machine.plan import Act, Destroy, Nothing, Observed, Release, Shutdown, Start, Undefine
from tests.unit.reconcilers.builders import after, vm
from tests.unit.reconcilers.deciding import NOW, NOWHERE, applied, ended, halted, look, runs, verdict

# Stopping ------------------------------------------------------------------------------------------------------------


def test_the_guest_is_asked_first():
    plan = look(halted(), runs())
    assert plan.step == Shutdown("kvm1", "uid-web")
    assert verdict(plan) == ("Progressing", "Stopping")
    assert plan.verdict is not None
    assert plan.verdict.bound == 180


def test_a_guest_that_was_asked_is_given_time_and_asked_again():
    assert look(halted(), runs(), last_shutdown=5.0).step == Nothing()
    assert look(halted(), runs(), last_shutdown=5.0).again == 10.0
    assert isinstance(look(halted(), runs(), last_shutdown=15.0).step, Shutdown)


def test_its_power_is_cut_when_its_time_is_over():
    assert look(halted(since=1000 - 119), runs(), last_shutdown=5.0).again == 1.0
    assert look(halted(since=1000 - 120), runs()).step == Destroy(("kvm1",))
    quick = halted(since=999).spec(lifecycle={"shutdownTimeoutSeconds": 0})
    assert look(quick, runs()).step == Destroy(("kvm1",))


def test_force_off_asks_nobody():
    plan = look(vm().running_on("kvm1").requests("2", "ForceOff"), runs())
    assert plan.step == Destroy(("kvm1",))


def test_a_paused_guest_is_resumed_to_hear_the_request():
    assert look(halted(), runs(state="paused")).step == Act("kvm1", "uid-web", PowerAction.RESUME)


# Off -----------------------------------------------------------------------------------------------------------------


def test_off_as_declared_leaves_no_definition_and_no_place():
    plan = look(halted(), ended(StopReason.DESTROYED))
    assert plan.step == Undefine(("kvm1",))
    assert verdict(plan) == ("Ready", "Stopped")
    assert plan.fields["placement"].host is None
    assert plan.fields["placement"].candidates == []
    assert plan.fields["placement"].epoch == 1


def test_an_unknown_end_keeps_its_host_until_it_is_undefined_there():
    """A start that was sent earlier may still reach the definition: the host must not be forgotten before."""
    unresolved = Ownership(MayStart(frozenset({"kvm1"})), 1, (), ("kvm1",))
    plan = look(halted(), unresolved)
    assert plan.step == Undefine(("kvm1",))
    assert plan.fields["placement"].candidates == ["kvm1"]
    undefined = look(halted().placed(None, "kvm1"), Ownership(MayStart(frozenset({"kvm1"})), 1))
    assert undefined.fields["placement"].candidates == []


def test_a_manual_vm_that_crashed_stays_off_and_says_so():
    plan = look(vm(policy="Manual").running_on("kvm1"), ended(StopReason.CRASHED))
    assert plan.phase is VMPhase.CRASHED
    assert verdict(plan) == ("Stalled", "Crashed")
    assert plan.fields["power"].state is PowerState.OFF


def test_a_guest_that_shut_itself_down_under_always_is_started_again():
    plan = look(vm().running_on("kvm1"), ended(StopReason.GUEST_SHUTDOWN))
    assert plan.step == Start(None)
    assert plan.fields["startFailure"].count == 1


def test_the_end_of_an_earlier_run_says_nothing_of_this_one():
    """Stopped under epoch 1; a start under epoch 2 was noted, and the controller died before it defined anything."""
    asked = vm(policy="RerunOnFailure").power("On", "PowerRequest").placed("kvm1", epoch=2).status(phase="Starting")
    plan = look(asked, ended(StopReason.GUEST_SHUTDOWN, epoch=1))
    assert isinstance(plan.step, Start)
    assert plan.fields == {}


def test_a_vm_that_was_made_again_is_started_although_its_domain_had_ended():
    plan = look(vm(policy="RerunOnFailure").power("On"), ended(StopReason.GUEST_SHUTDOWN))
    assert isinstance(plan.step, Start)


def test_failures_back_off_and_a_person_is_called_after_five():
    few = look(vm().power("On").failed(2, last=998, next_=1003), NOWHERE)
    assert few.step == Nothing()
    assert (few.again, few.phase) == (3.0, VMPhase.CRASHED)
    assert verdict(few) == ("Progressing", "CrashBackOff")
    many = look(vm().power("On").failed(5, last=998, next_=1038), NOWHERE)
    assert verdict(many) == ("Progressing", "CrashBackOff")
    assert many.verdict is not None
    assert many.verdict.bound == 0, "on its way still, and held up at once"
    assert isinstance(look(vm().power("On").failed(5, last=900, next_=999), NOWHERE).step, Start)


def test_an_end_is_counted_once():
    crashed = vm().running_on("kvm1").failed(1, last=900, next_=900)
    first = look(crashed, ended(StopReason.CRASHED))
    assert isinstance(first.fields["startFailure"], StartFailure)
    assert first.fields["startFailure"].count == 2
    again = decide(applied(crashed.build(), first), Observed(NOW, ended(StopReason.CRASHED), frozenset()))
    assert "startFailure" not in again.fields


def test_failures_are_forgotten_when_it_has_run_for_long():
    plan = look(vm().running_on("kvm1").failed(2, last=0, next_=0), runs(), running_since=after(100))
    assert plan.fields == {"startFailure": None}


# Silence -------------------------------------------------------------------------------------------------------------


def test_a_short_silence_changes_nothing():
    plan = look(vm().running_on("kvm1"), Ownership(MustWait(("kvm1",)), 1))
    assert (plan.step, plan.verdict, plan.phase, plan.again) == (Nothing(), None, VMPhase.RUNNING, 5.0)


def test_a_spec_that_nobody_answered_gets_a_word():
    plan = look(vm().meta(generation=2), Ownership(MustWait(("kvm1",)), 0))
    assert verdict(plan) == ("Progressing", "HostSilent")
    assert plan.phase is VMPhase.PENDING


@pytest.mark.parametrize("owned", [Ownership(MustWait(("kvm1",)), 1), runs(fresh=False)])
def test_a_lost_host_is_unknown_and_nothing_is_started_elsewhere(owned):
    plan = look(vm().running_on("kvm1"), owned, lost=frozenset({"kvm1"}))
    assert (plan.step, plan.phase) == (Nothing(), VMPhase.UNKNOWN)
    assert verdict(plan) == ("Unknown", "HostUnreachable")


# Deletion ------------------------------------------------------------------------------------------------------------


def test_a_deleted_vm_is_stopped_and_then_let_go():
    assert isinstance(look(vm().running_on("kvm1").deleting(995), runs()).step, Shutdown)
    assert look(vm().running_on("kvm1").deleting(0), runs()).step == Destroy(("kvm1",))
    plan = look(vm().running_on("kvm1").deleting(995), ended(StopReason.GUEST_SHUTDOWN))
    assert plan.step == Release(orphan=False, hosts=("kvm1",))


def test_an_orphan_is_left_as_it_is():
    orphan = vm().running_on("kvm1").spec(lifecycle={"deletionPolicy": "Orphan"}).deleting(995)
    assert look(orphan, runs()).step == Release(orphan=True)


def test_a_deletion_waits_for_who_holds_it_up_and_for_who_paused_it():
    held = look(vm().running_on("kvm1").deleting(0).annotated("delete.check.hostler.dev/backup"), runs())
    assert (held.step, verdict(held)) == (Nothing(), ("Stalled", "DeletionHeld"))
    paused = look(vm().running_on("kvm1").deleting(0).paused(), runs())
    assert (paused.step, verdict(paused)) == (Nothing(), ("Stalled", "Paused"))


def test_a_deletion_waits_for_a_host_that_may_hold_the_vm():
    plan = look(vm().running_on("kvm1").deleting(0), Ownership(MustWait(("kvm1",)), 1))
    assert plan.step == Nothing()
    assert verdict(plan) == ("Unknown", "HostUnreachable")


def test_what_belongs_to_somebody_else_is_not_removed_with_the_vm():
    owned = Ownership(AskPerson("OwnedByOther", "theirs"), 1)
    assert look(vm().deleting(0), owned).step == Release(orphan=True)
    assert look(vm().deleting(0), Ownership(AskPerson("RunsTwice", "twice"), 1)).step == Nothing()


def test_times_in_the_future_do_no_harm():
    """A wall clock that was set back."""
    plan = look(vm().running_on("kvm1").power("Off", since=5000).policy("Halted"), runs())
    assert isinstance(plan.step, Shutdown)
