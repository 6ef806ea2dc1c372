"""Disks in hosts' own directories: made where their VM can run, and the VM runs where they are."""

from __future__ import annotations

from tests.integration.system.cluster import Cluster, disk, firmware_vm


def test_vm_runs_where_its_local_disks_are(cluster: Cluster) -> None:
    cluster.apply(disk("first", "1Mi", domain="local"))
    condition = cluster.wait_condition("disk", "first", "Reconciling", "True", "WaitForFirstConsumer")
    assert "create that VM" in condition["message"]
    assert not [f for h in cluster.lab.hosts for f in h.local.glob(f"{cluster.namespace}.*")]
    second = {"name": "second", "template": {"size": "1Mi", "storageDomain": "local", "format": "raw"}}
    cluster.apply(
        firmware_vm("web", {"name": "first", "diskRef": {"name": "first"}}, second),
        firmware_vm("filler", placement={"host": "kvm1"}),
    )
    host = cluster.running("web")["status"]["placement"]["host"]
    for name in ("first", "web-second"):
        found = cluster.wait_phase("disk", name, "Ready")
        assert found["status"]["host"] == host
        assert (cluster.lab.host(host).local / found["status"]["path"].rpartition("/")[2]).exists()
    assert {f.parent for h in cluster.lab.hosts for f in h.local.glob(f"{cluster.namespace}.*")} == {
        cluster.lab.host(host).local
    }
    # Wherever there would be more room: it comes back to its disks, or it waits for their host and says so.
    cluster.patch("hvm", "web", {"runPolicy": "Halted"})
    cluster.wait_phase("hvm", "web", "Stopped")
    cluster.patch("host", host, {"mode": "Cordoned"})
    try:
        cluster.wait_condition("host", host, "Schedulable", "False", "Cordoned")
        cluster.patch("hvm", "web", {"runPolicy": "Always"})
        condition = cluster.wait_condition("hvm", "web", "Scheduled", "False", "Unschedulable")
        assert "is cordoned" in condition["message"]
        assert cluster.domains("web") == {}
    finally:
        cluster.patch("host", host, {"mode": "Active"})
    assert cluster.running("web")["status"]["placement"]["host"] == host
