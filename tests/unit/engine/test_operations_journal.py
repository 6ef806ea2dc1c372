"""Every change of a journal, in every order that `decide` allows: what must hold of it afterwards."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.keys import Key
from engine.operations import Compensation, Context, LockUse, Order, Ref, Target, Work, journal, order
from engine.operations.decide import Look, Nothing, Plan, TakeBack, Undo, decide, may_go_back
from engine.operations.journal import Entry, Journal, Phase, State

NOW = "2026-01-01T00:00:00Z"
ORDER = Order(
    Key("Operation", "default", "op"),
    "uid",
    "Build",
    Target("Toy", "default", "a", "u"),
    Context("c", "anna", LockUse.OWN, Compensation.INHERIT),
)


def moved(one: Journal, asked: Order, work: Work, luck: int) -> Journal:
    """What becomes of the journal by the next move; `luck`: how the call ends."""
    match decide(asked, one, work):
        case Nothing():
            return one
        case Plan():
            steps = [Entry(f"s{n}", "Make", "{}", pivot=n == luck) for n in range(1, 5)]
            return journal.planned(one, steps, [], NOW)
        case TakeBack(cause=cause):
            return journal.rolled(one, cause, NOW)
        case Look(index=index) if luck % 3 == 0:
            return journal.done(one, index, "made", NOW)
        case Look(index=index) if luck % 3 == 1 or work is Work.RESUMABLE or not may_go_back(one, work):
            return journal.failed(one, index, "busy", held_up=luck > 4)
        case Look(index=index):
            return journal.rolled(one, f"step {index} is broken", NOW)
        case Undo(index=index, again=again) if luck % 2:
            tried = journal.undo_failed(one, index, "busy", NOW) if again or luck > 4 else None
            return tried if tried is not None else journal.undo_tried(one, index, "busy")
        case Undo(index=index):
            return journal.undone(one, index, NOW)


@given(st.lists(st.integers(0, 8), max_size=40), st.sampled_from(Work), st.integers(0, 40))
def test_what_holds_of_every_journal(luck: list[int], work: Work, cancelled_at: int) -> None:
    one, cause = Journal(), None
    for number, drawn in enumerate(luck):
        asked = replace(ORDER, cancelled=number >= cancelled_at)
        before, one = one, moved(one, asked, work, drawn)
        states = [step.state for step in one.steps]
        assert before.ended is False or one == before
        assert states.count(State.RUNNING) == (one.phase is Phase.RUNNING)
        assert states.count(State.UNDOING) <= (one.phase is Phase.ROLLING_BACK)
        if one.phase is Phase.SUCCEEDED:
            assert set(states) == {State.DONE}
        if one.phase is Phase.ROLLED_BACK:
            assert set(states) <= {State.UNDONE, State.PENDING} and one.first_cause
        if one.phase is Phase.ROLLING_BACK:
            undone = [n for n, state in enumerate(states) if state in (State.UNDONE, State.UNDO_FAILED, State.UNDOING)]
            begun = [n for n, state in enumerate(states) if state is State.DONE]
            assert not begun or not undone or max(begun) < min(undone)
            assert work is Work.SAGA or not before.planned
        if before.past_pivot:
            assert one.past_pivot
        cause = cause or one.first_cause
        assert one.first_cause == cause
        assert journal.parse({"status": wire(one)}).steps == one.steps


def wire(one: Journal) -> dict[str, object]:
    return {name: value for name, value in journal.render(one).items() if value is not None}


def test_an_order_says_the_same_after_the_wire() -> None:
    asked = replace(
        ORDER, parameters={"a": [1]}, priority=3, rollback=True, parent=Ref("n", "p", "1"), undoes=Ref("n", "u", "2")
    )
    metadata = {"name": "op", "namespace": "default", "uid": "uid", "generation": 0}
    assert order.parse({"kind": "Operation", "metadata": metadata, "spec": order.render_spec(asked)}) == asked
