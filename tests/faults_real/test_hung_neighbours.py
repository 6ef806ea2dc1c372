"""One host's daemon hangs and a QEMU on another one is frozen: what is declared for other hosts is as quick as ever."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

from lab.hosts import Host
from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster, firmware_vm, pool
from tests.integration.system.test_host_failures import place

ROUNDS = 5
MORE = 0.5
"""Seconds that a VM may take longer to run because of other hosts."""
AUDIT_SECONDS = 10
"""Hosts are listed this often, frozen QEMUs with the rest."""


@pytest.mark.timeout(1200)
def test_no_slower_beside_them(cluster: Cluster, figures: Figures) -> None:
    """The daemon of a host that shares its storage with them; it was looked at right before it hangs."""
    cluster.apply(pool("default", monitoring={"heartbeatSeconds": 2, "auditSeconds": AUDIT_SECONDS}))
    hung, *others = cluster.lab.hosts
    cluster.apply(firmware_vm("frozen", placement={"host": others[0].name}))
    assert place(cluster, "frozen").name == others[0].name
    domain = f"{cluster.namespace}.frozen"
    before = {host.name: readiness(cluster, host.name) for host in others}
    healthy, unnoticed, known = list[float](), list[float](), list[float]()
    for _ in range(ROUNDS):
        healthy += [start(cluster, host) for host in others]
        others[0].qemu_stop(domain)
        for host in others:
            hung.hang()
            unnoticed.append(start(cluster, host))
            resume(cluster, hung)
        hung.hang()
        cluster.wait_condition("host", hung.name, "Connected", "False")
        known += [start(cluster, host) for host in others]
        time.sleep(AUDIT_SECONDS)
        others[0].qemu_cont(domain)
        resume(cluster, hung)
    # A frozen QEMU never makes its host look dead, not for a moment.
    assert {host.name: readiness(cluster, host.name) for host in others} == before
    usual = statistics.median(healthy)
    figures.within(f"a VM runs after its declaration, median of {len(healthy)}", usual, 60)
    for when, took in (("has just hung", unnoticed), ("is known to hang", known)):
        more = statistics.median(took) - usual
        figures.within(f"more beside a frozen QEMU and a daemon that {when}, median", more, MORE)


def start(cluster: Cluster, host: Host) -> float:
    """Seconds from the declaration of a VM until it runs on the host; then it goes."""
    began = time.monotonic()
    cluster.apply(firmware_vm("new", placement={"host": host.name}))
    running = "--for=jsonpath={.status.phase}=Running"
    cluster.lab.kubectl("wait", "hvm", "new", "-n", cluster.namespace, running, "--timeout=110s")
    took = time.monotonic() - began
    cluster.delete("hvm", "new")
    cluster.wait_gone("hvm", "new")
    cluster.wait_gone("disk", "new-root")
    return took


def resume(cluster: Cluster, host: Host) -> None:
    host.resume()
    cluster.wait("it is connected", lambda: readiness(cluster, host.name, "Connected")["status"] == "True")
    cluster.wait_phase("host", host.name, "Up")


def readiness(cluster: Cluster, host: str, kind: str = "Ready") -> dict[str, Any]:
    """A condition of the host, with the time since when it holds."""
    found = cluster.get("host", host)
    assert found is not None
    (condition,) = [c for c in found["status"]["conditions"] if c["type"] == kind]
    return {name: condition[name] for name in ("status", "reason", "lastTransitionTime")}
