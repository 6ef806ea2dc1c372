"""Bad input that only the cluster as a whole can see: each says what to do, loses nothing, and heals once mended."""

from __future__ import annotations

import base64
import os
import subprocess
from io import BytesIO

from pycdlib.pycdlib import PyCdlib

from tests.integration.system.cluster import Cluster, Object, disk, firmware_vm
from tests.integration.system.test_disk_sources import checksum
from tests.integration.system.test_typed_reasons import stalled

MAC = "52:54:00:ba:d0:01"
USER_DATA = b"\x1f\x8b" + os.urandom(900_000)
"""As large as a Secret can carry beside its base64, and no text at all."""


def card(name: str = "lan") -> Object:
    return {"name": name, "network": "lan", "mac": MAC}


def drive(size: str) -> Object:
    return {"name": "root", "template": {"size": size, "storageDomain": "shared", "format": "raw"}}


def test_specs_that_cannot_be_had_say_so_and_heal(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "large", "namespace": cluster.namespace}}
    cloud = {"userDataSecretRef": {"name": "large"}}
    cluster.apply({**secret, "stringData": {"user-data": "under another key"}}, firmware_vm("first", nics=[card()]))
    cluster.running("first")
    cluster.apply(
        firmware_vm("second", nics=[card()]),
        firmware_vm("twice", nics=[card(), card("dmz")]),
        firmware_vm("huge", memory={"size": "64Ti"}),
        firmware_vm("seed", cloudInit=cloud),
        firmware_vm("shrunk", drive("2Mi")),
    )
    stalled(cluster, "hvm", "second", "DuplicateMAC", MAC, f"{cluster.namespace}/first", "choose another")
    stalled(cluster, "hvm", "twice", "DuplicateMAC", MAC, "twice in this VM")
    stalled(cluster, "hvm", "seed", "SecretNotFound", "large", "key userData")
    condition = cluster.wait_condition("hvm", "huge", "Scheduled", "False", "Unschedulable")
    assert "memory" in condition["message"]
    path = cluster.running("shrunk") and cluster.wait_phase("disk", "shrunk-root", "Ready")["status"]["path"]
    volume = cluster.lab.shared / path.rpartition("/")[2]
    cluster.apply(firmware_vm("shrunk", drive("1Mi")))
    stalled(cluster, "hvm", "shrunk", "CannotShrink", "shrunk-root", "template.size", "2Mi")
    assert volume.stat().st_size == 2 * 2**20
    for name, there in (("second", {}), ("twice", {}), ("huge", {}), ("seed", {}), ("first", "running")):
        assert list(cluster.domains(name).values()) == ([there] if there else [])
    assert list(cluster.domains("shrunk").values()) == ["running"]

    cluster.apply(
        {**secret, "data": {"userData": base64.b64encode(USER_DATA).decode()}},
        firmware_vm("second", nics=[{"name": "lan", "network": "lan"}]),
        firmware_vm("twice", nics=[{"name": "lan", "network": "lan"}]),
        firmware_vm("huge", memory={"size": "32Mi"}),
        firmware_vm("shrunk", drive("2Mi")),
    )
    for name in ("second", "twice", "huge", "seed", "shrunk"):
        cluster.running(name)
    (seed,) = (name for name in cluster.files() if name.endswith(".seed.iso"))
    assert user_data(cluster, seed) == USER_DATA


def user_data(cluster: Cluster, seed: str) -> bytes:
    iso, found = PyCdlib(), BytesIO()
    iso.open(str(cluster.lab.shared / seed))
    iso.get_file_from_iso_fp(found, joliet_path="/user-data")
    iso.close()
    return found.getvalue()


def test_images_that_refer_to_other_files_are_refused(cluster: Cluster) -> None:
    """A qcow2 that keeps its data in another file, and a VMDK descriptor that names one."""
    shared, own = cluster.lab.shared, cluster.namespace
    external, data, text = (shared / f"{own}.{name}" for name in ("external.qcow2", "data.raw", "text.raw"))
    options = ["-o", f"data_file={data},data_file_raw=on"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, external, "1M"], check=True)
    text.write_bytes(b'# x\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/passwd" 0\n'.ljust(2**20, b"\0"))
    try:
        for name, file, format_ in (("data", external, "qcow2"), ("text", text, "raw")):
            copied = {"file": {"path": file.name, "checksum": checksum(file.read_bytes())}}
            taken = {"existing": {"path": file.name}}
            cluster.apply(
                disk(f"{name}-copied", "1Mi", format=format_, source=copied),
                disk(f"{name}-taken", "1Mi", format=format_, source=taken),
            )
        for way in ("copied", "taken"):
            stalled(cluster, "disk", f"data-{way}", "ExternalDataFile", "qemu-img convert")
            stalled(cluster, "disk", f"text-{way}", "UnsupportedFormat", "VMDK", "qemu-img")
        assert cluster.files() == sorted(file.name for file in (external, data, text))
    finally:
        for file in (external, data, text):
            file.unlink()
