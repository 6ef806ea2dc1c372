"""A VM that is stopped leaves no domain, and comes back as the same machine."""

from __future__ import annotations

from lab import Lab
from tests.integration.system.cluster import Cluster, firmware_vm, guest_vm
from tests.integration.system.happenings import happenings
from tests.integration.system.inside import Guest


def test_guest_shuts_down_and_comes_back_the_same(cluster: Cluster, lab: Lab) -> None:
    cluster.apply(guest_vm(lab, "web", 42))
    cluster.running("web")
    guest = Guest(cluster, "web")
    guest.ready()
    addresses, macs, identity = guest.addresses(), guest.macs(), guest.identity()
    assert addresses["ua-disk-root"] != addresses["ua-disk-data"]
    before = cluster.get("hvm", "web")["status"]

    with happenings(cluster, "web") as happened:
        cluster.patch("hvm", "web", {"runPolicy": "Halted"})
        stopped = cluster.wait_phase("hvm", "web", "Stopped", timeout=60)
        assert [h for h in happened.all() if h.startswith("lifecycle Stopped")] == ["lifecycle Stopped Shutdown"]
    cluster.wait_condition("hvm", "web", "Ready", "True", "Stopped")
    cluster.wait("no host defines it", lambda: cluster.domains("web") == {})
    assert stopped["status"]["placement"].get("host") is None
    assert stopped["status"]["placement"].get("candidates", []) == []

    cluster.patch("hvm", "web", {"runPolicy": "Always"})
    after = cluster.running("web")["status"]
    assert (guest.addresses(), guest.macs()) == (addresses, macs)
    assert after["uuid"] == before["uuid"]
    assert int(guest.identity()["epoch"]) > int(identity["epoch"])
    guest.ready()
    assert guest.run("hostname").strip() == "web"


def test_guest_that_hears_nothing_is_cut_after_its_time(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("deaf", lifecycle={"shutdownTimeoutSeconds": 3}))
    cluster.running("deaf")
    with happenings(cluster, "deaf") as happened:
        cluster.patch("hvm", "deaf", {"runPolicy": "Halted"})
        cluster.wait_phase("hvm", "deaf", "Stopped", timeout=30)
        assert [h for h in happened.all() if h.startswith("lifecycle Stopped")] == ["lifecycle Stopped Destroyed"]
    cluster.wait("no host defines it", lambda: cluster.domains("deaf") == {})
    events = cluster.events("deaf")
    assert "PoweredOff" in events
