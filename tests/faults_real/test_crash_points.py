"""The operator dies right before and right after each of its own calls of a creation and of a deletion.

The points are found, not listed: a first flow is recorded, then one is cut at each of the calls that were seen. The
next point is tried while what the one before has left heals: under an operator that was never told.
"""

from __future__ import annotations

import itertools

import pytest

from lab.oracle import Oracle
from tests.faults_real.crashing import Crashing, Point, vm
from tests.faults_real.looks import checked, judged, volumes
from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster
from tests.integration.system.test_vm_run_policy import qemus

BATCH = 8
"""VMs that live at once."""


def all_points(calls: int) -> list[Point]:
    return [(number, when) for number in range(1, calls + 1) for when in ("before", "after")]


@pytest.mark.timeout(2400)
def test_creation(cluster: Cluster, crashing: Crashing, figures: Figures) -> None:
    names = (f"x{number:03d}y" for number in itertools.count())
    first = next(names)
    crashing.start(first, (0, "never"))
    cluster.apply(vm(first))
    cluster.running(first)
    calls = crashing.calls(first)
    assert "host: define" in calls and "host: start" in calls, calls
    reached, batch = 0, [first]
    for point in all_points(len(calls)):
        name = next(names)
        crashing.start(name, point)
        cluster.apply(vm(name))
        cluster.wait(f"{name} dies at {point} or is done", lambda name=name: crashing.died() or runs(cluster, name))
        reached += crashing.died()
        batch.append(name)
        if len(batch) == BATCH:
            healed(cluster, batch)
            batch = []
    healed(cluster, batch)
    figures.within(f"points of a creation ({', '.join(calls)}) not reached", 2 * len(calls) - reached, 6, "points")


@pytest.mark.timeout(2400)
def test_deletion(cluster: Cluster, crashing: Crashing, figures: Figures) -> None:
    names = (f"x{number:03d}y" for number in itertools.count())
    first = next(names)
    cluster.deployment.start()
    made(cluster, [first])
    crashing.start(first, (0, "never"))
    cluster.delete("hvm", first)
    cluster.wait_gone("hvm", first)
    cluster.wait_gone("disk", f"{first}-root")
    calls = crashing.calls(first)
    points, reached = all_points(len(calls)), 0
    assert calls
    while points:
        now, points = points[:BATCH], points[BATCH:]
        cluster.deployment.kill()
        cluster.deployment.start()
        batch = [next(names) for _ in now]
        made(cluster, batch)
        for name, point in zip(batch, now, strict=True):
            crashing.start(name, point)
            cluster.delete("hvm", name)
            cluster.wait(f"{name} dies at {point} or is gone", lambda name=name: crashing.died() or gone(cluster, name))
            reached += crashing.died()
        cluster.deployment.kill()
        cluster.deployment.start()
        for name in batch:
            cluster.wait_gone("hvm", name)
            cluster.wait_gone("disk", f"{name}-root")
            assert cluster.domains(name) == {} and qemus(cluster, name) == set() and volumes(cluster, name) == []
        assert judged(cluster, Oracle(cluster.lab.state, from_now=True)) == []
    figures.within(f"points of a deletion ({', '.join(calls)}) not reached", 2 * len(calls) - reached, 6, "points")


def made(cluster: Cluster, names: list[str]) -> None:
    cluster.apply(*(vm(name) for name in names))
    for name in names:
        cluster.running(name)


def runs(cluster: Cluster, name: str) -> bool:
    found = cluster.get("hvm", name)
    return found is not None and found.get("status", {}).get("phase") == "Running"


def gone(cluster: Cluster, name: str) -> bool:
    return cluster.get("hvm", name) is None and cluster.get("disk", f"{name}-root") is None


def healed(cluster: Cluster, names: list[str]) -> None:
    """Each runs once, on one whole volume, and nothing else is there; then they go."""
    cluster.deployment.kill()
    cluster.deployment.start()
    for name in names:
        cluster.running(name)
        assert len(cluster.domains(name)) == 1 == len(qemus(cluster, name)), name
        (file,) = volumes(cluster, name)
        checked(cluster, file)
    assert judged(cluster, Oracle(cluster.lab.state, from_now=True), *names) == []
    for name in names:
        cluster.delete("hvm", name)
    for name in names:
        cluster.wait_gone("hvm", name)
