"""A VM's descriptive status, from facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crds.virtual_machine import VMPhase
from drivers.model import DeviceObservation, DomainObservation, DomainState, GuestFacts, GuestInterfaceFacts
from reconcilers.standing import Verdict, progressing, ready, stalled, unknown
from reconcilers.virtual_machine.needs import Needs
from reconcilers.virtual_machine.status import status_of
from tests.unit.reconcilers.builders import VmBuilder, after, vm
from tests.unit.reconcilers.fakes import domain
from xmlgen.sections import Changes

NONE = Needs(None, (), {}, (), ())
GUEST = GuestFacts(
    "web", "Debian", (GuestInterfaceFacts("lo0", None, ()), GuestInterfaceFacts("ens3", "a", ("10.0.0.5/24",)))
)


def status(
    built: VmBuilder,
    verdict: Verdict | None = None,
    *,
    phase: VMPhase | None = VMPhase.RUNNING,
    needs: Needs = NONE,
    seen: DomainObservation | None = None,
    changes: Changes | None = None,
) -> dict[str, Any]:
    return status_of(built.build(), verdict or ready("Running"), phase, needs, seen, changes, after(60))


def condition(found: dict[str, Any], kind: str) -> tuple[str, str, str]:
    return next((c["status"], c["reason"], c["message"]) for c in found["conditions"] if c["type"] == kind)


def test_all_conditions_are_there_and_sorted():
    found = [c["type"] for c in status(vm())["conditions"]]
    assert found == sorted(found)
    assert set(found) == {
        "DisksReady",
        "GuestAgentConnected",
        "Ready",
        "Reconciling",
        "RestartRequired",
        "Scheduled",
        "Stalled",
    }


@pytest.mark.parametrize(
    ("verdict", "phase", "shown"),
    [
        (ready("Running"), VMPhase.RUNNING, "Running"),
        (ready("Stopped"), VMPhase.STOPPED, "Stopped"),
        (progressing("Starting", "", 60), VMPhase.STARTING, "Starting"),
        (stalled("DiskNotFound", "x"), VMPhase.PENDING, "DiskNotFound"),
        (unknown("HostUnreachable", "x"), VMPhase.UNKNOWN, "HostUnreachable"),
        (progressing("CrashBackOff", "x", 60), VMPhase.CRASHED, "CrashBackOff"),
    ],
)
def test_what_kubectl_get_shows(verdict, phase, shown):
    assert status(vm(), verdict, phase=phase)["printableStatus"] == shown


def test_scheduled():
    assert condition(status(vm().running_on("kvm1")), "Scheduled") == ("True", "Scheduled", "on host kvm1")
    none_fits = progressing("Unschedulable", "no host has 4 CPUs", 120)
    assert condition(status(vm(), none_fits), "Scheduled") == ("False", "Unschedulable", "no host has 4 CPUs")
    assert condition(status(vm()), "Scheduled") == ("False", "NotRunning", "")


def test_disks_ready_names_every_problem():
    problems = (stalled("DiskNotFound", "there is no Disk a"), progressing("DisksNotReady", "disk b: soon", 60))
    found = condition(status(vm(), needs=replace(NONE, disk_problems=problems)), "DisksReady")
    assert found == ("False", "DiskNotFound", "there is no Disk a; disk b: soon")
    assert condition(status(vm()), "DisksReady")[0] == "True"


def test_restart_required_says_for_what():
    found = condition(status(vm(), changes=Changes(restart=("cpu", "ua-disk-root"))), "RestartRequired")
    assert found[:2] == ("True", "SpecChanged")
    assert found[2].endswith("cpu, disk-root")
    assert condition(status(vm(), changes=Changes(attach=("ua-disk-a",))), "RestartRequired")[0] == "False"


def test_restart_required_is_not_taken_back_without_looking():
    before = vm().condition("RestartRequired", "True", "SpecChanged", message="cpu")
    assert condition(status(before), "RestartRequired") == ("True", "SpecChanged", "cpu")
    assert condition(status(before, changes=Changes()), "RestartRequired")[0] == "False"


def test_paused():
    found = condition(status(vm().paused()), "Paused")
    assert found[:2] == ("True", "Paused")
    assert "someone" in found[2]
    assert "Paused" not in {c["type"] for c in status(vm())["conditions"]}


def test_what_the_guest_says():
    found = status(vm(), seen=domain(agent_connected=True, guest=GUEST))
    assert found["guest"]["ipAddress"] == "10.0.0.5"
    assert found["guest"]["hostname"] == "web"
    assert condition(found, "GuestAgentConnected") == ("True", "Connected", "")


def test_a_guest_that_is_off_says_nothing():
    off = domain(agent_connected=True, guest=GUEST, state=DomainState.SHUT_OFF)
    assert status(vm(), seen=off)["guest"] is None
    assert condition(status(vm(), seen=off), "GuestAgentConnected")[0] == "False"
    assert status(vm())["guest"] is None


def devices(*found: DeviceObservation) -> DomainObservation:
    return domain(devices=found)


def test_addresses_are_read_back():
    seen = devices(
        DeviceObservation("ua-disk-root", "pci:0000:03:00.0", target="vda", source="/srv/vms/root"),
        DeviceObservation("ua-nic-lan", "pci:0000:04:00.0", mac="52:54:00:00:00:01", target="vnet3"),
        DeviceObservation("pcie.1", "pci:0000:00:01.0"),
        DeviceObservation("ua-rng", None),
    )
    assert status(vm(), seen=seen)["devices"] == [
        {"name": "ua-disk-root", "address": "pci:0000:03:00.0", "target": "vda"},
        {"name": "ua-nic-lan", "address": "pci:0000:04:00.0", "mac": "52:54:00:00:00:01"},
    ]


def test_an_address_is_kept_while_the_spec_names_its_device():
    known = [{"name": "ua-disk-root", "address": "pci:a", "target": "vda"}, {"name": "ua-nic-old", "mac": "m"}]
    was = vm().spec(disks=[{"name": "root", "diskRef": {"name": "root"}}]).status(devices=known)
    other = devices(DeviceObservation("ua-seed", "pci:b", target="sda"))
    assert [d["name"] for d in status(was, seen=other)["devices"]] == ["ua-disk-root", "ua-seed"]
    assert status(was)["devices"] == known, "a host that cannot be asked takes nothing back"


def test_when_phases_were_entered():
    first = status(vm().status(phase="Starting"), phase=VMPhase.RUNNING)
    assert first["phaseTransitionTimestamps"] == [{"phase": "Running", "at": "2026-11-20T12:01:00Z"}]
    known = vm().status(phase="Running", phaseTransitionTimestamps=[{"phase": "Running", "at": "2026-11-20T11:00:00Z"}])
    assert status(known)["phaseTransitionTimestamps"][0]["at"] == "2026-11-20T11:00:00Z"
    stopped = status(known, phase=VMPhase.STOPPED)["phaseTransitionTimestamps"]
    assert [t["phase"] for t in stopped] == ["Running", "Stopped"]
    assert status(known, phase=None)["phaseTransitionTimestamps"] == status(known)["phaseTransitionTimestamps"]


def test_a_settled_vm_gets_the_same_status_again():
    seen = domain(devices=(DeviceObservation("ua-disk-root", "pci:a", target="vda"),))
    first = status(vm().running_on("kvm1"), seen=seen, changes=Changes())
    again = vm().running_on("kvm1").status(**first)
    assert status_of(again.build(), ready("Running"), VMPhase.RUNNING, NONE, seen, Changes(), after(9999)) == first
