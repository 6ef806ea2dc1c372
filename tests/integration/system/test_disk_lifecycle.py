"""A disk's life: it grows, is used by one VM at a time, is not deleted while it is used, and goes through the trash."""

from __future__ import annotations

from pathlib import Path

from tests.integration.system.cluster import Cluster, Object, connection, disk, firmware_vm
from tests.integration.system.test_typed_reasons import drive, stalled


def volume(cluster: Cluster, name: str) -> Path:
    """The file behind a Disk that is Ready, on the shared storage."""
    found = cluster.wait_phase("disk", name, "Ready")
    return cluster.lab.shared / str(found["status"]["path"]).rpartition("/")[2]


def marks(file: Path) -> list[Path]:
    """The files that say that the volume is in the trash."""
    return list(file.parent.glob(f"{file.name}.trash-*"))


def remove(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.delete("disk", name)
    for name in names:
        cluster.wait_gone("disk", name)


def test_trash_keeps_what_was_deleted_until_it_is_taken_back(cluster: Cluster) -> None:
    cluster.apply(disk("data", "1Mi"), disk("kept", "1Mi", deletionPolicy="Retain"))
    data, kept = volume(cluster, "data"), volume(cluster, "kept")
    data.write_bytes(b"precious".ljust(2**20, b"\0"))
    kept.write_bytes(b"retained".ljust(2**20, b"\0"))
    remove(cluster, "data", "kept")
    assert len(marks(data)) == 1 and data.read_bytes().startswith(b"precious")
    assert marks(kept) == [] and kept.read_bytes().startswith(b"retained")
    # Taken back under another name; a Disk that is made again finds what it had retained.
    back = disk("back", "1Mi", source={"existing": {"path": data.name}})
    cluster.apply(back, disk("kept", "1Mi"))
    assert volume(cluster, "back") == data and marks(data) == []
    assert volume(cluster, "kept") == kept and kept.read_bytes().startswith(b"retained")
    assert data.read_bytes().startswith(b"precious")
    remove(cluster, "back")
    assert data.exists() and marks(data) == [], "existing is retained by default"
    cluster.apply({**back, "spec": {**back["spec"], "deletionPolicy": "Delete"}})
    volume(cluster, "back")
    cluster.patch("storagedomain", "shared", {"trashSeconds": 0})
    try:
        cluster.wait("the domain knows", lambda: _current(cluster.get("storagedomain", "shared")))
        remove(cluster, "back", "kept")
        assert not data.exists() and not kept.exists()
        assert not [name for name in cluster.files() if name.startswith((data.name, kept.name))]
    finally:
        cluster.patch("storagedomain", "shared", {"trashSeconds": None})


def _current(obj: Object | None) -> bool:
    return obj is not None and obj["status"]["observedGeneration"] == obj["metadata"]["generation"]


def test_disk_grows_and_serves_one_vm_at_a_time(cluster: Cluster) -> None:
    cluster.apply(disk("data", "1Mi"), disk("other", "1Mi", format="qcow2"))
    file = volume(cluster, "data")
    file.write_bytes(b"precious".ljust(2**20, b"\0"))
    cluster.patch("disk", "data", {"size": "2Mi"})
    cluster.wait("it has grown at rest", lambda: file.stat().st_size == 2 * 2**20)
    assert "cannot shrink" in cluster.refused(disk("data", "1Mi"))

    cluster.apply(firmware_vm("first", drive("data"), {"name": "more", "diskRef": {"name": "other"}}))
    cluster.running("first")
    cluster.patch("disk", "data", {"size": "4Mi"})
    cluster.patch("disk", "other", {"size": "3Mi"})
    (host,) = cluster.domains("first")
    with connection(cluster.lab.host(host)) as conn:
        domain = conn.lookupByName(f"{cluster.namespace}.first")
        cluster.wait("the guest's disks have grown", lambda: domain.blockInfo("vda")[0] == 4 * 2**20)
        cluster.wait("the guest's disks have grown", lambda: domain.blockInfo("vdb")[0] == 3 * 2**20)
    cluster.wait("status says so", lambda: (cluster.get("disk", "other") or {})["status"]["virtualSize"] == "3Mi")
    assert file.read_bytes().startswith(b"precious")

    cluster.apply(firmware_vm("second", drive("data")))
    stalled(cluster, "hvm", "second", "DiskInUse", "data", "first")
    assert cluster.domains("second") == {}
    cluster.delete("disk", "data")
    cluster.wait_condition("disk", "data", "Ready", "False", "InUse")
    condition = cluster.wait_condition("disk", "data", "Reconciling", "True", "InUse")
    assert "first" in condition["message"] and "second" in condition["message"]
    cluster.delete("disk", "other")
    cluster.wait_condition("disk", "other", "Ready", "False", "InUse")
    assert file.exists() and marks(file) == []
    assert cluster.domains("first") == {host: "running"}
    cluster.delete("hvm", "first")
    cluster.delete("hvm", "second")
    cluster.wait_gone("disk", "data")
    cluster.wait_gone("disk", "other")
    assert len(marks(file)) == 1


def test_exclusive_disk_passes_to_the_next_vm(cluster: Cluster) -> None:
    cluster.apply(disk("data", "1Mi"), firmware_vm("first", drive("data")))
    cluster.running("first")
    cluster.apply(firmware_vm("second", drive("data")))
    stalled(cluster, "hvm", "second", "DiskInUse", "data", "first")
    cluster.patch("hvm", "first", {"runPolicy": "Halted"})
    cluster.running("second")
    assert cluster.domains("first") == {}
    cluster.patch("hvm", "first", {"runPolicy": "Always"})
    stalled(cluster, "hvm", "first", "DiskInUse", "data", "second")
    cluster.delete("hvm", "second")
    cluster.running("first")
    assert cluster.domains("second") == {}
