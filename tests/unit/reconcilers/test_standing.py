"""Ready, Reconciling, Stalled: the table, and when time runs out."""

from __future__ import annotations

import pytest

from reconcilers.standing import Verdict, conditions, news, progressing, ready, seconds_left, stalled, unknown
from tests.unit.reconcilers.builders import VmBuilder, after, vm


def three(verdict: Verdict, built: VmBuilder | None = None, now: float = 0) -> tuple[str, str, str]:
    """(Ready, Reconciling, Stalled), as they would be written at that time."""
    found = conditions((built or vm()).build(), verdict, after(now))
    by_type = {c["type"]: c for c in found}
    for c in found:
        assert c["reason"] == verdict.reason
        assert c["observedGeneration"] == 1
        if c["status"] == "False" and c["type"] != "Ready":
            assert c["message"] == ""
    assert by_type["Ready"]["message"] == verdict.message
    return by_type["Ready"]["status"], by_type["Reconciling"]["status"], by_type["Stalled"]["status"]


def since(built: VmBuilder, reason: str, seconds: float) -> VmBuilder:
    return built.condition("Reconciling", "True", reason, since=seconds)


START = progressing("Starting", "the VM is being started", 120)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (ready("Running"), ("True", "False", "False")),
        (START, ("False", "True", "False")),
        (stalled("DiskNotFound", "there is no Disk"), ("False", "False", "True")),
        (unknown("HostUnreachable", "host kvm1 does not answer"), ("Unknown", "False", "True")),
        (progressing("CrashBackOff", "failed 5 times", 0), ("False", "True", "True")),
    ],
)
def test_the_table(verdict, expected):
    assert three(verdict) == expected


def test_what_takes_too_long_is_stalled_and_goes_on():
    begun = since(vm(), "Starting", 100)
    assert three(START, begun, 219) == ("False", "True", "False")
    assert three(START, begun, 220) == ("False", "True", "True")
    assert three(START, begun, 9999) == ("False", "True", "True")
    assert three(ready("Running"), begun, 9999) == ("True", "False", "False")


def test_how_much_time_is_left():
    begun = since(vm(), "Starting", 100).build()
    assert seconds_left(begun, START, after(100)) == 120
    assert seconds_left(begun, START, after(190)) == 30
    assert seconds_left(begun, START, after(500)) == 0
    assert seconds_left(begun, ready("Running"), after(500)) is None
    assert seconds_left(vm().build(), START, after(500)) == 120


def test_another_reason_is_another_piece_of_work_with_time_of_its_own():
    begun = since(vm(), "Importing", 0)
    assert seconds_left(begun.build(), START, after(500)) == 120
    found = {c["type"]: c for c in conditions(begun.build(), START, after(500))}
    assert found["Reconciling"]["lastTransitionTime"] == "2026-11-20T12:08:20Z"


def test_the_same_work_keeps_its_time():
    begun = since(vm(), "Starting", 0)
    found = {c["type"]: c for c in conditions(begun.build(), START, after(60))}
    assert found["Reconciling"]["lastTransitionTime"] == "2026-11-20T12:00:00Z"


def test_time_begins_when_reconciling_begins():
    was_ready = vm().condition("Reconciling", "False", "Running", since=0)
    assert seconds_left(was_ready.build(), START, after(9000)) == 120
    found = {c["type"]: c for c in conditions(was_ready.build(), START, after(9000))}
    assert found["Reconciling"]["lastTransitionTime"] == "2026-11-20T14:30:00Z"


def test_nothing_changes_while_nothing_happens():
    obj = vm().build()
    first = conditions(obj, ready("Running"), after(0))
    settled = vm().status(conditions=first).build()
    assert conditions(settled, ready("Running"), after(9000)) == first


def test_a_clock_that_was_set_back_gives_more_time_and_fails_nothing():
    begun = since(vm(), "Starting", 1000).build()
    left = seconds_left(begun, START, after(0))
    assert left is not None
    assert left >= 120


def test_paused_is_said_of_every_kind_while_the_annotation_is_set():
    obj = vm().build()
    assert "Paused" not in {c["type"] for c in conditions(obj, ready("Running"), after(0))}
    held = obj.metadata.model_copy(update={"annotations": {"hostler.dev/paused": "alice"}})
    found = conditions(obj.model_copy(update={"metadata": held}), ready("Running"), after(0))
    paused = next(c for c in found if c["type"] == "Paused")
    assert (paused["status"], paused["reason"]) == ("True", "Paused")
    assert "alice" in paused["message"]


def test_what_is_told_of_an_object_that_is_held_up():
    lacks = stalled("DiskNotFound", "there is no Disk")
    known = vm().condition("Stalled", "True", "DiskNotFound")

    def told(built: VmBuilder, verdict: Verdict) -> tuple[str, str] | None:
        return news(built.build(), conditions(built.build(), verdict, after(0)))

    assert told(vm(), lacks) == ("DiskNotFound", "there is no Disk")
    assert told(known, lacks) is None, "once"
    assert told(known, unknown("HostUnreachable", "kvm1")) == ("HostUnreachable", "kvm1")
    assert told(known, ready("Running")) is None
    assert told(vm(), START) is None
