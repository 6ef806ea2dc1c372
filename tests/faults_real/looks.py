"""What several tests ask of the lab: who runs, what was written, and whether disks are whole."""

from __future__ import annotations

import datetime
import json
import subprocess

from lab.controlplane.audit import Write
from lab.oracle import Expectation, Oracle, Violation
from tests.integration.system.cluster import KINDS, Cluster
from tests.integration.system.test_vm_run_policy import qemus

OPERATOR = "system:serviceaccount:hostler-system:hostler"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def pids(cluster: Cluster, *names: str) -> dict[str, set[int]]:
    """VM → processes of its QEMUs."""
    return {name: qemus(cluster, name) for name in names}


def writes(cluster: Cluster, since: datetime.datetime) -> list[Write]:
    """What the operator wrote to objects of ours since then (Events apart), refused or not."""
    found = cluster.lab.writes(since)
    return [w for w in found if w.user == OPERATOR and "hostler.dev" in w.resource and "events" not in w.resource]


def judged(cluster: Cluster, oracle: Oracle, *names: str) -> list[Violation]:
    """What the oracle has against it that exactly these VMs of the namespace may have domains and disks."""
    uuids, files = [], []
    for name in names:
        found = cluster.get("hvm", name)
        assert found is not None, name
        uuids.append(found["status"]["uuid"])
    for item in disks(cluster):
        if path := item["status"].get("path"):
            files += [path, f"{path}.json"]
    # What a deleted disk leaves lies in the trash for a time: the mark's name says of which volume it is one.
    trash = {file.partition(".trash-")[0] for file in cluster.files() if ".trash-" in file}
    files += [f"/srv/shared/{name}{suffix}" for name in trash for suffix in ("", ".json", ".trash-*", ".json.trash-*")]
    # Orphans in other namespaces are other tests' business.
    found_wrong = oracle.check(Expectation(domains=uuids, files=files))
    return [v for v in found_wrong if v.kind != "Orphan" or f"{cluster.namespace}." in v.subject + v.detail]


def disks(cluster: Cluster) -> list[dict[str, dict[str, str]]]:
    """The namespace's Disks."""
    found: list[dict[str, dict[str, str]]] = json.loads(
        cluster.lab.kubectl("get", KINDS[1], "-n", cluster.namespace, "-ojson")
    )["items"]
    return found


def volumes(cluster: Cluster, name: str) -> list[str]:
    """Volumes of a VM's root disk on the shared storage, but for their records and what is in the trash."""
    files = [file for file in cluster.files() if file.startswith(f"{cluster.namespace}.{name}-root-")]
    trash = {file.partition(".trash-")[0] for file in files if ".trash-" in file}
    return [f for f in files if not f.endswith(".json") and ".trash-" not in f and f not in trash]


def checked(cluster: Cluster, file: str) -> None:
    """`qemu-img check` finds no fault with a volume that can have one (raw has no structure)."""
    if file.endswith(".qcow2"):
        subprocess.run(["qemu-img", "check", "-U", str(cluster.lab.shared / file)], check=True, capture_output=True)
