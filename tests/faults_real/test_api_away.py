"""The API server is away, slow, or says no: guests are untouched, work resumes, and writes stay few."""

from __future__ import annotations

import time

import pytest

from lab.apifaults import Action, ApiFaults, Rule
from lab.oracle import Oracle
from tests.faults_real.looks import judged, now, pids, volumes, writes
from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster, firmware_vm
from tests.integration.system.test_vm_run_policy import kill, qemus

MUTATING = ("POST", "PUT", "PATCH", "DELETE")


@pytest.mark.timeout(1500)
def test_away(cluster: Cluster, faults: ApiFaults, figures: Figures, full_time: bool) -> None:
    seconds = 600 if full_time else 60
    cluster.apply(firmware_vm("web"), firmware_vm("crashed"))
    for name in ("web", "crashed"):
        cluster.running(name)
    before, process = pids(cluster, "web"), cluster.deployment.process()
    faults.set(Rule(Action.LOSE_REQUEST), Rule(Action.CUT))
    cut = time.monotonic()
    cluster.apply(firmware_vm("late"))
    old = kill(cluster, "crashed")
    while time.monotonic() < cut + seconds:
        assert pids(cluster, "web") == before
        # No start without the record of where it runs.
        assert qemus(cluster, "crashed") <= {old} and qemus(cluster, "late") == set()
        time.sleep(1)
    assert cluster.deployment.process() == process, "the operator has died"
    back, began = now(), time.monotonic()
    faults.clear()
    for name in ("late", "crashed"):
        cluster.running(name)
    figures.within(f"resumed after {seconds} s without an API server", time.monotonic() - began, 45)
    time.sleep(10)
    figures.within("writes of 2 starts after it", len(writes(cluster, back)), 60, "writes")
    assert pids(cluster, "web") == before
    assert judged(cluster, Oracle(cluster.lab.state, from_now=True), "web", "late", "crashed") == []


def test_server_dies(cluster: Cluster, faults: ApiFaults, figures: Figures) -> None:
    """The process itself, and its store: connections are refused, then what was written last is there again."""
    cluster.apply(firmware_vm("web"))
    cluster.running("web")
    before = pids(cluster, "web")
    cluster.lab.control_plane_down()
    time.sleep(20)
    assert pids(cluster, "web") == before
    cluster.lab.control_plane_up()
    began = time.monotonic()
    cluster.apply(firmware_vm("late"))
    cluster.running("late")
    figures.within("a new VM runs after 20 s of a dead server", time.monotonic() - began, 45)
    assert pids(cluster, "web") == before


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("what", "rules"),
    [
        (
            "409, 429 and 500 at random",
            [
                Rule(Action.ANSWER, status=409, probability=0.15, methods=("PUT", "PATCH", "DELETE")),
                Rule(Action.ANSWER, status=429, retry_after=1, probability=0.15),
                Rule(Action.ANSWER, status=500, probability=0.15),
            ],
        ),
        ("replies lost at random", [Rule(Action.LOSE_REPLY, probability=0.3, methods=MUTATING)]),
        ("every request 2 s late", [Rule(Action.DELAY, seconds=2)]),
        ("watches cut every second", [Rule(Action.CUT, seconds=1)]),
    ],
)
def test_work_goes_on(
    cluster: Cluster, faults: ApiFaults, figures: Figures, full_time: bool, what: str, rules: list[Rule]
) -> None:
    seconds = 300 if full_time else 60
    cluster.apply(firmware_vm("web"), firmware_vm("unwanted"))
    for name in ("web", "unwanted"):
        cluster.running(name)
    before = pids(cluster, "web")
    since = now()
    faults.set(*rules)
    began = time.monotonic()
    names = [f"new{number}" for number in range(3)]
    cluster.apply(*(firmware_vm(name) for name in names))
    cluster.delete("hvm", "unwanted")
    while time.monotonic() < began + seconds:
        assert pids(cluster, "web") == before
        assert all(len(qemus(cluster, name)) <= 1 for name in names)
        time.sleep(1)
    counts = faults.counts()
    assert any(counts.get(rule.action) for rule in rules), counts
    faults.clear()
    began = time.monotonic()
    for name in names:
        cluster.running(name)
    cluster.wait_gone("hvm", "unwanted")
    cluster.wait_gone("disk", "unwanted-root")
    figures.within(f"all is done after {seconds} s of {what}", time.monotonic() - began, 75)
    time.sleep(5)
    figures.within(f"writes of 3 starts and a deletion under {what}", len(writes(cluster, since)), 300, "writes")
    assert pids(cluster, "web") == before
    assert all(len(volumes(cluster, name)) == 1 for name in names)
    assert judged(cluster, Oracle(cluster.lab.state, from_now=True), "web", *names) == []


def test_silent_watches_are_found(cluster: Cluster, faults: ApiFaults, figures: Figures) -> None:
    """Every open watch falls silent and stays open: what is declared then is still done, in bounded time."""
    cluster.apply(firmware_vm("web"))
    cluster.running("web")
    before = faults.counts().get(Action.SILENCE, 0)
    faults.set(Rule(Action.SILENCE))
    cluster.wait("watches are silent", lambda: faults.counts().get(Action.SILENCE, 0) >= before + 8, 30)
    faults.clear()
    began = time.monotonic()
    cluster.apply(firmware_vm("unheard"))
    cluster.running("unheard")
    figures.within("a new VM runs although all watches are silent", time.monotonic() - began, 70 + 25)


def test_lists_come_in_pages(cluster: Cluster, faults: ApiFaults) -> None:
    """An operator that starts reads everything, one object a page."""
    names = [f"web{number}" for number in range(4)]
    cluster.apply(*(firmware_vm(name) for name in names))
    for name in names:
        cluster.running(name)
    before, pages = pids(cluster, *names), faults.counts().get(Action.PAGE, 0)
    faults.set(Rule(Action.PAGE, limit=1))
    cluster.deployment.restart()
    cluster.whole()
    for name in names:
        cluster.patch("hvm", name, {"powerRequest": {"id": "1", "action": "Reboot"}})
        cluster.wait(f"{name} was heard", lambda name=name: cluster.get("hvm", name)["status"].get("powerRequest"))
    assert faults.counts()[Action.PAGE] > pages + len(names)
    assert {name: len(found) for name, found in pids(cluster, *names).items()} == dict.fromkeys(names, 1)
    assert before
