"""Which hosts a VM asks: those that list it, those that may hold it, each machine once."""

from __future__ import annotations

from drivers.model import DomainState
from tests.unit.reconcilers.builders import vm
from tests.unit.reconcilers.fakes import domain, facts
from tests.unit.reconcilers.test_vm_reconcile import UUID, WEB, Fleet, active

MACHINE = "one-machine"


def one_machine() -> Fleet:
    """Two Hosts that are the same machine."""
    w = Fleet(vm(policy="Always"))
    for name in ("kvm1", "kvm2"):
        w.at(name).facts = facts(uuid=MACHINE)
    return w


async def test_a_machine_with_two_names_runs_a_vm_once():
    w = one_machine()
    await w.go()
    (host,) = active(w)
    other = "kvm2" if host == "kvm1" else "kvm1"
    w.at(other).domains = list(w.at(host).domains)
    await w.go()
    assert w.standing(WEB) == ("True", "False", "False", "Running")
    assert w.placement["host"] == host


async def test_the_fresh_list_of_a_machine_speaks_for_a_stale_one():
    w = one_machine()
    w.at("kvm1").domains = [domain(uid=UUID, state=DomainState.RUNNING)]
    w.at("kvm1").view()
    w.at("kvm1").disconnect()
    await w.go()
    assert w.at("kvm2").did() == ["define", "start"]


async def test_a_domain_that_was_seen_last_on_a_silent_host_holds_a_vm_that_was_never_placed():
    w = Fleet(vm(policy="Always"))
    w.at("kvm1").domains = [domain(uid=UUID, state=DomainState.RUNNING)]
    w.at("kvm1").view()
    w.at("kvm1").disconnect()
    await w.go()
    assert active(w) == ["kvm1"]
    assert w.at("kvm2").did() == []


async def test_a_vm_that_was_never_placed_waits_for_hosts_that_were_not_heard_yet():
    w = Fleet(vm(policy="Always"))
    w.at("kvm2").never_connected()
    await w.go()
    assert active(w) == []
    w.at("kvm2").state = w.at("kvm1").state
    await w.go()
    assert len(active(w)) == 1
