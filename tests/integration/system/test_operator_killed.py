"""The operator dies at any moment of a VM's creation: there is one domain, one volume a disk, and nothing else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TextIO

import pytest

from lab.oracle import Expectation, Oracle
from tests.integration.system.cluster import PATIENCE, Cluster, firmware_vm
from tests.integration.system.test_vm_run_policy import qemus


@pytest.mark.parametrize("first", [1, 2])
def test_vm_being_created(cluster: Cluster, first: int) -> None:
    """Killed right after its n-th write about the VM or its disk, for every other n in turn."""
    uuids, moments = [], range(first, 10, 2)
    before = set(cluster.files())  # the trash of an earlier run in this lab
    for number in moments:
        name = f"web{number}"
        with Path(cluster.lab.state.log("audit")).open() as log:
            log.seek(0, 2)
            cluster.apply(firmware_vm(name))
            Writes(cluster, log).wait(name, number)
        cluster.deployment.kill()
        # Anything that was already sent may still arrive.
        cluster.deployment.start()
    for number in moments:
        name = f"web{number}"
        uuids.append(cluster.running(name)["status"]["uuid"])
        assert len(cluster.domains(name)) == 1, name
        assert len(qemus(cluster, name)) == 1, name
        volumes = [f for f in kept(cluster, before) if f.startswith(f"{cluster.namespace}.{name}-root-")]
        assert sorted(Path(f).suffix for f in volumes) == [".json", ".raw"]
    assert len(kept(cluster, before)) == 2 * len(moments)
    found = Oracle(cluster.lab.state, from_now=True).check(Expectation(domains=uuids, files=["*"]))
    assert found == []


def kept(cluster: Cluster, before: set[str]) -> set[str]:
    """New files but for the trash: a volume that was begun again on another host leaves its first beginning there."""
    files = set(cluster.files()) - before
    trashed = {f.partition(".trash-")[0] for f in files if ".trash-" in f}
    return {f for f in files if ".trash-" not in f and f.removesuffix(".json") not in trashed}


def test_vm_being_stopped_and_deleted(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web"), firmware_vm("old"))
    cluster.running("web")
    cluster.running("old")
    cluster.patch("hvm", "web", {"powerRequest": {"id": "1", "action": "Shutdown"}})
    cluster.delete("hvm", "old")
    for _ in range(2):
        time.sleep(0.3)
        cluster.deployment.restart()
    cluster.wait_phase("hvm", "web", "Stopped")
    cluster.wait_gone("hvm", "old")
    cluster.wait_gone("disk", "old-root")
    cluster.wait("no host defines it", lambda: cluster.domains("web") == {} == cluster.domains("old"))
    assert cluster.get("hvm", "web")["status"]["powerRequest"]["phase"] == "Succeeded"


class Writes:
    """The operator's writes from now on, as the API server logs them."""

    def __init__(self, cluster: Cluster, log: TextIO) -> None:
        self._cluster = cluster
        self._log = log
        self._rest = ""
        """A line that is not whole yet."""
        self._seen: list[str] = []

    def wait(self, vm: str, count: int) -> None:
        """Wait for that many about the VM and its disk; fewer will do when the VM runs."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            *lines, self._rest = (self._rest + self._log.read()).split("\n")
            for line in lines:
                self._take(line, vm)
            if len(self._seen) >= count or qemus(self._cluster, vm):
                return
            time.sleep(0.002)
        raise AssertionError(f"only {self._seen}")

    def _take(self, line: str, vm: str) -> None:
        event = json.loads(line)
        about = event.get("objectRef", {})
        ours = event["user"]["username"].endswith(":hostler") and about.get("namespace") == self._cluster.namespace
        if ours and about.get("name") in (vm, f"{vm}-root"):
            self._seen.append(f"{event['verb']} {about['resource']}")
