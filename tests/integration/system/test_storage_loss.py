"""Storage that is not there: said for each host, never taken for an empty one, and whole again when it is back."""

from __future__ import annotations

import time

from tests.integration.system.cluster import Cluster, disk, firmware_vm


def below(cluster: Cluster) -> dict[str, str]:
    """What lies in the hosts' own directories under the mount point, where the share is not mounted."""
    return {h.name: h.run("ls", "-A", "/srv/shared").strip() for h in cluster.lab.hosts if not h.shared_is_mounted()}


def test_unmounted_share_is_not_an_empty_one(cluster: Cluster) -> None:
    hosts = cluster.lab.hosts
    first = hosts[0]
    cluster.apply(firmware_vm("web", placement={"host": first.name}))
    cluster.running("web")
    pid = first.qemu(f"{cluster.namespace}.web").pid
    first.unmount_shared()
    time.sleep(5.5)  # a look at the marker counts for five seconds
    # Nobody looked yet; the first who wants to use the share finds it, and goes on elsewhere.
    cluster.apply(disk("new", "1Mi"), firmware_vm("pinned", placement={"host": first.name}))
    condition = cluster.wait_condition("storagedomain", "shared", "Stalled", "True", "MarkerMissing")
    assert f"host {first.name}" in condition["message"]
    assert all(f"host {h.name}" not in condition["message"] for h in hosts[1:])
    cluster.wait_phase("storagedomain", "shared", "Degraded")
    cluster.wait_phase("disk", "new", "Ready")
    cluster.wait_phase("disk", "pinned-root", "Ready")
    cluster.wait_condition("hvm", "pinned", "Scheduled", "False", "Unschedulable")
    cluster.wait_condition("host", first.name, "StorageReady", "False", "Missing")

    for h in hosts[1:]:
        h.unmount_shared()
    time.sleep(5.5)
    cluster.apply(disk("later", "1Mi"))
    cluster.wait_phase("storagedomain", "shared", "Inactive")
    cluster.wait_condition("disk", "later", "Ready", "False", "StorageNotReachable")
    # Not even an operator that has seen nothing before takes the empty directories for the domain.
    cluster.deployment.restart()
    cluster.wait_phase("storagedomain", "shared", "Inactive")
    cluster.wait_condition("storagedomain", "shared", "Stalled", "True", "MarkerMissing")
    time.sleep(10)
    assert below(cluster) == dict.fromkeys((h.name for h in hosts), "")
    assert first.qemu(f"{cluster.namespace}.web").pid == pid
    cluster.running("web")

    for h in hosts:
        h.mount_shared()
    cluster.wait_phase("storagedomain", "shared", "Active")
    cluster.wait_phase("disk", "later", "Ready")
    cluster.running("pinned")
    assert first.qemu(f"{cluster.namespace}.web").pid == pid


def test_missing_volume_blocks_the_start_and_is_never_made_again(cluster: Cluster) -> None:
    cluster.apply(
        disk("data", "1Mi"), firmware_vm("web", {"name": "root", "diskRef": {"name": "data"}}, runPolicy="Halted")
    )
    found = cluster.wait_phase("disk", "data", "Ready")
    volume = cluster.lab.shared / found["status"]["path"].rpartition("/")[2]
    volume.write_bytes(b"precious".ljust(2**20, b"\0"))
    away = volume.with_name(f"{cluster.namespace}.away")
    volume.rename(away)
    try:
        cluster.patch("hvm", "web", {"runPolicy": "Always"})
        cluster.wait_condition("hvm", "web", "Stalled", "True", "VolumeMissing")
        condition = cluster.wait_condition("disk", "data", "Stalled", "True", "VolumeMissing")
        assert volume.name in condition["message"] and "restore" in condition["message"]
        cluster.wait_phase("disk", "data", "Failed")
        cluster.patch("disk", "data", {"size": "2Mi"})
        cluster.deployment.restart()
        time.sleep(20)
        assert not volume.exists()
        cluster.wait_condition("hvm", "web", "Stalled", "True", "VolumeMissing")
    finally:
        away.rename(volume)
    cluster.running("web")
    cluster.wait_phase("disk", "data", "Ready")
    cluster.wait("the volume grows", lambda: volume.stat().st_size == 2 * 2**20)
    assert volume.read_bytes().startswith(b"precious")
