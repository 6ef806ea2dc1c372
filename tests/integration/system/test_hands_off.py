"""Ways to keep Hostler's hands off, from weak to strong: paused objects, cordoned, resting and observed hosts."""

from __future__ import annotations

import time

from tests.integration.system.cluster import Cluster, Object, connection, firmware_vm


def annotate(cluster: Cluster, kind: str, name: str, value: str | None) -> None:
    """Set or remove hostler.dev/paused."""
    what = f"hostler.dev/paused={value}" if value is not None else "hostler.dev/paused-"
    cluster.lab.kubectl("annotate", kind, name, "-n", cluster.namespace, what)


def schedulable(cluster: Cluster, host: str, status: str, reason: str) -> None:
    cluster.wait_condition("host", host, "Schedulable", status, reason)


def test_paused_vm_is_watched_and_left_alone(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web"))
    (host,) = [cluster.running("web")["status"]["placement"]["host"]]
    annotate(cluster, "hvm", "web", "someone")
    condition = cluster.wait_condition("hvm", "web", "Paused", "True", "Paused")
    assert "someone" in condition["message"]
    cluster.patch("hvm", "web", {"runPolicy": "Halted"})
    cluster.wait("it is noticed", lambda: _generation_seen(cluster.get("hvm", "web")))
    time.sleep(4)
    assert cluster.domains("web") == {host: "running"}
    cluster.patch("hvm", "web", {"runPolicy": "Always"})
    # What somebody else does is told, and not undone.
    with connection(cluster.lab.host(host)) as conn:
        conn.lookupByName(f"{cluster.namespace}.web").destroy()
    cluster.wait("status is true", lambda: (cluster.get("hvm", "web") or {})["status"]["phase"] != "Running")
    time.sleep(4)
    assert cluster.domains("web") == {host: "off"}
    cluster.delete("hvm", "web")
    time.sleep(4)
    assert cluster.domains("web") == {host: "off"}, "not even a deletion goes on"
    annotate(cluster, "hvm", "web", None)
    cluster.wait_gone("hvm", "web")
    assert cluster.domains("web") == {}


def _generation_seen(obj: Object | None) -> bool:
    return obj is not None and obj["status"]["observedGeneration"] == obj["metadata"]["generation"]


def test_cordoned_and_resting_hosts_take_nothing_new(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web", placement={"host": "kvm1"}))
    cluster.running("web")
    pid = cluster.lab.host("kvm1").qemu(f"{cluster.namespace}.web").pid
    try:
        cluster.patch("host", "kvm1", {"mode": "Cordoned"})
        schedulable(cluster, "kvm1", "False", "Cordoned")
        cluster.wait_phase("host", "kvm1", "Up")
        cluster.apply(firmware_vm("new", placement={"host": "kvm1"}))
        condition = cluster.wait_condition("hvm", "new", "Scheduled", "False", "Unschedulable")
        assert "cordoned" in condition["message"]
        cluster.patch("host", "kvm1", {"mode": "Maintenance"})
        cluster.wait_phase("host", "kvm1", "PreparingForMaintenance")
        condition = cluster.wait_condition("host", "kvm1", "Reconciling", "True", "WaitingForVMs")
        assert f"{cluster.namespace}/web" in condition["message"]
        assert cluster.lab.host("kvm1").qemu(f"{cluster.namespace}.web").pid == pid
        cluster.running("web")
        cluster.patch("hvm", "web", {"runPolicy": "Halted"})
        cluster.wait_phase("host", "kvm1", "Maintenance")
        cluster.wait_condition("host", "kvm1", "Ready", "True", "Maintenance")
        assert cluster.lab.host("kvm1").qemus() == []
    finally:
        cluster.patch("host", "kvm1", {"mode": "Active"})
    cluster.running("new")


def test_observed_host_is_never_acted_on(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web", placement={"host": "kvm1"}))
    cluster.running("web")
    kvm1 = cluster.lab.host("kvm1")
    pid = kvm1.qemu(f"{cluster.namespace}.web").pid
    try:
        cluster.patch("host", "kvm1", {"management": "Observe"})
        schedulable(cluster, "kvm1", "False", "Observed")
        cluster.patch("hvm", "web", {"runPolicy": "Halted"})
        cluster.apply(firmware_vm("new", placement={"host": "kvm1"}))
        cluster.wait_condition("hvm", "new", "Scheduled", "False", "Unschedulable")
        cluster.wait("it is noticed", lambda: _generation_seen(cluster.get("hvm", "web")))
        time.sleep(6)
        assert kvm1.qemu(f"{cluster.namespace}.web").pid == pid
        assert cluster.domains("web") == {"kvm1": "running"}
        # What is seen there is told all the same.
        kvm1.qemu_kill(f"{cluster.namespace}.web")
        cluster.wait("status is true", lambda: (cluster.get("hvm", "web") or {})["status"]["phase"] != "Running")
        cluster.patch("hvm", "web", {"runPolicy": "Always"})
        time.sleep(6)
        assert [q for q in kvm1.qemus() if q.name == f"{cluster.namespace}.web"] == []
    finally:
        cluster.patch("host", "kvm1", {"management": "Full"})
    cluster.running("web")
    cluster.running("new")
