"""What an edit cannot change in a running VM is said, and comes with the next power cycle."""

from __future__ import annotations

from pathlib import Path

from tests.integration.system.cluster import Cluster, firmware_vm
from tests.integration.system.inside import Guest


def test_restart_is_required_until_reverted_or_done(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web"))
    cluster.running("web")
    guest = Guest(cluster, "web")
    cluster.patch("hvm", "web", {"memory": {"size": "48Mi"}})
    condition = cluster.wait_condition("hvm", "web", "RestartRequired", "True")
    assert "memory" in condition["message"]
    cluster.wait_condition("hvm", "web", "Ready", "True")
    assert guest.document().findtext("memory") == str(32 * 1024)
    cluster.patch("hvm", "web", {"memory": {"size": "32Mi"}})
    cluster.wait_condition("hvm", "web", "RestartRequired", "False")

    cluster.patch("hvm", "web", {"memory": {"size": "48Mi"}, "cpu": {"cores": 2}})
    condition = cluster.wait_condition("hvm", "web", "RestartRequired", "True")
    assert {"cpu", "memory"} <= set(condition["message"].partition(": ")[2].split(", "))
    # An operator that is started anew knows it still: the fingerprints are in the domain.
    cluster.deployment.restart()
    cluster.whole()
    cluster.wait_condition("hvm", "web", "RestartRequired", "True")
    cluster.patch("hvm", "web", {"runPolicy": "Halted"})
    cluster.wait_phase("hvm", "web", "Stopped")
    cluster.wait_condition("hvm", "web", "RestartRequired", "False")
    cluster.patch("hvm", "web", {"runPolicy": "Always"})
    cluster.running("web")
    document = guest.document()
    assert (document.findtext("memory"), document.findtext("vcpu")) == (str(48 * 1024), "2")
    cluster.wait_condition("hvm", "web", "RestartRequired", "False")


def test_disk_grows_while_the_vm_is_off(cluster: Cluster) -> None:
    template = {"size": "16Mi", "storageDomain": "shared", "format": "raw"}
    cluster.apply(firmware_vm("web", {"name": "root", "template": template}, runPolicy="Halted"))
    cluster.wait_phase("hvm", "web", "Stopped")
    path = cluster.wait_phase("disk", "web-root", "Ready")["status"]["path"]
    file = Path(cluster.lab.shared, Path(path).name)
    assert file.stat().st_size == 16 * 1024 * 1024
    cluster.patch("hvm", "web", {"disks": [{"name": "root", "template": {**template, "size": "32Mi"}}]})
    cluster.wait("the file has grown", lambda: file.stat().st_size == 32 * 1024 * 1024)
    cluster.wait("it is shown", lambda: cluster.get("disk", "web-root")["status"]["virtualSize"] == "32Mi")
