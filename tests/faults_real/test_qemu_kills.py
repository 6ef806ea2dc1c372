"""QEMUs that die, fifty times: status says so within a second of each, and never more than is true."""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import TextIO

from tests.faults_real.looks import OPERATOR
from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster, firmware_vm
from tests.integration.system.test_vm_run_policy import kill, qemus

KILLS = 50
VMS = 10
BOUND = 1.0


def test_status_says_so(cluster: Cluster, figures: Figures) -> None:
    """Manual VMs stay down; each death is timed to the moment when the API server has the status written."""
    names = [f"web{number}" for number in range(VMS)]
    cluster.apply(*(firmware_vm(name, runPolicy="Manual") for name in names))
    for name in names:
        cluster.wait_phase("hvm", name, "Stopped")
    chance, took = random.Random(1), list[float]()
    for wave in range(KILLS // VMS):
        for name in names:
            cluster.patch("hvm", name, {"powerRequest": {"id": f"start-{wave}", "action": "Start"}})
        for name in names:
            cluster.running(name)
        chance.shuffle(names)
        for name in names:
            with cluster.lab.state.log("audit").open() as log:
                log.seek(0, 2)
                kill(cluster, name)
                began = time.time()
                took.append(written(cluster, log, name) - began)
        for name in names:
            cluster.wait_phase("hvm", name, "Crashed")
            assert qemus(cluster, name) == set()
    figures.within(f"{len(took)} deaths of a QEMU in status, median", statistics.median(took), BOUND)
    figures.within("slowest", max(took), BOUND)


def written(cluster: Cluster, log: TextIO, name: str) -> float:
    """When the API server had the first status of the VM after the kill (Unix time), by its own log."""
    rest, deadline = "", time.monotonic() + 60
    while time.monotonic() < deadline:
        *lines, rest = (rest + log.read()).split("\n")
        for event in map(json.loads, lines):
            about = event.get("objectRef", {})
            ours = event["user"]["username"] == OPERATOR and about.get("namespace") == cluster.namespace
            if ours and about.get("name") == name and about.get("subresource") == "status":
                return time.time()
        time.sleep(0.005)
    raise AssertionError(f"no status of {name} was written")
