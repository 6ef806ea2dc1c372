"""What is done about a VM: rules that hold for any status and any observation."""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from crds.virtual_machine import PowerAction, PowerState, VirtualMachine, VMPhase
from drivers.model import ACTIVE, DomainState, Identity, StopReason
from reconcilers.ownership import AskPerson, Claim, HostFact, MayStart, MustWait, RunsOn, ownership
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
    Stamp,
    Start,
    Tray,
    Undefine,
)
from tests.unit.reconcilers.builders import after, vm
from tests.unit.reconcilers.deciding import NOW, applied
from tests.unit.reconcilers.fakes import INSTALLATION, domain
from xmlgen.sections import Changes

HOSTS = ("kvm1", "kvm2")
NEEDS = (None, stalled("DiskNotFound", "no disk"), progressing("DisksNotReady", "soon", 60))

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
