"""A few seeds of processes that lock the same objects; `tests/faults/test_locks.py` goes deeper and plants bugs."""

from __future__ import annotations

import pytest

from engine.locks.record import Mode
from simulator.history import Guarded, History, Use
from simulator.locking import play


@pytest.mark.parametrize("seed", range(3))
def test_never_two_at_once_and_no_stale_token(seed: int) -> None:
    history = play(seed, seconds=150.0)
    assert not history.violations
    assert history.grants > 5 and history.uses > 5


def test_a_seed_gives_one_history() -> None:
    assert play(5, seconds=30.0) == play(5, seconds=30.0)


def use(operation: str, token: int, begin: float, mode: Mode = Mode.EXCLUSIVE, *, prompt: bool = True) -> Use:
    return Use("lock", operation, mode, token, begin, begin + 1.0, prompt)


@pytest.mark.parametrize(
    ("uses", "words"),
    [
        ([use("a", 1, 0), use("b", 2, 0.5)], "at once"),
        ([use("a", 1, 0, Mode.SHARED), use("b", 2, 0.5)], "at once"),
        ([use("a", 1, 0), use("b", 2, 2)], "was not ended"),
        ([use("b", 2, 0), use("a", 1, 2)], "refused"),
    ],
)
def test_the_checker_can_fail(uses: list[Use], words: str) -> None:
    history = History()
    for one in uses:
        history.used(one)
    assert words in " ".join(history.violations)


def test_those_who_share_do_so_and_late_ones_are_refused_without_blame() -> None:
    history = History()
    for one in (use("a", 2, 0, Mode.SHARED), use("b", 1, 0.5, Mode.SHARED)):
        history.used(one)
    history.ended("a")
    history.ended("b")
    history.used(use("c", 3, 5))
    history.ended("c")
    history.used(use("b", 1, 7, Mode.SHARED, prompt=False))
    assert not history.violations and history.refused_late == 1
    assert not Guarded(5, 5).accepts(use("x", 4, 0))
