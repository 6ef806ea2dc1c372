"""A host that is lost: its VMs are Unknown, nothing is started elsewhere, and it heals when the host is back."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

import pytest

from lab.hosts import Host
from tests.integration.system.cluster import Cluster, firmware_vm

FAILED_AFTER = 12.0
"""As in the pool of the tests."""


def processes(cluster: Cluster, name: str) -> dict[str, int]:
    """Host name → pid of every QEMU of this VM, from /proc."""
    found = {}
    for host in cluster.lab.hosts:
        for qemu in host.qemus():
            if qemu.name == f"{cluster.namespace}.{name}":
                found[host.name] = qemu.pid
    return found


def place(cluster: Cluster, name: str) -> Host:
    """The host that runs the VM."""
    return cluster.lab.host(cluster.running(name)["status"]["placement"]["host"])


def unknown(cluster: Cluster, name: str) -> None:
    """Wait until the VM is Unknown because its host does not answer."""
    cluster.wait_phase("hvm", name, "Unknown")
    condition = cluster.wait_condition("hvm", name, "Ready", "Unknown", "HostUnreachable")
    assert "bring it back" in condition["message"]
    cluster.wait_condition("hvm", name, "Stalled", "True", "HostUnreachable")


def test_power_cut_starts_nothing_elsewhere(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web"), firmware_vm("other"))
    host, elsewhere = place(cluster, "web"), place(cluster, "other")
    assert host.name != elsewhere.name, "VMs are spread"
    placed = {"placement": {"host": host.name}}
    cluster.apply(firmware_vm("manual", runPolicy="Manual", **placed), firmware_vm("off", runPolicy="Halted", **placed))
    cluster.wait_phase("hvm", "manual", "Stopped")
    cluster.patch("hvm", "manual", {"powerRequest": {"id": "1", "action": "Start"}})
    cluster.running("manual")
    before, other = processes(cluster, "web"), processes(cluster, "other")
    placement = cluster.running("web")["status"]["placement"]

    host.power_off()
    cut = time.monotonic()
    cluster.wait_phase("host", host.name, "NonResponsive")
    cluster.wait_condition("host", host.name, "Ready", "False", "NonResponsive")
    unknown(cluster, "web")
    unknown(cluster, "manual")
    cluster.wait_phase("hvm", "off", "Stopped")
    time.sleep(5)
    settled = datetime.datetime.now(datetime.UTC)
    while time.monotonic() < cut + FAILED_AFTER + 22:
        assert processes(cluster, "web") == processes(cluster, "manual") == {}
        time.sleep(2)
    # A host that stays away costs the API nothing.
    assert [w for w in cluster.lab.writes(settled) if "hostler.dev" in w.resource] == []
    vm = cluster.get("hvm", "web")
    assert vm is not None and vm["status"]["placement"] == placement
    assert processes(cluster, "other") == other
    assert cluster.running("other")["status"]["placement"]["host"] == elsewhere.name

    host.power_on()
    cluster.wait_phase("host", host.name, "Up")
    assert place(cluster, "web").name == host.name
    after = processes(cluster, "web")
    assert list(after) == [host.name] and after != before
    # A VM whose runPolicy is Manual stays off: its end with the host was no wish of the user.
    cluster.wait_phase("hvm", "manual", "Crashed")
    assert processes(cluster, "manual") == {}
    assert processes(cluster, "other") == other


def partition(host: Host) -> Callable[[], None]:
    host.partition()
    return host.heal


def hang(host: Host) -> Callable[[], None]:
    host.hang()
    return host.resume


@pytest.mark.parametrize("fault", [partition, hang])
def test_silent_host_heals_by_itself(cluster: Cluster, fault: Callable[[Host], Callable[[], None]]) -> None:
    cluster.apply(firmware_vm("web"))
    host, before = place(cluster, "web"), processes(cluster, "web")
    cluster.apply(firmware_vm("unwanted", placement={"host": host.name}))
    cluster.running("unwanted")
    unwanted = processes(cluster, "unwanted")
    mend = fault(host)
    cut = time.monotonic()
    cluster.delete("hvm", "unwanted")
    cluster.wait_phase("host", host.name, "NonResponsive")
    unknown(cluster, "web")
    while time.monotonic() < cut + FAILED_AFTER + 22:
        assert processes(cluster, "web") == before
        time.sleep(2)
    # What may still run keeps its disk, however much its deletion is wanted.
    assert processes(cluster, "unwanted") == unwanted
    condition = cluster.wait_condition("hvm", "unwanted", "Ready", "Unknown", "HostUnreachable")
    assert f"deletion waits for host {host.name}" in condition["message"]
    assert cluster.get("disk", "unwanted-root") is not None
    assert not [name for name in cluster.files() if ".trash-" in name]
    mend()
    cluster.wait_phase("host", host.name, "Up")
    cluster.wait_gone("hvm", "unwanted")
    assert processes(cluster, "unwanted") == {}
    assert place(cluster, "web").name == host.name
    assert processes(cluster, "web") == before


def test_daemon_restart_leaves_guests_alone(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web"))
    host, before = place(cluster, "web"), processes(cluster, "web")
    host.daemon_kill()
    cluster.wait_condition("host", host.name, "Connected", "False")
    host.daemon_start()
    cluster.wait_phase("host", host.name, "Up")
    cluster.wait_condition("host", host.name, "Connected", "True")
    assert place(cluster, "web").name == host.name
    assert processes(cluster, "web") == before


def test_host_changes_while_the_operator_is_away(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web"), firmware_vm("other"))
    host, elsewhere = place(cluster, "web"), place(cluster, "other")
    web, other = processes(cluster, "web"), processes(cluster, "other")
    cluster.deployment.kill()
    elsewhere.daemon_kill()
    host.power_off()
    elsewhere.daemon_start()
    cluster.deployment.start()
    # The operator has never seen this host alive, and still knows that the VM may run there.
    cluster.wait_phase("host", host.name, "NonResponsive")
    unknown(cluster, "web")
    assert processes(cluster, "web") == {}
    assert processes(cluster, "other") == other
    cluster.deployment.stop()
    host.power_on()
    cluster.deployment.start()
    assert place(cluster, "web").name == host.name
    after = processes(cluster, "web")
    assert list(after) == [host.name] and after != web
    assert place(cluster, "other").name == elsewhere.name
    assert processes(cluster, "other") == other
