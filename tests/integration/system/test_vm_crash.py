"""A QEMU that dies is replaced at once, and ever more slowly when it keeps dying."""

from __future__ import annotations

import time
from datetime import datetime

from tests.integration.system.cluster import Cluster, Object, firmware_vm
from tests.integration.system.test_vm_run_policy import kill, qemus

KILLS = 4


def test_vm_is_back_within_seconds_then_backs_off(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web"))
    cluster.running("web")
    epochs = [epoch(cluster)]
    for kills in range(1, KILLS + 1):
        old = kill(cluster, "web")
        began = time.monotonic()
        failure = cluster.wait(f"crash {kills} is counted", lambda kills=kills: counted(cluster, kills))
        pause = (at(failure["nextAt"]) - at(failure["lastAt"])).total_seconds()
        assert pause == (0 if kills == 1 else 5 * 2 ** (kills - 2))
        if pause:
            assert qemus(cluster, "web") == set(), "nothing runs during the back-off"
        cluster.wait("it is back", lambda old=old: qemus(cluster, "web") - {old}, timeout=pause + 30)
        took = time.monotonic() - began
        assert took >= pause
        cluster.running("web")
        epochs.append(epoch(cluster))
    assert epochs == sorted(set(epochs)), "each start has an epoch of its own"
    assert len(cluster.domains("web")) == 1


def epoch(cluster: Cluster) -> int:
    """The placement epoch."""
    return int(cluster.get("hvm", "web")["status"]["placement"]["epoch"])


def counted(cluster: Cluster, kills: int) -> Object | None:
    """The failures in a row, once they are this many."""
    failure = cluster.get("hvm", "web")["status"].get("startFailure")
    return failure if failure is not None and failure["count"] == kills else None


def at(text: str) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(text)
