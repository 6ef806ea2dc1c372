"""Which requests a rule hits, for how long, and how often."""

import random

import pytest

from lab.apifaults import Action, Rule
from lab.apiproxy import Faults
from lab.errors import LabError

VMS = "/apis/hostler.dev/v1alpha1/virtualmachines"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def actions(faults: Faults, method: str = "GET", path: str = VMS, *, watch: bool = False) -> list[Action]:
    return [rule.action for rule in faults.hits(method, path, watch=watch)]


def test_rule_fits_by_method_path_and_kind_of_request() -> None:
    rule = Rule(Action.ANSWER, methods=("PATCH",), path="virtualmachines$", watches=False)
    assert rule.fits("PATCH", VMS, watch=False)
    assert not rule.fits("GET", VMS, watch=False)
    assert not rule.fits("PATCH", "/apis/hostler.dev/v1alpha1/disks", watch=False)
    assert not rule.fits("PATCH", VMS, watch=True)


def test_what_makes_no_sense_never_hits() -> None:
    assert not Rule(Action.CUT).fits("GET", VMS, watch=False)
    assert not Rule(Action.LOSE_REPLY).fits("GET", VMS, watch=True)
    assert not Rule(Action.PAGE).fits("POST", VMS, watch=False)


def test_delays_come_first_and_beside_one_other() -> None:
    faults = Faults()
    faults.set([Rule(Action.ANSWER), Rule(Action.LOSE_REPLY), Rule(Action.DELAY, seconds=1)])
    assert actions(faults) == [Action.DELAY, Action.ANSWER]
    assert faults.counts == {"delay": 1, "answer": 1}


def test_rule_ends_by_itself() -> None:
    clock = Clock()
    faults = Faults(clock)
    faults.set([Rule(Action.LOSE_REQUEST, lasts=5), Rule(Action.SILENCE)])
    assert actions(faults) == [Action.LOSE_REQUEST]
    clock.now += 5
    assert actions(faults) == []
    assert faults.open(VMS, Action.SILENCE) is not None and faults.open(VMS, Action.CUT) is None


def test_probability() -> None:
    faults = Faults(rng=random.Random(1))
    faults.set([Rule(Action.ANSWER, probability=0.3)])
    assert 250 < sum(bool(actions(faults)) for _ in range(1000)) < 350


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"action": "explode"}, "lose-reply"),
        ({}, "lose-reply"),
        ({"action": "cut", "when": 1}, "no when"),
        ({"action": "cut", "path": "("}, "regular expression"),
        ({"action": "cut", "probability": 2}, "between 0 and 1"),
    ],
)
def test_what_is_no_rule_is_refused(document: dict[str, object], says: str) -> None:
    with pytest.raises(LabError, match=says):
        Rule.of(document)
