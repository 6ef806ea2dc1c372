"""Objects are deleted in any order: each waits for what hangs on it, says so, and goes when that has gone."""

from __future__ import annotations

from tests.integration.system.cluster import Cluster, disk, firmware_vm, host, network, pool, storage
from tests.integration.system.test_typed_reasons import drive, stalled


def test_everything_is_deleted_at_once_and_in_the_wrong_order(cluster: Cluster) -> None:
    own = cluster.namespace
    (cluster.lab.shared / own).mkdir()
    cluster.apply(network(own), storage(own, f"/srv/shared/{own}", "Shared", trashSeconds=0), disk("data", "1Mi", own))
    cluster.apply(firmware_vm("web", drive("data"), nics=[{"name": "lan", "network": own}]))
    where = cluster.running("web")["status"]["placement"]["host"]
    pid = cluster.lab.host(where).qemu(f"{own}.web").pid

    cluster.delete("hostpool", "default")
    cluster.delete("host", where)
    cluster.delete("networks.hostler.dev", own)
    cluster.delete("storagedomain", own)
    cluster.delete("disk", "data")
    stalled(cluster, "hostpool", "default", "InUse", where, f"{own}/web")
    stalled(cluster, "host", where, "InUse", f"{own}/web")
    stalled(cluster, "networks.hostler.dev", own, "InUse", f"{own}/web")
    stalled(cluster, "storagedomain", own, "InUse", f"{own}/data")
    cluster.wait_condition("disk", "data", "Ready", "False", "InUse")
    assert cluster.lab.host(where).qemu(f"{own}.web").pid == pid

    cluster.delete("hvm", "web")
    for kind, name in (("hvm", "web"), ("disk", "data")):
        cluster.wait_gone(kind, name)
    for kind, name in (("storagedomain", own), ("networks.hostler.dev", own), ("host", where)):
        cluster.wait_gone(kind, name)
    assert cluster.domains("web") == {}
    left = sorted(p.name for p in (cluster.lab.shared / own).iterdir())
    assert left == ["hostler-domain.json"], "the marker stays: the storage can be declared again"
    stalled(cluster, "hostpool", "default", "InUse")
    for h in cluster.lab.hosts:
        cluster.delete("host", h.name)
    cluster.wait_gone("hostpool", "default")
    cluster.apply(pool("default"), *(host(h.name, h.uri_tls) for h in cluster.lab.hosts))
    cluster.whole()


def test_namespace_is_deleted_with_running_vms(cluster: Cluster) -> None:
    template = {"name": "root", "template": {"size": "1Mi", "storageDomain": "shared", "format": "raw"}}
    cloud = {"userData": "#cloud-config\n"}
    cluster.apply(
        disk("shared-disk", "1Mi"),
        firmware_vm("one", template, cloudInit=cloud),
        firmware_vm("two", drive("shared-disk"), nics=[{"name": "lan", "network": "lan"}]),
        firmware_vm("waits", drive("nowhere")),
    )
    cluster.running("one")
    cluster.running("two")
    cluster.lab.kubectl("delete", "namespace", cluster.namespace, "--wait=false")
    cluster.wait_gone("namespace", cluster.namespace)
    assert cluster.domains("one") == cluster.domains("two") == {}
    assert not [qemu for h in cluster.lab.hosts for qemu in h.qemus() if qemu.name.startswith(f"{cluster.namespace}.")]
    left = [name for name in cluster.files() if ".trash-" not in name]
    assert all(name.removesuffix(".json").endswith(".raw") for name in left), "only volumes that wait in the trash"
    assert len([name for name in cluster.files() if ".trash-" in name]) == 2
    cluster.create_namespace()
