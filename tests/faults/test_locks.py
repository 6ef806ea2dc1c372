"""Several processes that lock the same objects, under many seeds; and bugs that this must find.

FAULTS_SEEDS seeds (50) of 300 virtual seconds of trouble each.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from engine.locks import attempt, grant, record, session, store, witness
from engine.locks.record import Mode, Record
from simulator.locking import play
from tests.unit.engine.locking import Bed, crowd, run

ENOUGH = 25
"""Seeds within which a planted bug must be found."""
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody reads the log of a campaign."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_never_two_at_once_and_no_stale_token(seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    grants = uses = refused = recovered = 0
    for seed in seeds:
        history = play(seed)
        assert not history.violations, f"seed {seed}: {history.violations[:3]}"
        grants, uses = grants + history.grants, uses + history.uses
        refused, recovered = refused + history.refused_late, recovered + history.recovered
    with capsys.disabled():
        sys.stdout.write(
            f"\nlocks: {grants} grants, {uses} uses, {recovered} recoveries, {refused} late uses refused\n"
        )
    assert grants > 10 * len(seeds) and uses > 10 * len(seeds) and recovered > len(seeds) // 2


def test_two_hundred_operations_on_twenty_objects_all_get_their_turn() -> None:
    async def inside() -> None:
        assert await crowd(Bed(), operations=200, objects=20) < 120

    run(inside())


def taken_over_at_once(patch: pytest.MonkeyPatch) -> None:
    """One look that shows no Lease, or an unchanged one, is enough."""
    look = witness.Witness._look

    async def impatient(self, identity, before):
        seen = await look(self, identity, before)
        return witness._Seen(None, -1e9) if before is not None else seen

    patch.setattr(witness.Witness, "_look", impatient)


def calls_outlast_the_lease(patch: pytest.MonkeyPatch) -> None:
    """The take-over does not wait for calls that may still be under way."""
    patch.setattr(session.Timing, "grace", property(lambda timing: float(timing.duration)))


def lost_and_won_back(patch: pytest.MonkeyPatch) -> None:
    """A process never notices that it was away."""
    patch.setattr(session.Session, "check", lambda _: None)
    patch.setattr(session.Session, "remaining", lambda self: self.timing.validity)


def released_by_the_lost(patch: pytest.MonkeyPatch) -> None:
    """What the dead left is taken without anybody looking after it."""

    async def careless(self, entry):
        await self._remove(self._at, entry)
        return True

    made_room = attempt.Attempt._made_room

    async def remembered(self, blocked):
        self._at = blocked.lockable
        return await made_room(self, blocked)

    patch.setattr(attempt.Attempt, "_made_room", remembered)
    patch.setattr(attempt.Attempt, "_recover", careless)


def shared_by_all(patch: pytest.MonkeyPatch) -> None:
    """Who wants it alone does not look at those who share."""
    patch.setattr(record, "_exclude", lambda one, other: one.mode is other.mode is Mode.EXCLUSIVE)


def token_of_the_exclusive_only(patch: pytest.MonkeyPatch) -> None:
    """A shared grant gets the token of the one before."""
    granted = Record.granted

    def same(self, entry, floor=0, lapsed=()):
        after = granted(self, entry, floor, lapsed)
        if entry.mode is Mode.EXCLUSIVE or after is self or not self.token:
            return after
        holders = tuple(replace(h, token=self.token) if h.id == entry.id else h for h in after.holders)
        return Record(self.token, holders, after.waiters)

    patch.setattr(Record, "granted", same)


def written_over(patch: pytest.MonkeyPatch) -> None:
    """A lock is written over whatever is there by now."""
    write = store.LockStore._write

    async def blind(self, lockable, stored, wanted):
        fresh = await self.read(lockable)
        return await write(self, lockable, store.Stored(stored.record, fresh.lease), wanted)

    patch.setattr(store.LockStore, "_write", blind)


def children_release(patch: pytest.MonkeyPatch) -> None:
    """A child gives its parent's locks back."""

    async def end(self, *, leave):
        top = self._parent if self._parent is not None else self
        await top._locks.give_up(top._id, top._stored, leave=leave)

    patch.setattr(grant.Grant, "_end", end)


@pytest.mark.parametrize(
    "plant",
    [
        taken_over_at_once,
        calls_outlast_the_lease,
        lost_and_won_back,
        released_by_the_lost,
        shared_by_all,
        token_of_the_exclusive_only,
        written_over,
        children_release,
    ],
)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(ENOUGH):
        if play(seed).violations:
            return
    pytest.fail(f"{plant.__name__} was not found by {ENOUGH} seeds: {plant.__doc__}")
