"""An API that has forgotten: its store set back, or everything created anew. Nothing is destroyed, nothing blank."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lab.oracle import Oracle
from tests.faults_real.looks import judged, pids, volumes
from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster, Object, disk, firmware_vm
from tests.integration.system.test_vm_run_policy import kill, qemus

PRECIOUS = b"precious"
FORGETTING = 400
"""Seconds in which a controller that runs on finds out that the store went back (it compares every 300 s)."""


@pytest.mark.timeout(1200)
def test_store_set_back(cluster: Cluster, figures: Figures) -> None:
    """Under a controller that runs on. What was started, crashed and created since is all unknown to the API."""
    cluster.apply(firmware_vm("web"), firmware_vm("rerun"), disk("data", "1Mi"))
    for name in ("web", "rerun"):
        cluster.running(name)
    (volume,) = volumes(cluster, "web")
    cluster.lab.etcd_snapshot()
    old = kill(cluster, "rerun")
    cluster.wait("it runs again", lambda: qemus(cluster, "rerun") - {old}, 60)
    epoch = cluster.running("rerun")["status"]["placement"]["epoch"]
    cluster.apply(firmware_vm("forgotten"))
    cluster.running("forgotten")
    mark(cluster, volume)
    before = pids(cluster, "web", "rerun", "forgotten")
    cluster.lab.etcd_restore()
    began = time.monotonic()
    assert cluster.get("hvm", "forgotten") is None
    for _ in range(30):
        assert pids(cluster, "web", "rerun", "forgotten") == before
        time.sleep(1)
    # Declared again, it is the same VM with another uid, on the disk that it had.
    cluster.apply(firmware_vm("forgotten"))
    cluster.wait_phase("hvm", "forgotten", "Running", FORGETTING)
    cluster.wait(
        "the epoch of the run is known again",
        lambda: cluster.get("hvm", "rerun")["status"]["placement"]["epoch"] >= epoch,
        FORGETTING,
    )
    figures.within("status is rebuilt after the store was set back", time.monotonic() - began, FORGETTING)
    cluster.patch("hvm", "web", {"powerRequest": {"id": "heard", "action": "Reboot"}})
    cluster.wait("requests are heard", lambda: cluster.get("hvm", "web")["status"].get("powerRequest"), FORGETTING)
    assert pids(cluster, "web", "rerun", "forgotten") == before
    assert marked(cluster, volume)
    assert judged(cluster, Oracle(cluster.lab.state, from_now=True), "web", "rerun", "forgotten") == []


@pytest.mark.timeout(1200)
def test_created_anew(cluster: Cluster, figures: Figures) -> None:
    """As by a GitOps tool on an empty cluster: specs only, every uid another one."""
    names = ("web", "other")
    cluster.apply(*(firmware_vm(name) for name in names))
    for name in names:
        cluster.running(name)
    files = {name: volumes(cluster, name) for name in names}
    for (file,) in files.values():
        mark(cluster, file)
    before = pids(cluster, *names)
    cluster.deployment.stop()
    kept = [*infrastructure(cluster), *specs(cluster, "hvm")]
    old = [item["metadata"].pop("uid") for item in kept]
    forget(cluster)
    cluster.apply(*kept)
    began = time.monotonic()
    cluster.deployment.start()
    cluster.whole()
    for name in names:
        cluster.running(name)
    figures.within("status is rebuilt for objects with new uids", time.monotonic() - began, 60)
    assert not set(old) & {item["metadata"]["uid"] for item in [*infrastructure(cluster), *specs(cluster, "hvm")]}
    assert pids(cluster, *names) == before
    assert {name: volumes(cluster, name) for name in names} == files
    assert all(marked(cluster, file) for (file,) in files.values())
    # They are ours again: a VM that is deleted takes its domain and its disk along.
    cluster.delete("hvm", "other")
    cluster.wait_gone("hvm", "other")
    cluster.wait("its volume is gone", lambda: volumes(cluster, "other") == [])
    assert judged(cluster, Oracle(cluster.lab.state, from_now=True), "web") == []


def mark(cluster: Cluster, file: str) -> None:
    """Put something into the volume that would be missed."""
    with (cluster.lab.shared / file).open("r+b") as volume:
        volume.seek(1 << 20)
        volume.write(PRECIOUS)


def marked(cluster: Cluster, file: str) -> bool:
    with (cluster.lab.shared / file).open("rb") as volume:
        volume.seek(1 << 20)
        return volume.read(len(PRECIOUS)) == PRECIOUS


def specs(cluster: Cluster, kind: str) -> list[Object]:
    """What a user has written of these objects, with their uids."""
    found = json.loads(cluster.lab.kubectl("get", kind, *cluster_scope(cluster, kind), "-ojson"))["items"]
    return [trimmed(item) for item in found]


def cluster_scope(cluster: Cluster, kind: str) -> tuple[str, ...]:
    return ("-n", cluster.namespace) if kind in ("hvm", "disk") else ()


def trimmed(item: dict[str, Any]) -> Object:
    metadata = {name: item["metadata"][name] for name in ("name", "namespace", "uid") if name in item["metadata"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata, "spec": item["spec"]}


def infrastructure(cluster: Cluster) -> list[Object]:
    kinds = ("hostpools", "hosts", "networks.hostler.dev", "storagedomains")
    return [item for kind in kinds for item in specs(cluster, kind)]


def forget(cluster: Cluster) -> None:
    """All our objects are gone from the API as if they had never been: no finalizer has its say."""
    for kind in ("hvm", "disk", "hosts", "storagedomains", "networks.hostler.dev", "hostpools"):
        scope = cluster_scope(cluster, kind)
        found = cluster.lab.kubectl("get", kind, *scope, "-oname").split()
        if found:
            cluster.lab.kubectl("delete", *found, *scope, "--wait=false", "--cascade=orphan")
        for name in cluster.lab.kubectl("get", kind, *scope, "-oname").split():
            cluster.lab.kubectl("patch", name, *scope, "--type=merge", '-p={"metadata":{"finalizers":null}}')
    for kind in ("hvm", "disk"):
        cluster.wait(
            f"every {kind} is forgotten",
            lambda kind=kind: not cluster.lab.kubectl("get", kind, "-n", cluster.namespace, "-oname"),
        )
