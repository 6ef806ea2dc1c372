"""Status says what was observed and no more; one machine speaks once, under whatever names it is declared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crds.virtual_machine import VMPhase
from drivers.model import DomainState, GuestFacts, GuestInterfaceFacts, Identity, StopReason
from reconcilers.ownership import MayStart, Ownership, RunsOn
from reconcilers.standing import ready
from reconcilers.virtual_machine import observe, reconcile
from reconcilers.virtual_machine.decide import decide
from reconcilers.virtual_machine.needs import Needs
from reconcilers.virtual_machine.plan import Nothing, Observed
from reconcilers.virtual_machine.status import status_of
from tests.unit.reconcilers.builders import after, vm
from tests.unit.reconcilers.fakes import INSTALLATION, World, domain
from tests.unit.reconcilers.test_vm_disk_race import machine, read, world

NO_NEEDS = Needs(None, (), {}, (), ())
GUEST = GuestFacts("web", "Debian", (GuestInterfaceFacts("eth0", None, ("192.0.2.7/24",)),))


def mine(name: str, epoch: int, **changes: Any) -> Any:
    uid = f"uid-VirtualMachine-{name}"
    identity = Identity(INSTALLATION, "default", name, uid, epoch)
    return replace(domain(f"default.{name}", uid=uid), identity=identity, **changes)


# One machine, two Hosts ----------------------------------------------------------------------------------------------


def twins() -> World:
    w = world("kvm1", "kvm9")
    for host in w.hosts.hosts.values():
        assert host.facts is not None
        host.facts = replace(host.facts, uuid="the-same")
    machine(w, "a", placed="kvm9", disks=False)
    return w


async def test_the_same_machine_under_another_name_is_no_second_copy() -> None:
    w = twins()
    w.hosts.hosts["kvm9"].domains = [mine("a", 2)]
    w.hosts.hosts["kvm1"].domains = [mine("a", 1)]
    seen = await observe(w.context, read(w, "a"))
    assert isinstance(seen.ownership.answer, RunsOn)
    assert seen.ownership.answer.host == "kvm9"
    assert seen.ownership.destroy == ()


async def test_the_name_under_which_it_answers_counts() -> None:
    w = twins()
    w.hosts.hosts["kvm9"].disconnect()
    w.hosts.hosts["kvm1"].domains = [mine("a", 1)]
    seen = await observe(w.context, read(w, "a"))
    assert isinstance(seen.ownership.answer, RunsOn)
    assert (seen.ownership.answer.host, seen.ownership.others) == ("kvm1", ("kvm9",))


# A host that is silent -----------------------------------------------------------------------------------------------


async def test_nothing_is_claimed_of_a_guest_whose_host_is_lost() -> None:
    w = world("kvm1")
    key = machine(w, "a", placed="kvm1", disks=False)
    w.hosts.hosts["kvm1"].domains = [mine("a", 1, agent_connected=True, guest=GUEST)]
    await reconcile(w.context, key)
    assert w.condition(key, "GuestAgentConnected")[0] == "True"
    w.hosts.hosts["kvm1"].disconnect()
    w.host("kvm1", status={"phase": "NonResponsive"})
    await reconcile(w.context, key)
    assert w.status(key)["phase"] == "Unknown"
    assert w.condition(key, "GuestAgentConnected")[0] == "Unknown"
    assert "guest" not in w.status(key)


def test_a_guest_with_too_many_interfaces_does_not_hold_up_its_status() -> None:
    many = tuple(GuestInterfaceFacts(f"veth{i}", None, ("192.0.2.7/24",) * 500) for i in range(200))
    facts = GuestFacts("h" * 9999, "o" * 9999, many)
    status = status_of(
        vm().build(),
        ready("Running"),
        VMPhase.RUNNING,
        NO_NEEDS,
        domain(agent_connected=True, guest=facts),
        None,
        after(0),
    )
    assert len(status["guest"]["interfaces"]) == 64
    assert len(str(status["guest"])) < 200_000


# An end that is counted once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unresolved", [None, frozenset({"kvm2"})])
def test_a_crash_is_counted_once_also_while_another_host_stays_a_candidate(unresolved: frozenset[str] | None) -> None:
    obj = vm().power("On").placed("kvm1", "kvm1", "kvm2").failed(2).status(phase="Running").build()
    crashed = domain(uid="u", state=DomainState.SHUT_OFF, stop_reason=StopReason.CRASHED)
    seen = Observed(after(10), Ownership(MayStart(unresolved, crashed), 1), frozenset())
    plan = decide(obj, seen)
    assert isinstance(plan.step, Nothing)
    assert plan.fields["startFailure"].count == 3
    placement = plan.fields["placement"]
    assert (placement.host, placement.candidates) == (None, sorted(unresolved or ()))
