"""Who may have a lock, by rule: whatever happens to a record, those who hold it tolerate each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.locks import Lockable, Unreadable
from engine.locks.record import ANNOTATION, Entry, Mode, Record, parse, render

WEB = Lockable("Machine", "default", "web", "u-1", rank=3, floor=7)
POOL = Lockable("Pool", "", "main", "u-2", rank=0)


def entry(id_: str, mode: Mode = Mode.EXCLUSIVE, *, operation: str = "", since: str = "1", priority: int = 0) -> Entry:
    return Entry(
        id=id_,
        session=f"session-{id_}",
        process="pod",
        operation=operation or f"op-{id_}",
        doing="tests",
        mode=mode,
        since=since,
        grace=40.0,
        priority=priority,
        wanted=((POOL, Mode.SHARED), (WEB, mode)),
    )


def lease(record: Record) -> dict:
    annotation, holder = render(record)
    metadata = {"name": WEB.lease_name, "annotations": {ANNOTATION: annotation}}
    return {"metadata": metadata, "spec": {"leaseTransitions": record.token, "holderIdentity": holder}}


ENTRIES = st.builds(
    lambda number, mode, age, priority: entry(str(number), mode, since=str(age), priority=priority),
    st.integers(0, 8),
    st.sampled_from(Mode),
    st.integers(0, 3),
    st.integers(0, 2),
)
STEPS = st.lists(st.tuples(st.sampled_from(("grant", "queue", "without", "left", "resume")), ENTRIES), max_size=40)


@given(STEPS)
def test_holders_tolerate_each_other_and_tokens_rise(steps: list[tuple[str, Entry]]) -> None:
    record = Record()
    for step, drawn in steps:
        before, one = record, drawn
        lapsed = {h.id for h in record.holders if h.session == ""} if step == "resume" else set()
        if step == "resume":
            one = replace(one, id=f"{one.id}+", session="again")
        if step in ("grant", "resume") and not record.blockers(one, lapsed):
            record = record.granted(one, lapsed=lapsed)
            assert record.holds(one.id)
        elif step == "queue" and not record.holds(one.id):
            record = record.queued(one)
        elif step == "without":
            record = record.without(one.id)
        elif step == "left":
            record = record.left(one.id)
        assert len(record.holders) <= 1 or all(h.mode is Mode.SHARED for h in record.holders)
        assert len({h.operation for h in record.holders}) == len(record.holders)
        assert len({h.token for h in record.holders}) == len(record.holders)
        new = [h for h in record.holders if h.id not in {old.id for old in before.holders}]
        assert record.token == before.token + len(new)
        assert all(h.token == record.token for h in new)
        assert parse(lease(record)) == record


@given(st.lists(ENTRIES, min_size=1, max_size=8, unique_by=lambda e: e.id))
def test_the_first_in_line_is_never_blocked_by_those_behind(waiters: list[Entry]) -> None:
    record = Record()
    for one in waiters:
        record = record.queued(one)
    assert not record.blockers(record.waiters[0])
    assert list(record.waiters) == sorted(record.waiters, key=lambda w: (-w.priority, w.since, w.id))


def test_one_who_waits_alone_keeps_new_ones_from_sharing() -> None:
    held = Record().granted(entry("1", Mode.SHARED))
    waited = held.queued(entry("2", since="2"))
    late = entry("3", Mode.SHARED, since="3")
    assert not held.blockers(late)
    assert [b.id for b in waited.blockers(late)] == ["2"]
    assert not waited.blockers(replace(late, priority=1))


def test_an_operation_has_a_lock_once_and_resumes_before_those_who_wait() -> None:
    held = Record().granted(entry("1", operation="op")).queued(entry("2"))
    again = entry("3", operation="op", since="9")
    assert [b.id for b in held.blockers(again)] == ["1", "2"]
    assert not held.blockers(again, {"1"})
    resumed = held.granted(again, lapsed={"1"})
    assert [h.id for h in resumed.holders] == ["3"] and resumed.token == 2
    assert [b.id for b in held.blockers(entry("4", operation="other"), {"1"})] == ["1", "2"]


def test_the_token_goes_on_from_what_the_object_remembers() -> None:
    assert Record().granted(entry("1"), floor=7).token == 8
    assert Record(token=9).granted(entry("1"), floor=7).token == 10


def test_the_user_reads_who_it_is() -> None:
    said = entry("1", since="2026-01-01T00:00:00Z", operation="default/nightly")
    text = replace(said, token=4).described(WEB)
    assert text == (
        "Machine default/web is held alone by default/nightly (tests), in process pod, since 2026-01-01T00:00:00Z"
    )
    assert "is waited for by" in said.described(WEB)


@pytest.mark.parametrize("annotation", ["", "{}", '{"holders":[{}],"waiters":[]}', "nonsense"])
def test_what_nobody_can_read_is_not_free(annotation: str) -> None:
    broken = lease(Record())
    broken["metadata"]["annotations"][ANNOTATION] = annotation
    with pytest.raises(Unreadable, match=WEB.lease_name):
        parse(broken)
