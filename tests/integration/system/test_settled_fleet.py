"""A settled fleet costs the API server nothing, and a VM costs few writes on its way."""

from __future__ import annotations

import datetime
import time
from collections import Counter

import pytest

from lab.controlplane.audit import Write
from tests.integration.system.cluster import Cluster, firmware_vm

CALM_SECONDS = 60
MOST_WRITES = {"virtualmachines.hostler.dev": 5, "disks.hostler.dev": 4}
"""To the objects of a VM with one new disk: what is decided is written before it is done, and what came of it after."""


def test_no_write_once_settled(cluster: Cluster) -> None:
    for name in ("one", "two", "three"):
        cluster.apply(firmware_vm(name))
    for name in ("one", "two", "three"):
        cluster.running(name)
    # Events are posted in the background.
    cluster.wait("the last event is posted", lambda: all("Started" in cluster.events(n) for n in ("one", "two")))
    time.sleep(5)
    since = datetime.datetime.now(datetime.UTC)
    time.sleep(CALM_SECONDS)
    assert [w for w in cluster.lab.writes(since) if not w.resource.startswith("leases")] == []


def test_few_writes_from_nothing_to_running(cluster: Cluster, record_property: pytest.RecordProperty) -> None:
    since = datetime.datetime.now(datetime.UTC)
    cluster.apply(firmware_vm("web"))
    cluster.running("web")
    time.sleep(3)
    writes = [w for w in cluster.lab.writes(since) if _ours(w, cluster.namespace)]
    counts = Counter(w.resource.partition("/")[0] for w in writes)
    record_property("writes", dict(counts))
    assert all(counts[resource] <= most for resource, most in MOST_WRITES.items()), counts
    assert counts.keys() == MOST_WRITES.keys()


def _ours(write: Write, namespace: str) -> bool:
    return write.user.endswith(":hostler") and write.namespace == namespace and not write.resource.startswith("events")
