"""A controller stands still between its last look and a call, while a second one works; then it goes on."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.oracle import Oracle
from lab.processes import end, send, spawn
from tests.faults_real.crashing import Crashing, vm
from tests.faults_real.looks import judged, volumes
from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster
from tests.integration.system.test_vm_run_policy import qemus
from tools.deployment import ROOT

STANDSTILL = 20.0
SENT = ("host: create_volume", "host: define", "host: start", "patch-status VirtualMachine")


@contextmanager
def second_controller(cluster: Cluster) -> Iterator[None]:
    """Another operator of the same installation, as when a Deployment is rolled out badly."""
    kubeconfig = str(cluster.deployment.kubeconfig)
    arguments = ["operator", "--kubeconfig", kubeconfig, "--http-port", "0", "--log-format", "text"]
    command = ["env", "-C", str(ROOT), sys.executable, *arguments]
    process = spawn(cluster.lab.state, "operator-2", command, inside=cluster.lab.control.process.pid)
    try:
        yield
    finally:
        end([process])


def stopped(cluster: Cluster) -> bool:
    """Whether the first operator stands still."""
    process = cluster.deployment.process()
    assert process is not None, "it has ended"
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.timeout(1200)
def test_never_two_domains(cluster: Cluster, crashing: Crashing, figures: Figures) -> None:
    crashing.start("xaay", (0, "never"))
    cluster.apply(vm("xaay"))
    cluster.running("xaay")
    calls = crashing.calls("xaay")
    numbers = [number for number, call in enumerate(calls, 1) if call in SENT]
    assert {"host: define", "host: start"} <= set(calls), calls
    oracle = Oracle(cluster.lab.state, from_now=True)
    reached, names = 0, ["xaay"]
    for number in numbers:
        name = f"x{number:02d}y"
        names.append(name)
        crashing.start(name, (number, "before"), "STOP")
        cluster.apply(vm(name))
        cluster.wait(f"the controller stops or {name} runs", lambda name=name: stopped(cluster) or qemus(cluster, name))
        reached += stopped(cluster)
        first = cluster.deployment.process()
        assert first is not None
        with second_controller(cluster):
            began = time.monotonic()
            while time.monotonic() < began + STANDSTILL:
                assert len(qemus(cluster, name)) <= 1
                assert oracle.check() == []
                time.sleep(0.2)
            send(first, signal.SIGCONT)
            cluster.running(name)
            assert oracle.watch(3) == []
        assert len(cluster.domains(name)) == 1 == len(qemus(cluster, name))
        assert len(volumes(cluster, name)) == 1
    assert judged(cluster, oracle, *names) == []
    figures.within(f"of {len(numbers)} standstills, not reached", len(numbers) - reached, 1, "standstills")
