"""A power request is carried out once: not when the object is made with it, and not again after a restart of ours."""

from __future__ import annotations

import libvirt

from lab import Lab
from tests.integration.system.cluster import Cluster, Object, connection, firmware_vm, guest_vm
from tests.integration.system.happenings import happenings
from tests.integration.system.inside import Guest

# The guest's system has booted. (A reset is no good measure: firmware resets itself once or twice more.)
BOOTED = "agent-lifecycle state: 'connected' reason: 'channel event'"


def request(cluster: Cluster, name: str, id_: str, action: str) -> Object:
    """Ask, and wait until it is done."""
    cluster.patch("hvm", name, {"powerRequest": {"id": id_, "action": action}})
    return cluster.wait(f"request {id_} {action} is done", lambda: _ended(cluster, name, id_))


def _ended(cluster: Cluster, name: str, id_: str) -> Object | None:
    found = cluster.get("hvm", name)["status"].get("powerRequest") or {}
    return found if found.get("id") == id_ and found["phase"] != "Running" else None


def state(cluster: Cluster, name: str) -> list[int]:
    """libvirt's states of the VM's domains on all hosts."""
    found = []
    for host in cluster.lab.hosts:
        with connection(host) as conn:
            domains = [d for d in conn.listAllDomains() if d.name() == f"{cluster.namespace}.{name}"]
            found += [d.state()[0] for d in domains]
    return found


def booted(guest: Guest) -> str:
    """Another text after each boot of the guest."""
    return guest.run("cat /proc/sys/kernel/random/boot_id")


def test_each_request_is_carried_out_once(cluster: Cluster, lab: Lab) -> None:
    cluster.apply(guest_vm(lab, "web", 43, powerRequest={"id": "0", "action": "ForceOff"}))
    vm = cluster.running("web")
    assert vm["status"]["powerRequest"] == {"id": "0", "phase": "Recorded"}
    guest = Guest(cluster, "web")
    guest.ready()
    boot = booted(guest)

    with happenings(cluster, "web") as happened:
        assert request(cluster, "web", "1", "Pause")["phase"] == "Succeeded"
        assert state(cluster, "web") == [libvirt.VIR_DOMAIN_PAUSED]
        cluster.wait_phase("hvm", "web", "Paused")
        assert request(cluster, "web", "2", "Resume")["phase"] == "Succeeded"
        assert state(cluster, "web") == [libvirt.VIR_DOMAIN_RUNNING]
        assert booted(guest) == boot

        for number, action in enumerate(("Reboot", "Reset"), 1):
            assert request(cluster, "web", action, action)["phase"] == "Succeeded"
            cluster.wait(f"{action}: the guest boots", lambda number=number: happened.count(BOOTED) == number)
            guest.ready()
            assert booted(guest) != boot
            boot = booted(guest)

        cluster.deployment.restart()
        cluster.whole()
        assert booted(guest) == boot
        assert request(cluster, "web", "5", "ForceOff")["phase"] == "Succeeded"
        cluster.wait_phase("hvm", "web", "Stopped")
        assert state(cluster, "web") == []
        assert request(cluster, "web", "6", "Start")["phase"] == "Succeeded"
        cluster.running("web")

        events = happened.all()
        assert events.count(BOOTED) == 2, events
        assert events.count("lifecycle Suspended Paused") == 1, events
        assert events.count("lifecycle Stopped Destroyed") == 1, events
        assert events.count("lifecycle Started Booted") == 1, events


def test_request_that_cannot_be_is_refused(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("off", runPolicy="Halted"))
    cluster.wait_phase("hvm", "off", "Stopped")
    for id_, action, words in (("1", "Reboot", "not running"), ("2", "Start", "Halted")):
        answer = request(cluster, "off", id_, action)
        assert answer["phase"] == "Refused"
        assert words in answer["message"]
    assert cluster.domains("off") == {}
