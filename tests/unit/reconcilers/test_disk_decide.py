"""What is done about a disk: never made twice, never over somebody else's, never lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.disk import Disk, DiskPhase
from drivers.model import Volume
from reconcilers.disk.decide import Observed, Plan, Step, decide
from reconcilers.disk.record import Record
from reconcilers.disk.status import status_of
from reconcilers.standing import Standing, progressing, ready
from tests.unit.reconcilers.builders import DiskBuilder, after, disk
from tests.unit.reconcilers.fakes import INSTALLATION
from xmlgen.names import volume_name

GIB = 2**30
NAME = volume_name("default", "root", "uid-root", "qcow2")
MINE = Record(INSTALLATION, "default", "root", "uid-root", NAME, "qcow2")
REBORN = replace(MINE, uid="dead")
OTHERS = replace(MINE, name="other", uid="uid-other")
FOREIGN = replace(MINE, installation="another")
PROD = replace(OTHERS, namespace="prod")
SOURCES: tuple[dict[str, Any] | None, ...] = (
    None,
    {"blank": {}},
    {"http": {"url": "https://example.org/a.img", "checksum": "sha256:" + "0" * 64}},
    {"file": {"path": "a.img", "checksum": "sha256:" + "0" * 64}},
    {"existing": {"path": "a.qcow2"}},
)


def file(size: int = GIB, kind: str = "qcow2") -> Volume:
    return Volume(NAME, f"/srv/vms/{NAME}", kind, size, 0)


def seen(volume: Volume | None = None, record: Record | None = None, *, trashed: bool = False) -> Observed:
    return Observed(volume, record, MINE, trashed)


def look(built: DiskBuilder, observed: Observed) -> Plan:
    return decide(built.build(), observed)


def outcome(plan: Plan) -> tuple[Step, str]:
    return plan.step, plan.verdict.reason


# Any declaration, any storage ----------------------------------------------------------------------------------------


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Disk, Observed]:
    source = draw(st.sampled_from(SOURCES))
    built = disk(**({} if source is None else {"source": source}))
    taken = source is not None and "existing" in source
    built.volume(NAME, whole=draw(st.booleans()), taken_over=taken or draw(st.booleans()))
    volume = draw(st.sampled_from([None, file(), file(GIB // 2), file(2 * GIB), file(kind="raw")]))
    record = draw(st.sampled_from([None, MINE, REBORN, OTHERS, FOREIGN, PROD]))
    rival = draw(st.sampled_from([None, None, "default/other"]))
    return built.build(), Observed(volume, record, MINE, draw(st.booleans()), rival)


def once_whole_never_made_again(obj: Disk, observed: Observed, plan: Plan) -> None:
    """I11."""
    volume = obj.status.volume
    if volume is not None and (volume.provisioned_at is not None or volume.taken_over):
        assert plan.step not in (Step.CREATE, Step.IMPORT)


def what_is_not_ours_is_left_alone(obj: Disk, observed: Observed, plan: Plan) -> None:
    """Another installation's or namespace's, or another Disk's; but what no Disk has any more is the namespace's."""
    volume = obj.status.volume
    if volume is None or volume.provisioned_at is not None:
        return
    source = obj.spec.source
    named = source is not None and source.existing is not None
    theirs = observed.record in (FOREIGN, PROD) or (observed.record == OTHERS and not named)
    if theirs or (named and observed.rival is not None):
        assert plan.step is Step.NOTHING
        assert plan.verdict.standing is Standing.STALLED


def nothing_grows_that_is_large_enough(obj: Disk, observed: Observed, plan: Plan) -> None:
    if plan.step is Step.GROW:
        assert observed.volume is not None
        assert observed.volume.capacity < GIB


def a_volume_is_whole_only_when_it_is_there(obj: Disk, observed: Observed, plan: Plan) -> None:
    if plan.step in (Step.FINISH, Step.TAKE_OVER):
        assert observed.volume is not None
    if plan.verdict.standing is Standing.READY:
        assert obj.status.volume is not None
        assert obj.status.volume.provisioned_at is not None
        assert observed.volume is not None


def waits_are_worded(obj: Disk, observed: Observed, plan: Plan) -> None:
    if plan.verdict.standing is Standing.STALLED:
        assert plan.step is Step.NOTHING
        assert plan.phase is DiskPhase.FAILED
        assert len(plan.verdict.message) > 20
    if plan.verdict.standing is Standing.PROGRESSING:
        assert plan.step is not Step.NOTHING
        assert plan.verdict.bound is not None
        assert 60 <= plan.verdict.bound <= 3600


RULES = (
    once_whole_never_made_again,
    what_is_not_ours_is_left_alone,
    nothing_grows_that_is_large_enough,
    a_volume_is_whole_only_when_it_is_there,
    waits_are_worded,
)


@settings(max_examples=400, deadline=None)
@given(scenes())
def test_the_rules_hold_whatever_is_declared_and_observed(scene):
    obj, observed = scene
    plan = decide(obj, observed)
    for rule in RULES:
        rule(obj, observed, plan)


# Read aloud ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "step"), [(SOURCES[0], Step.CREATE), (SOURCES[1], Step.CREATE)])
def test_a_blank_disk_is_created(source, step):
    built = disk(**({} if source is None else {"source": source})).volume(NAME, whole=False)
    assert look(built, seen()).step is step
    assert look(built, seen(file())).step is step, "a file without a record was never whole"


@pytest.mark.parametrize("source", SOURCES[2:4])
def test_an_image_is_imported(source):
    plan = look(disk(source=source).volume(NAME, whole=False), seen(file()))
    assert outcome(plan) == (Step.IMPORT, "Importing")
    assert plan.phase is DiskPhase.IMPORTING


@pytest.mark.parametrize("source", SOURCES[:4])
def test_what_a_crash_left_whole_is_finished(source):
    built = disk(**({} if source is None else {"source": source})).volume(NAME, whole=False)
    assert look(built, seen(file(), MINE)).step is Step.FINISH


def test_the_volume_of_an_earlier_object_is_taken_over():
    past = disk().volume(NAME, whole=False, taken_over=True)
    assert look(past, seen(file(), REBORN)).step is Step.TAKE_OVER


def test_a_crash_while_its_record_was_written_anew_loses_nothing():
    past = disk().volume(NAME, whole=False, taken_over=True)
    assert look(past, seen(file(), None)).step is Step.TAKE_OVER
    assert outcome(look(past, seen(None, None))) == (Step.NOTHING, "VolumeMissing")


def test_a_record_whose_volume_is_gone():
    """Never used: made again. Of an earlier object: it had data, so a person is asked."""
    assert look(disk().volume(NAME, whole=False), seen(None, MINE)).step is Step.CREATE
    past = disk().volume(NAME, whole=False, taken_over=True)
    assert outcome(look(past, seen(None, REBORN))) == (Step.NOTHING, "VolumeMissing")


def test_a_whole_volume_that_is_not_there_is_missing():
    plan = look(disk().volume(NAME), seen(None))
    assert outcome(plan) == (Step.NOTHING, "VolumeMissing")
    assert f"/srv/vms/{NAME}" in plan.verdict.message
    assert "never replaced" in plan.verdict.message


def test_a_disk_grows_and_does_not_shrink():
    whole = disk(size="1Gi").volume(NAME)
    assert outcome(look(whole, seen(file(GIB // 2)))) == (Step.GROW, "Resizing")
    assert outcome(look(whole, seen(file(GIB)))) == (Step.NOTHING, "Ready")
    assert outcome(look(whole, seen(file(2 * GIB)))) == (Step.NOTHING, "Ready")


def existing(**spec: Any) -> DiskBuilder:
    return disk(source=SOURCES[4], **spec).volume(NAME, whole=False, taken_over=True)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (seen(None), (Step.NOTHING, "VolumeNotFound")),
        (seen(file(kind="raw")), (Step.NOTHING, "FormatMismatch")),
        (seen(file(2 * GIB)), (Step.NOTHING, "ImageTooLarge")),
        (replace(seen(file(), OTHERS), rival="default/other"), (Step.NOTHING, "OwnedByOther")),
        (replace(seen(file()), rival="default/other"), (Step.NOTHING, "OwnedByOther")),
        (seen(file(), OTHERS), (Step.TAKE_OVER, "Creating")),
        (seen(file(), FOREIGN), (Step.NOTHING, "OwnedByOther")),
        (seen(file(), FOREIGN, trashed=True), (Step.NOTHING, "OwnedByOther")),
        (seen(file(), PROD, trashed=True), (Step.NOTHING, "OwnedByOther")),
        (seen(file(), OTHERS, trashed=True), (Step.TAKE_OVER, "Creating")),
        (seen(file(), REBORN), (Step.TAKE_OVER, "Creating")),
        (seen(file()), (Step.TAKE_OVER, "Creating")),
        (seen(file(), MINE), (Step.FINISH, "Creating")),
        (seen(file(), MINE, trashed=True), (Step.TAKE_OVER, "Creating")),
    ],
)
def test_a_volume_that_lies_there(observed, expected):
    assert outcome(look(existing(), observed)) == expected


def test_whose_a_taken_volume_is_said():
    assert "Disk prod/other" in look(existing(), seen(file(), PROD)).verdict.message
    rival = replace(seen(file()), rival="default/other")
    assert "Disk default/other" in look(existing(), rival).verdict.message


# Status --------------------------------------------------------------------------------------------------------------


def test_status_says_where_the_volume_is_once_it_is_whole():
    unfinished = disk().volume(NAME, whole=False, host="kvm1").build()
    status = status_of(unfinished, progressing("Importing", "", 60), DiskPhase.IMPORTING, None, ["web"], 40, after(0))
    assert (status["path"], status["host"], status["progress"]) == (None, "kvm1", "40%")
    assert (status["phase"], status["usedBy"], status["virtualSize"]) == ("Importing", ["web"], None)
    whole = disk().volume(NAME).build()
    status = status_of(whole, ready("Ready"), DiskPhase.READY, file(2 * GIB), [], None, after(0))
    assert (status["path"], status["virtualSize"], status["progress"]) == (f"/srv/vms/{NAME}", "2Gi", None)
    unseen = status_of(whole, ready("Ready"), DiskPhase.READY, None, [], None, after(0))
    assert unseen["virtualSize"] == "1Gi", "what was known of a volume that was not seen now stays"
