"""What is done about a VM that is to run, read aloud; `test_vm_decide_rules` attacks it with any status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crds.virtual_machine import PowerAction, PowerState, VMPhase
from drivers.model import StopReason
from reconcilers.ownership import MayStart, Ownership
from reconcilers.standing import stalled
from reconcilers.virtual_machine.plan import Act, Apply, Destroy, Nothing, Shutdown, Stamp, Start, Tray, Undefine
from tests.unit.reconcilers.builders import vm
from tests.unit.reconcilers.deciding import NOWHERE, ended, halted, look, runs, verdict
from xmlgen.sections import Changes


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
