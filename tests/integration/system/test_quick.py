"""The way from a manifest to a running domain and back, as short as it gets."""

from __future__ import annotations

from tests.integration.system.cluster import Cluster, firmware_vm


def test_vm_runs_and_leaves_nothing_behind(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("tiny"))
    vm = cluster.running("tiny")
    assert cluster.domains("tiny") == {vm["status"]["placement"]["host"]: "running"}
    cluster.delete("hvm", "tiny")
    cluster.wait_gone("hvm", "tiny")
    cluster.wait_gone("disk", "tiny-root")
    assert cluster.domains("tiny") == {}
