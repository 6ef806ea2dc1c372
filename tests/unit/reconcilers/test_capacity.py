"""Capacity: everything that takes room is counted once, and what may not be used is not offered."""

import random
from functools import partial
from typing import Any

import pytest

from crds.base import Consumers, LabelSelector
from crds.host_pool import HostPool
from crds.storage_domain import StorageDomain
from drivers.model import ConnectionView, DomainState, Inventory, PoolInfo
from placement import memory_overhead
from reconcilers import capacity
from reconcilers.capacity import allocatable_memory, candidates
from reconcilers.consumers import allowed
from reconcilers.context import Reservation
from reconcilers.figures import settle
from reconcilers.storage_domain import may_allocate
from tests.unit.reconcilers.fakes import GIB, World, domain, facts

SINCE = "2026-11-20T12:00:00Z"
SCHEDULABLE = {"type": "Schedulable", "status": "True", "reason": "Schedulable", "lastTransitionTime": SINCE}
ONE = memory_overhead(GIB, 2) + GIB


def world(**host: Any) -> World:
    w = World()
    w.pool()
    w.host("kvm1", status={"phase": "Up", "conditions": [SCHEDULABLE]}, **host)
    return w


def the_pool(w: World) -> HostPool:
    pool = w.context.objects.get(HostPool, "default")
    assert pool is not None
    return pool


def candidate(w: World, **kwargs: Any):
    return candidates(w.context, the_pool(w), **kwargs)[0]


def vm(w: World, uid: str = "vm-1", *, host: str | None = "kvm1", power: str = "On", uuid: str | None = None) -> None:
    status = {
        "uuid": uuid or uid,
        "placement": {"host": host, "epoch": 1, "since": SINCE, "candidates": ["kvm1"]},
        "power": {"state": power, "reason": "RunPolicy", "runPolicy": "Always", "since": SINCE},
    }
    if host is None:
        del status["placement"]["host"]
    spec = {"runPolicy": "Always", "pool": "default", "cpu": {"cores": 2}, "memory": {"size": "1Gi"}}
    w.add("VirtualMachine", "web", spec, namespace="default", uid=uid, status=status)


def used(w: World, **kwargs: Any) -> tuple[int, int]:
    found = candidate(w, **kwargs)
    return found.used_cpus, found.used_memory


def test_an_empty_host():
    w = world(labels={"rack": "r1"})
    found = candidate(w)
    assert used(w) == (0, 0)
    assert (found.cpus, found.memory, found.uefi, found.labels) == (
        8,
        allocatable_memory(facts()),
        True,
        {"rack": "r1"},
    )
    assert found.schedulable


def test_foreign_domains_count_and_those_that_are_off_do_not():
    w = world()
    theirs = domain("theirs", uid="x", ours=False)
    w.hosts.hosts["kvm1"].domains = [theirs, domain("off", uid="y", ours=False, state=DomainState.SHUT_OFF)]
    assert used(w) == (2, ONE)


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("in_flight", [True, False])
@pytest.mark.parametrize("promised", [True, False])
def test_a_vm_is_counted_once_however_it_is_known(active, in_flight, promised):
    w = world()
    if active:
        w.hosts.hosts["kvm1"].domains = [domain()]
    if in_flight:
        vm(w)
    if promised:
        w.context.reservations["vm-1"] = Reservation("kvm1", 2, ONE)
    expected = (2, ONE) if active or in_flight or promised else (0, 0)
    assert used(w) == expected
    assert used(w, ignore="vm-1") == (0, 0)


def test_a_vm_made_anew_is_its_domain():
    w = world()
    w.hosts.hosts["kvm1"].domains = [domain(uid="vm-1")]
    vm(w, uid="vm-new", uuid="vm-1")
    assert used(w) == (2, ONE)
    assert used(w, ignore="vm-new") == (0, 0)


@pytest.mark.parametrize(("host", "power"), [(None, "On"), ("kvm2", "On"), ("kvm1", "Off")])
def test_vms_that_are_elsewhere_or_off_take_nothing(host, power):
    w = world()
    vm(w, host=host, power=power)
    assert used(w) == (0, 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"spec": {"mode": "Cordoned"}}, "is cordoned"),
        ({"spec": {"mode": "Maintenance"}}, "is in maintenance"),
        ({"spec": {"management": "Observe"}}, "is only observed"),
        ({"deletionTimestamp": SINCE}, "is being deleted"),
    ],
)
def test_hosts_that_take_nothing(change, why):
    assert candidate(world(**change)).why_not == why


def test_a_host_that_is_not_fresh_or_not_up_takes_nothing():
    w = world()
    w.hosts.hosts["kvm1"].up_to_date = False
    assert candidate(w).why_not == "is not connected"
    w = world()
    w.host("kvm1", status={"phase": "NonOperational", "conditions": [SCHEDULABLE]})
    assert candidate(w).why_not == "is NonOperational"
    w.host("kvm1", status={"phase": "Up", "conditions": [{**SCHEDULABLE, "status": "False", "reason": "AuthFailed"}]})
    assert candidate(w).why_not == "is not schedulable (AuthFailed)"


def test_storage_and_networks_count_where_they_were_seen():
    w = world()
    storage = {"type": "directory", "directory": {"path": "/p"}, "pools": ["default"]}
    hosts = [{"name": "kvm1", "reachable": True, "reason": "Reachable"}]
    w.add("StorageDomain", "fast", storage, status={"id": "i", "hosts": hosts})
    w.add("StorageDomain", "new", storage, status={"hosts": hosts})
    w.add("StorageDomain", "off", {**storage, "mode": "Maintenance"}, status={"id": "i", "hosts": hosts})
    w.add("StorageDomain", "far", storage, status={"id": "i", "hosts": [{**hosts[0], "reachable": False}]})
    network = {"type": "bridge", "bridge": {"name": "br0"}, "pools": ["default"]}
    w.add("Network", "lan", network, status={"hosts": [{"name": "kvm1", "available": True}]})
    w.add("Network", "dmz", network, status={"hosts": [{"name": "kvm1", "available": False}]})
    assert candidate(w).storage_domains == {"fast"}
    assert candidate(w).networks == {"lan"}


@pytest.mark.parametrize(
    ("consumers", "labels", "expected"),
    [
        (None, None, True),
        (Consumers(), None, True),
        (Consumers(namespace_selector=LabelSelector(match_labels={"a": "b"})), {"a": "b"}, True),
        (Consumers(namespace_selector=LabelSelector(match_labels={"a": "b"})), {"a": "c"}, False),
        (Consumers(namespace_selector=LabelSelector(match_labels={"a": "b"})), None, False),
    ],
)
def test_which_namespaces_may_use_it(consumers, labels, expected):
    assert allowed(consumers, labels) is expected


def test_figures_change_seldom_and_only_by_more_than_a_hundredth():
    assert settle(None, 60 * GIB, 100 * GIB, 0) == "60Gi"
    assert settle("60Gi", 59 * GIB, 100 * GIB, 9999) == "60Gi"
    assert settle("60Gi", 58 * GIB, 100 * GIB, 299) == "60Gi"
    assert settle("60Gi", 58 * GIB, 100 * GIB, 300) == "58Gi"


def test_a_full_domain_takes_no_more():
    def a_domain(available: str | None) -> StorageDomain:
        spec = {"type": "directory", "directory": {"path": "/p"}, "pools": ["d"], "thresholds": {"blockFree": "5Gi"}}
        status = {"available": available} if available else {}
        return StorageDomain.parse(
            {"kind": "StorageDomain", "metadata": {"name": "fast"}, "spec": spec, "status": status}
        )

    assert may_allocate(a_domain("10Gi"), 5 * GIB) is None
    assert may_allocate(a_domain(None), 5 * GIB) is None
    assert "6Gi are needed" in (may_allocate(a_domain("10Gi"), 6 * GIB) or "")
    assert "has 4Gi free;" in (may_allocate(a_domain("10Gi"), 0, PoolInfo("/p", 100 * GIB, 4 * GIB)) or "")


@pytest.mark.parametrize("seed", range(10))
def test_what_is_remembered_of_hosts_is_what_a_fresh_look_says(seed):
    """Changes of everything that a candidate is made of, in any order; the fake hosts' inventories stay as they are."""
    rng, w = random.Random(seed), world()
    w.host("kvm2", status={"phase": "Up", "conditions": [SCHEDULABLE]})
    inventories = {name: Inventory((), 1, 0.0) for name in w.hosts.hosts}
    for name, host in w.hosts.hosts.items():
        host.view = partial(_view_of, host.view, inventories, name)  # type: ignore[method-assign]
    for step in range(60):
        name = rng.choice(["kvm1", "kvm2"])
        match rng.randint(0, 6):
            case 0:
                w.host(
                    name, mode=rng.choice(["Active", "Cordoned"]), status={"phase": "Up", "conditions": [SCHEDULABLE]}
                )
            case 1:
                found = [domain(f"default.{n}", uid=f"uid-{n}") for n in range(rng.randint(0, 3))]
                inventories[name] = Inventory(tuple(found), step, 0.0)
            case 2:
                w.hosts.hosts[name].facts = facts(cpus=rng.randint(1, 64))
            case 3:
                _storage(w, {name: rng.random() < 0.5 for name in w.hosts.hosts})
            case 4:
                vm(w, host=name, power=rng.choice(["On", "Off"]))
            case 5:
                w.context.reservations["vm-9"] = Reservation(name, 1, GIB)
            case 6:
                w.context.reservations.clear()
        ignore = rng.choice([None, "vm-1", "uid-1"])
        remembered = candidates(w.context, the_pool(w), ignore=ignore)
        for known in (capacity._given, capacity._reach, capacity._offers):
            known.clear()
        assert remembered == candidates(w.context, the_pool(w), ignore=ignore)


def _view_of(view: Any, inventories: dict[str, Inventory], name: str) -> ConnectionView:
    seen: ConnectionView = view()
    return seen._replace(inventory=inventories[name])


def _storage(w: World, reachable: dict[str, bool]) -> None:
    spec = {"type": "directory", "directory": {"path": "/p"}, "pools": ["default"]}
    hosts = [{"name": name, "reachable": yes} for name, yes in reachable.items()]
    w.add("StorageDomain", "fast", spec, status={"id": "x", "hosts": hosts})
