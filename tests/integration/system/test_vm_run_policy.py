"""What follows when a guest shuts itself down, and when its QEMU dies, under each runPolicy."""

from __future__ import annotations

from lab import Lab
from tests.integration.system.cluster import Cluster, firmware_vm, guest_vm
from tests.integration.system.happenings import happenings
from tests.integration.system.inside import Guest


def kill(cluster: Cluster, name: str) -> int:
    """End the QEMU of a VM behind everyone's back; returns its process id."""
    (place,) = cluster.domains(name)
    qemu = cluster.lab.host(place).qemu(f"{cluster.namespace}.{name}")
    cluster.lab.host(place).qemu_kill(qemu.name)
    return qemu.pid


def qemus(cluster: Cluster, name: str) -> set[int]:
    """Process ids of the VM's QEMUs."""
    return {q.pid for h in cluster.lab.hosts for q in h.qemus() if q.name == f"{cluster.namespace}.{name}"}


def test_guest_that_shuts_itself_down(cluster: Cluster, lab: Lab) -> None:
    cluster.apply(guest_vm(lab, "web", 44, runPolicy="RerunOnFailure"))
    cluster.running("web")
    guest = Guest(cluster, "web")

    def power_off() -> None:
        guest.ready()
        with happenings(cluster, "web") as happened:
            guest.run("(sleep 1; poweroff) >/dev/null 2>&1 &")
            cluster.wait("it goes off", lambda: happened.count("lifecycle Stopped Shutdown") == 1)

    power_off()
    stopped = cluster.wait_phase("hvm", "web", "Stopped")
    assert stopped["status"]["power"]["reason"] == "GuestShutdown"
    cluster.deployment.restart()
    cluster.whole()
    cluster.wait("no host defines it", lambda: cluster.domains("web") == {})

    cluster.patch("hvm", "web", {"runPolicy": "Always"})
    cluster.running("web")
    before = qemus(cluster, "web")
    power_off()
    cluster.wait("it is started again", lambda: qemus(cluster, "web") - before)
    cluster.running("web")

    cluster.patch("hvm", "web", {"runPolicy": "Manual"})
    power_off()
    cluster.wait_phase("hvm", "web", "Stopped")
    assert cluster.domains("web") == {}


def test_qemu_that_dies(cluster: Cluster) -> None:
    for policy in ("Always", "RerunOnFailure", "Manual"):
        cluster.apply(firmware_vm(policy.lower(), runPolicy=policy))
    cluster.wait_phase("hvm", "manual", "Stopped")
    assert cluster.domains("manual") == {}
    cluster.patch("hvm", "manual", {"powerRequest": {"id": "1", "action": "Start"}})
    for name in ("always", "rerunonfailure", "manual"):
        cluster.running(name)
    old = {name: kill(cluster, name) for name in ("always", "rerunonfailure", "manual")}
    for name in ("always", "rerunonfailure"):
        cluster.wait(f"{name} is back", lambda name=name: qemus(cluster, name) - {old[name]}, timeout=30)
        assert cluster.running(name)["status"]["startFailure"]["count"] == 1
    cluster.wait_phase("hvm", "manual", "Crashed")
    cluster.wait_condition("hvm", "manual", "Stalled", "True", "Crashed")
    cluster.wait("no host defines it", lambda: cluster.domains("manual") == {})
    assert qemus(cluster, "manual") == set()
    cluster.patch("hvm", "manual", {"powerRequest": {"id": "2", "action": "Start"}})
    cluster.running("manual")
