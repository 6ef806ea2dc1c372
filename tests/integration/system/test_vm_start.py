"""From nothing to a running VM that is what was declared, in the host's eyes and in the guest's."""

from __future__ import annotations

from lab import Lab
from tests.integration.system.cluster import Cluster, firmware_vm, guest_vm
from tests.integration.system.inside import Guest

MAC = "52:54:00:aa:bb:01"


def test_guest_is_what_was_declared(cluster: Cluster, lab: Lab) -> None:
    vm = guest_vm(lab, "web", 41, cpu={"sockets": 2, "cores": 1}, placement={"host": "kvm2"})
    vm["spec"]["memory"]["size"] = "160Mi"
    vm["spec"]["nics"][0]["mac"] = MAC
    cluster.apply(vm)
    status = cluster.running("web")["status"]

    assert status["placement"]["host"] == "kvm2"
    assert status["placement"]["candidates"] == ["kvm2"]
    assert cluster.domains("web") == {"kvm2": "running"}

    guest = Guest(cluster, "web")
    document = guest.document()
    assert document.findtext("vcpu") == "2"
    assert document.find("memory").get("unit") == "KiB"
    assert document.findtext("memory") == str(160 * 1024)
    assert guest.macs() == [MAC]
    assert document.find("devices/interface/source").get("bridge") == "lan"
    sources = [d.find("source").get("file") for d in document.findall("devices/disk")]
    paths = {cluster.get("disk", name)["status"]["path"] for name in ("web-root", "web-data")}
    assert paths < set(sources)
    assert all(path.startswith("/srv/shared/") for path in sources)

    identity = guest.identity()
    meta = cluster.get("hvm", "web")["metadata"]
    assert (identity["namespace"], identity["name"], identity["uid"]) == (cluster.namespace, "web", meta["uid"])
    assert identity["epoch"] == str(status["placement"]["epoch"])
    assert document.findtext("uuid") == status["uuid"]

    guest.ready()
    assert guest.run("nproc").strip() == "2"
    total = int(guest.run("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    assert 110 * 1024 < total <= 160 * 1024
    assert guest.run("cat /sys/block/vda/size /sys/block/vdb/size").split() == [str(64 * 2048), str(16 * 2048)]
    assert guest.run("hostname").strip() == "web"
    assert guest.run("cat /sys/class/net/e*/address").strip() == MAC
    cluster.wait("the guest answers ping", lambda: lab.ping("10.88.0.41"))

    cluster.wait("the agent's facts are shown", lambda: cluster.get("hvm", "web")["status"].get("guest"))
    facts = cluster.get("hvm", "web")["status"]["guest"]
    assert (facts["hostname"], facts["ipAddress"]) == ("web", "10.88.0.41")
    cluster.wait_condition("hvm", "web", "GuestAgentConnected", "True")


def test_host_is_one_that_the_selector_names(cluster: Cluster, lab: Lab) -> None:
    lab.kubectl("label", "host", "kvm3", "--overwrite", f"{cluster.namespace}=here")
    vm = firmware_vm("picky", placement={"hostSelector": {"matchLabels": {cluster.namespace: "nowhere"}}})
    cluster.apply(vm)
    cluster.wait_condition("hvm", "picky", "Scheduled", "False", "Unschedulable")
    assert cluster.domains("picky") == {}
    cluster.patch("hvm", "picky", {"placement": {"hostSelector": {"matchLabels": {cluster.namespace: "here"}}}})
    cluster.running("picky")
    assert cluster.domains("picky") == {"kvm3": "running"}
