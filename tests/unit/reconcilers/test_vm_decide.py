"""What is done about a VM: attacked with any status and any observation, then read aloud."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.virtual_machine import PowerAction, PowerState, StartFailure, VirtualMachine, VMPhase
from drivers.hypervisor import ACTIVE, DomainState, Identity, StopReason
from reconcilers.ownership import AskPerson, Claim, HostFact, MayStart, MustWait, Ownership, RunsOn, ownership
from reconcilers.registry import CRITICAL
from reconcilers.standing import Standing, progressing, stalled
from reconcilers.virtual_machine.decide import decide
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
    Tray,
    Undefine,
)
from tests.unit.reconcilers.builders import VmBuilder, after, vm, written
from tests.unit.reconcilers.fakes import INSTALLATION, domain
from xmlgen.sections import Changes

NOW = after(1000)
HOSTS = ("kvm1", "kvm2")
NEEDS = (None, stalled("DiskNotFound", "no disk"), progressing("DisksNotReady", "soon", 60))


# Any status, any observation -----------------------------------------------------------------------------------------

times = st.integers(-2000, 1000)


@st.composite
def virtual_machines(draw: st.DrawFn) -> VirtualMachine:
    built = vm(policy=draw(st.sampled_from(["Always", "RerunOnFailure", "Manual", "Halted"])))
    built.spec(lifecycle={"deletionPolicy": draw(st.sampled_from(["Delete", "Delete", "Orphan"]))})
    built.meta(generation=draw(st.sampled_from([1, 2])))
    if draw(st.booleans()):
        policy = draw(st.sampled_from([built.obj["spec"]["runPolicy"], "Always", "Manual", "Halted"]))
        state = draw(st.sampled_from(["On", "Off"] if policy != "Halted" else ["Off"]))
        reason = draw(st.sampled_from(["RunPolicy", "PowerRequest", "ForceOff", "GuestShutdown", "Crashed"]))
        built.power(state, reason, policy=policy, since=draw(times))
    if built.obj["status"].get("power") and draw(st.booleans()):
        candidates = draw(st.lists(st.sampled_from(HOSTS), unique=True))
        host = draw(st.sampled_from([None, *candidates]))
        built.placed(host, epoch=draw(st.integers(0, 3)), since=draw(times))
        built.obj["status"]["placement"]["candidates"] = candidates
    phases = [None, *(p.value for p in VMPhase)]
    built.status(phase=draw(st.sampled_from(phases)), uuid=draw(st.sampled_from([None, "uid-web"])))
    if draw(st.booleans()):
        phase = draw(st.sampled_from([None, "Recorded", "Running", "Succeeded", "Refused"]))
        built.requests("2", draw(st.sampled_from(list(PowerAction))), phase)
    if draw(st.booleans()):
        built.failed(draw(st.integers(1, 8)), last=draw(times), next_=draw(st.integers(-2000, 2000)))
    if draw(st.integers(0, 3)) == 0:
        built.deleting(draw(times))
    names = ["hostler.dev/paused", "poweron.check.hostler.dev/backup", "delete.check.hostler.dev/backup"]
    built.annotated(*draw(st.lists(st.sampled_from(names), unique=True, max_size=2)))
    return built.build()


@st.composite
def host_facts(draw: st.DrawFn, host: str) -> HostFact:
    fresh = draw(st.booleans())
    state = draw(st.sampled_from([None, *DomainState]))
    if state is None:
        return HostFact(host, fresh, None)
    reason = None if state in ACTIVE else draw(st.sampled_from(list(StopReason)))
    owner = draw(st.sampled_from([INSTALLATION] * 7 + ["another"]))
    identity = Identity(owner, "default", "web", draw(st.sampled_from(["uid-web", "dead"])), draw(st.integers(0, 4)))
    paused = draw(st.sampled_from(["user", "ioerror"])) if state is DomainState.PAUSED else ""
    found = domain("default.web", uid="uid-web", state=state, stop_reason=reason, identity=identity)
    return HostFact(host, fresh, replace(found, paused_reason=paused))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[VirtualMachine, Observed]:
    obj = draw(virtual_machines())
    placement = obj.status.placement
    known = frozenset(placement.candidates) if placement is not None else frozenset(HOSTS)
    epoch = placement.epoch if placement is not None else 0
    claim = Claim(INSTALLATION, "default", "web", "uid-web", epoch, known)
    owned = ownership(claim, (draw(host_facts("kvm1")), draw(host_facts("kvm2"))))
    changes = None
    if isinstance(owned.answer, RunsOn):
        kinds = [
            None,
            Changes(),
            Changes(attach=("ua-disk-a",)),
            Changes(restart=("cpu",)),
            Changes(update=("ua-nic-a",)),
            Changes(update=("ua-disk-cd",)),
        ]
        changes = draw(st.sampled_from(kinds))
    trays = draw(st.sampled_from([{}, {"ua-disk-cd": Tray(3, 3)}, {"ua-disk-cd": Tray(40, 8)}]))
    seen = Observed(
        now=NOW,
        ownership=owned,
        lost=draw(st.frozensets(st.sampled_from(HOSTS))),
        needs=draw(st.sampled_from(NEEDS)),
        lacking=draw(st.booleans()),
        changes=changes,
        trays=trays if changes is not None and "ua-disk-cd" in changes.update else {},
        running_since=draw(st.sampled_from([None, after(0), after(900)])),
        last_shutdown=draw(st.sampled_from([None, 1.0, 20.0])),
    )
    return obj, seen


def only_a_vm_that_should_run_is_started(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    if not isinstance(plan.step, Start):
        return
    answer = seen.ownership.answer
    assert isinstance(answer, MayStart)
    assert plan.step.only == answer.only
    assert seen.needs is None
    assert not obj.metadata.deleting
    assert not [name for name in obj.metadata.annotations if not name.startswith("delete.")]
    power = plan.fields.get("power", obj.status.power)
    assert power.state is PowerState.ON
    assert obj.spec.run_policy != "Halted"
    failure = plan.fields.get("startFailure", obj.status.start_failure)
    assert failure is None or failure.next_at <= NOW


def a_paused_vm_is_left_alone(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    if obj.metadata.paused_by is not None:
        assert plan.step == Nothing()
        assert plan.fields == {}
        assert plan.phase not in (VMPhase.STARTING, VMPhase.STOPPING) or plan.phase is obj.status.phase


def power_is_cut_only_where_it_should_be(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    if not isinstance(plan.step, Destroy):
        return
    stale = seen.ownership.destroy
    if plan.step.hosts == stale:
        return
    answer = seen.ownership.answer
    assert isinstance(answer, RunsOn)
    assert answer.fresh
    assert plan.step.hosts == (answer.host,)
    power = plan.fields.get("power", obj.status.power)
    assert obj.metadata.deleting or power.state is PowerState.OFF


def nothing_is_done_to_what_is_unclear(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    answer = seen.ownership.answer
    silent = isinstance(answer, MustWait) or (isinstance(answer, RunsOn) and not answer.fresh)
    if silent or isinstance(answer, AskPerson):
        assert isinstance(plan.step, Nothing | Release)
        assert plan.fields == {}
        if isinstance(plan.step, Release):
            assert obj.metadata.deleting
            assert plan.step.orphan


def only_a_deleted_vm_is_let_go(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    if isinstance(plan.step, Release):
        assert obj.metadata.deleting
        assert obj.metadata.paused_by is None
        assert not [name for name in obj.metadata.annotations if name.startswith("delete.")]
        if not plan.step.orphan:
            assert isinstance(seen.ownership.answer, MayStart)
            assert plan.step.hosts == seen.ownership.remnants
    elif obj.metadata.deleting:
        assert not isinstance(plan.step, Start | Apply | Stamp)


def definitions_are_removed_only_where_it_is_off(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    if isinstance(plan.step, Undefine):
        assert plan.step.hosts == seen.ownership.remnants != ()


def verdicts_are_bounded_and_worded(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    if plan.verdict is None:
        # Nothing new is known: only while a host is silent for a moment.
        assert isinstance(plan.step, Nothing)
        assert plan.again == 5.0
        return
    assert (plan.verdict.bound is not None) is (plan.verdict.standing is Standing.PROGRESSING)
    if plan.verdict.bound is not None:
        assert 0 <= plan.verdict.bound <= 86400 + 60
    assert plan.verdict.reason.isalnum()
    assert len(plan.verdict.message) < 1500
    if plan.verdict.standing in (Standing.STALLED, Standing.UNKNOWN):
        assert plan.verdict.message
    assert plan.again is None or plan.again > 0


def applied(obj: VirtualMachine, plan: Plan) -> VirtualMachine:
    found: VirtualMachine = written(obj, **plan.fields)
    return found


def only_critical_fields_are_written_and_a_second_look_adds_nothing(
    obj: VirtualMachine, seen: Observed, plan: Plan
) -> None:
    assert set(plan.fields) <= CRITICAL["VirtualMachine"]
    if isinstance(plan.step, Start):
        return  # its placement is written along with it
    after_write = applied(obj, plan)
    again = decide(after_write, seen)
    if isinstance(plan.step, Act) and plan.step.action in (PowerAction.REBOOT, PowerAction.RESET):
        # Done once only: a second look ends the request and does nothing more to the guest.
        assert not isinstance(again.step, Act)
        assert set(again.fields) <= {"powerRequest"}
        return
    assert again.fields == {}
    assert type(again.step) is type(plan.step)


def the_epoch_never_falls_and_the_uuid_stays(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    placement = plan.fields.get("placement")
    before = obj.status.placement
    if placement is not None:
        assert placement.epoch >= seen.ownership.epoch
        assert before is None or placement.epoch >= before.epoch
        assert placement.host is None or placement.host in placement.candidates


def a_candidate_is_given_up_by_a_fact_only(obj: VirtualMachine, seen: Observed, plan: Plan) -> None:
    """One that is not given up: silent, active elsewhere, or defined with an end that nobody knows."""
    placement = plan.fields.get("placement")
    answer = seen.ownership.answer
    if placement is None:
        return
    if isinstance(answer, RunsOn):
        assert set(placement.candidates) == {answer.host, *seen.ownership.others}
    if isinstance(answer, MayStart):
        unknown = set(answer.only or ())
        assert unknown.intersection(seen.ownership.remnants) <= set(placement.candidates) <= unknown


RULES = (
    only_a_vm_that_should_run_is_started,
    a_paused_vm_is_left_alone,
    power_is_cut_only_where_it_should_be,
    nothing_is_done_to_what_is_unclear,
    only_a_deleted_vm_is_let_go,
    definitions_are_removed_only_where_it_is_off,
    verdicts_are_bounded_and_worded,
    only_critical_fields_are_written_and_a_second_look_adds_nothing,
    the_epoch_never_falls_and_the_uuid_stays,
    a_candidate_is_given_up_by_a_fact_only,
)


@settings(max_examples=int(os.environ.get("HOSTLER_EXAMPLES", "300")), deadline=None)
@given(scenes())
def test_the_rules_hold_whatever_is_declared_and_observed(scene):
    obj, seen = scene
    plan = decide(obj, seen)
    for rule in RULES:
        rule(obj, seen, plan)


# Read aloud ----------------------------------------------------------------------------------------------------------


def runs(
    host: str = "kvm1", *, fresh: bool = True, destroy: tuple[str, ...] = (), state: str = "running", **changes: Any
) -> Ownership:
    epoch = changes.pop("epoch", 1)
    uid = changes.pop("stamped", "uid-web")
    remnants = changes.pop("remnants", ())
    identity = Identity(INSTALLATION, "default", "web", uid, epoch)
    found = domain("default.web", uid="uid-web", state=DomainState(state), identity=identity, **changes)
    return Ownership(RunsOn(host, found, fresh), epoch, destroy, remnants)


def ended(reason: StopReason, *, epoch: int = 1) -> Ownership:
    identity = Identity(INSTALLATION, "default", "web", "uid-web", epoch)
    found = domain("default.web", uid="uid-web", state=DomainState.SHUT_OFF, stop_reason=reason, identity=identity)
    return Ownership(MayStart(None, found), epoch, (), ("kvm1",))


NOWHERE = Ownership(MayStart(None), 1)


def look(built: VmBuilder, owned: Ownership, **changes: Any) -> Plan:
    return decide(built.build(), Observed(**{"now": NOW, "ownership": owned, "lost": frozenset(), **changes}))


def verdict(plan: Plan) -> tuple[str, str]:
    assert plan.verdict is not None
    return plan.verdict.standing.value, plan.verdict.reason


def test_a_new_vm_is_started_anywhere():
    plan = look(vm(), NOWHERE)
    assert plan.step == Start(None)
    assert plan.fields["power"].state is PowerState.ON
    assert verdict(plan) == ("Progressing", "Starting")
    assert plan.phase is VMPhase.STARTING


def test_a_start_that_is_under_way_goes_on_where_it_is():
    only = frozenset({"kvm1"})
    plan = look(vm().power("On").placed("kvm1"), Ownership(MayStart(only), 1))
    assert plan.step == Start(only)


def test_what_is_missing_is_said_and_nothing_started():
    plan = look(vm(), NOWHERE, needs=stalled("DiskNotFound", "there is no Disk root"))
    assert plan.step == Nothing()
    assert verdict(plan) == ("Stalled", "DiskNotFound")


def test_a_crash_is_counted_once_while_something_is_missing():
    missing = stalled("DiskNotFound", "there is no Disk root")
    plan = look(vm().running_on("kvm1"), ended(StopReason.CRASHED), needs=missing)
    assert verdict(plan) == ("Stalled", "DiskNotFound")
    assert plan.fields["startFailure"].count == 1
    assert (plan.fields["placement"].host, plan.fields["placement"].candidates) == (None, [])


def test_a_vm_that_waits_after_a_failed_start_holds_no_place():
    failed = vm().power("On").placed("kvm1").failed(3, last=900, next_=2000)
    plan = look(failed, Ownership(MayStart(frozenset({"kvm1"})), 1))
    assert plan.phase is VMPhase.CRASHED
    assert (plan.fields["placement"].host, plan.fields["placement"].candidates) == (None, ["kvm1"])


def test_a_stop_that_was_asked_for_is_no_failure_though_the_vm_is_to_run_again():
    stopping = vm().power("Off", policy="Halted").placed("kvm1")
    missing = stalled("DiskNotFound", "there is no Disk root")
    plan = look(stopping, ended(StopReason.DESTROYED), needs=missing)
    assert "startFailure" not in plan.fields
    assert plan.fields["power"].state is PowerState.ON
    assert plan.fields["placement"].host is None
    assert look(stopping, ended(StopReason.DESTROYED)).step == Start(None)


def test_a_start_waits_for_who_holds_it_up():
    plan = look(vm().annotated("poweron.check.hostler.dev/backup"), NOWHERE)
    assert plan.step == Nothing()
    assert verdict(plan) == ("Stalled", "PowerOnHeld")
    assert plan.verdict is not None
    assert "backup" in plan.verdict.message


def test_a_running_vm_is_left_running():
    plan = look(vm().running_on("kvm1"), runs())
    assert (plan.step, plan.fields, verdict(plan)) == (Nothing(), {}, ("Ready", "Running"))


def test_a_running_vm_that_lacks_something_goes_on_running_and_is_not_ready():
    missing = stalled("DiskNotFound", "there is no Disk x")
    plan = look(vm().running_on("kvm1"), runs(), needs=missing, lacking=True)
    assert (plan.step, plan.verdict, plan.phase) == (Nothing(), missing, VMPhase.RUNNING)
    whole = look(vm().running_on("kvm1"), runs(), needs=missing)
    assert verdict(whole) == ("Ready", "Running"), "all that is declared is there; it could not be started now"
    assert whole.verdict is not None
    assert "there is no Disk x" in whole.verdict.message


MEDIUM = Changes(update=("ua-disk-cd",))


@pytest.mark.parametrize(
    ("first", "last", "asked", "forced", "again"),
    [
        (0, 0, False, False, 5),
        (24, 4, False, False, 1),
        (28, 3, False, False, 2),
        (28, 5, True, False, None),
        (30, 1, True, True, None),
        (300, 300, True, True, None),
    ],
)
def test_a_guest_that_holds_a_tray_is_asked_again_and_at_last_forced(first, last, asked, forced, again):
    plan = look(vm().running_on("kvm1"), runs(), changes=MEDIUM, trays={"ua-disk-cd": Tray(first, last)})
    apply = Apply("kvm1", "uid-web", MEDIUM, frozenset({"ua-disk-cd"} if forced else ()))
    assert plan.step == (apply if asked else Nothing())
    assert (verdict(plan), plan.again) == (("Progressing", "TrayLocked"), again)
    assert plan.verdict is not None
    assert "drive cd" in plan.verdict.message


def test_other_changes_do_not_wait_for_a_tray():
    changes = Changes(attach=("ua-disk-a",), update=("ua-disk-cd", "ua-nic-lan"))
    plan = look(vm().running_on("kvm1"), runs(), changes=changes, trays={"ua-disk-cd": Tray(2, 2)})
    assert isinstance(plan.step, Apply)
    assert plan.step.changes == Changes(attach=("ua-disk-a",), update=("ua-nic-lan",))
    assert plan.step.force == frozenset()


def test_an_older_copy_is_destroyed_first():
    plan = look(vm().running_on("kvm1"), runs(destroy=("kvm2",)))
    assert plan.step == Destroy(("kvm2",))


@pytest.mark.parametrize(("stamped", "epoch"), [("dead", 1), ("uid-web", 2)])
def test_a_domain_is_stamped_anew(stamped, epoch):
    owned = replace(runs(stamped=stamped, epoch=1), epoch=epoch)
    plan = look(vm().running_on("kvm1"), owned)
    assert plan.step == Stamp("kvm1", "uid-web")


def test_a_higher_epoch_on_a_host_is_learnt():
    plan = look(vm().running_on("kvm1", epoch=1), runs("kvm2", epoch=7))
    assert plan.fields["placement"].epoch == 7
    assert plan.fields["placement"].host == "kvm2"
    assert plan.step == Nothing()


def test_a_change_is_applied_and_one_that_needs_a_restart_is_not():
    assert isinstance(look(vm().running_on("kvm1"), runs(), changes=Changes(attach=("ua-disk-a",))).step, Apply)
    assert look(vm().running_on("kvm1"), runs(), changes=Changes(restart=("cpu",))).step == Nothing()


def test_what_an_earlier_run_left_defined_elsewhere_is_removed():
    assert look(vm().running_on("kvm1"), runs(remnants=("kvm2",))).step == Undefine(("kvm2",))


def test_a_paused_guest_is_shown_and_left():
    plan = look(vm().running_on("kvm1"), runs(state="paused", paused_reason="user"))
    assert (verdict(plan), plan.phase) == (("Ready", "Paused"), VMPhase.PAUSED)
    broken = look(vm().running_on("kvm1"), runs(state="paused", paused_reason="ioerror"))
    assert verdict(broken) == ("Stalled", "StorageError")


def test_a_request_for_the_guest_is_noted_before_it_is_done():
    plan = look(vm().running_on("kvm1").requests("2", "Reboot"), runs())
    assert plan.step == Act("kvm1", "uid-web", PowerAction.REBOOT)
    assert plan.fields["powerRequest"].phase == "Running"


def test_a_paused_vm_shows_what_is_and_not_what_would_be():
    off = look(vm().paused(), NOWHERE)
    assert (off.step, verdict(off), off.phase) == (Nothing(), ("Stalled", "Paused"), VMPhase.PENDING)
    on = look(vm(policy="Halted").running_on("kvm1").power("Off").paused(), runs())
    assert (on.step, verdict(on), on.phase) == (Nothing(), ("Stalled", "Paused"), VMPhase.RUNNING)
    fine = look(vm().running_on("kvm1").paused(), runs())
    assert (verdict(fine), fine.phase) == (("Ready", "Running"), VMPhase.RUNNING)


def test_a_request_is_not_noted_before_its_turn():
    """Noted and not carried out, it would count as done on the next look."""
    first = look(vm().running_on("kvm1").requests("2", "Reboot"), runs(stamped="dead"))
    assert isinstance(first.step, Stamp)
    assert "powerRequest" not in first.fields
    stopping = look(halted().requests("2", "Reboot"), runs())
    assert isinstance(stopping.step, Shutdown)
    assert "powerRequest" not in stopping.fields
    off = look(halted().requests("2", "Reboot"), ended(StopReason.GUEST_SHUTDOWN))
    assert off.fields["powerRequest"].phase == "Refused"


# Stopping ------------------------------------------------------------------------------------------------------------


def halted(since: float = 990) -> VmBuilder:
    return vm(policy="Halted").running_on("kvm1").power("Off", since=since)


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
