"""What is missing or wrong is said by a typed reason and what to do, and heals by itself once it is mended."""

from __future__ import annotations

import hashlib

from tests.integration.system.cluster import Cluster, Object, disk, firmware_vm, network, pool, storage


def stalled(cluster: Cluster, kind: str, name: str, reason: str, *words: str) -> None:
    """Wait until the object says that a person must do something, and what."""
    condition = cluster.wait_condition(kind, name, "Stalled", "True", reason)
    for word in words:
        assert word in condition["message"]
    cluster.wait_condition(kind, name, "Ready", "False", reason)


def drive(name: str) -> Object:
    return {"name": "root", "diskRef": {"name": name}}


def test_unknown_names_heal_when_the_thing_appears(cluster: Cluster) -> None:
    own = cluster.namespace
    (cluster.lab.shared / own).mkdir()
    nic = {"name": "lan", "network": f"{own}-net"}
    cloud = {"userDataSecretRef": {"name": "user-data"}}
    cluster.apply(
        firmware_vm("disk", drive("late")),
        firmware_vm("secret", cloudInit=cloud),
        firmware_vm("net", nics=[nic]),
        firmware_vm("pool", pool=f"{own}-pool", runPolicy="Halted"),
        firmware_vm("domain", {"name": "root", "template": {"size": "1Mi", "storageDomain": own, "format": "raw"}}),
    )
    stalled(cluster, "hvm", "disk", "DiskNotFound", "late", "create it")
    stalled(cluster, "hvm", "secret", "SecretNotFound", "user-data")
    stalled(cluster, "hvm", "net", "NetworkNotFound", f"{own}-net", "create it")
    stalled(cluster, "disk", "domain-root", "StorageDomainNotFound", own, "create it")
    stalled(cluster, "hvm", "domain", "StorageDomainNotFound", own)
    cluster.patch("hvm", "pool", {"runPolicy": "Always"})
    stalled(cluster, "hvm", "pool", "PoolNotFound", f"{own}-pool", "create it")
    try:
        user_data = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "user-data"}}
        cluster.apply(
            disk("late", "1Mi"),
            {**user_data, "stringData": {"userData": "#cloud-config\n"}},
            network(f"{own}-net", bridge="late-bridge"),
            pool(f"{own}-pool"),
            storage(own, f"/srv/shared/{own}", "Shared"),
        )
        stalled(cluster, "networks.hostler.dev", f"{own}-net", "BridgeMissing", "late-bridge", "kvm1")
        scheduled = cluster.wait_condition("hvm", "net", "Scheduled", "False", "Unschedulable")
        assert f"{own}-net" in scheduled["message"]
        for h in cluster.lab.hosts:
            h.run("ip", "link", "add", "late-bridge", "type", "bridge")
        # A pool without hosts is another thing to mend, and said as such.
        stalled(cluster, "hostpool", f"{own}-pool", "NoHosts", "create")
        cluster.wait_condition("hvm", "pool", "Ready", "False", "PoolNotReady")
        for name in ("disk", "secret", "net", "domain"):
            cluster.running(name)
            assert list(cluster.domains(name).values()) == ["running"]
    finally:
        for name in ("disk", "secret", "net", "domain", "pool"):
            cluster.delete("hvm", name)
        cluster.delete("networks.hostler.dev", f"{own}-net")
        cluster.delete("hostpool", f"{own}-pool")
        cluster.delete("storagedomain", own)
        cluster.wait_gone("hvm", "net")
        for h in cluster.lab.hosts:
            h.run("ip", "link", "del", "late-bridge")
    cluster.wait_gone("networks.hostler.dev", f"{own}-net")
    cluster.wait_gone("hostpool", f"{own}-pool")
    cluster.wait_gone("storagedomain", own)


def test_bad_images_are_refused_and_taken_once_mended(cluster: Cluster) -> None:
    images = cluster.lab.state.images
    good, bad = b"good" * 1024, b"evil" * 1024
    published, missing = images / f"{cluster.namespace}.img", images / f"{cluster.namespace}-late.img"
    published.write_bytes(bad)
    checksum = f"sha256:{hashlib.sha256(good).hexdigest()}"

    def from_http(name: str) -> Object:
        return {"http": {"url": f"{cluster.lab.images_url}/{name}", "checksum": checksum}}

    (cluster.lab.shared / f"{cluster.namespace}.src").write_bytes(bad)
    file = {"file": {"path": f"{cluster.namespace}.src", "checksum": checksum}}
    nowhere = {"http": {"url": "http://nowhere.lab/x.img", "checksum": checksum}}
    try:
        cluster.apply(
            disk("checksum", "1Mi", source=from_http(published.name)),
            disk("absent", "1Mi", source=from_http(missing.name)),
            disk("file", "1Mi", source=file),
            disk("no-file", "1Mi", source={"file": {"path": "no-such-file", "checksum": checksum}}),
            disk("nowhere", "1Mi", source=nowhere),
            disk("outside", "1Mi", source={"file": {"path": "/etc/passwd", "checksum": checksum}}),
            disk("lost", "1Mi", source={"existing": {"path": "no-such-file"}}),
        )
        stalled(cluster, "disk", "checksum", "ChecksumMismatch", "has changed", checksum.partition(":")[2])
        stalled(cluster, "disk", "absent", "DownloadFailed", "404")
        stalled(cluster, "disk", "file", "ChecksumMismatch")
        stalled(cluster, "disk", "no-file", "ImageNotFound", "no-such-file")
        stalled(cluster, "disk", "nowhere", "DownloadFailed", "nowhere.lab")
        stalled(cluster, "disk", "outside", "PathOutside", "/etc/passwd")
        stalled(cluster, "disk", "lost", "VolumeNotFound", "no-such-file")
        assert [name for name in cluster.files() if not name.endswith(".src")] == []
        published.write_bytes(good)
        missing.write_bytes(good)
        (cluster.lab.shared / f"{cluster.namespace}.src").write_bytes(good)
        for name in ("checksum", "absent", "file"):
            found = cluster.wait_phase("disk", name, "Ready")
            content = (cluster.lab.shared / found["status"]["path"].rpartition("/")[2]).read_bytes()
            assert content.startswith(good) and len(content) == 2**20
    finally:
        published.unlink(missing_ok=True)
        missing.unlink(missing_ok=True)
        (cluster.lab.shared / f"{cluster.namespace}.src").unlink()
