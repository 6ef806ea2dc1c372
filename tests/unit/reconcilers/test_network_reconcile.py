"""Network: on which hosts the bridge is, asked seldom while it is there and often while it is missing."""

from typing import Any

from crds.network import Network
from engine.keys import Key
from reconcilers.network import reconcile
from tests.unit.reconcilers.fakes import World, facts

KEY = Key("Network", "", "lan")


def world(*hosts: str, **extra: Any) -> World:
    w = World()
    w.pool()
    for name in hosts:
        w.host(name)
    w.add("Network", "lan", {"type": "bridge", "bridge": {"name": "lan"}, "pools": ["default"]}, **extra)
    return w


def asked(w: World) -> int:
    return sum(call[0] == "refresh_facts" for host in w.hosts.hosts.values() for call in host.calls)


async def test_a_bridge_on_all_hosts():
    w = world("kvm1", "kvm2")
    result = await reconcile(w.context, KEY)
    assert w.standing(KEY) == ("True", "False", "False", "Available")
    assert [h["available"] for h in w.status(KEY)["hosts"]] == [True, True]
    assert result.seconds == 300


async def test_a_missing_bridge_is_named_and_found_when_it_is_made():
    w = world("kvm1", "kvm2")
    w.hosts.hosts["kvm2"].facts = facts(bridges=())
    result = await reconcile(w.context, KEY)
    assert w.standing(KEY) == ("False", "False", "True", "BridgeMissing")
    assert "kvm2" in w.condition(KEY, "Ready")[2]
    assert w.status(KEY)["hosts"][1] == {"name": "kvm2", "available": False, "message": "there is no bridge lan"}
    w.hosts.hosts["kvm2"].facts = facts()
    w.clock.move(result.seconds)
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[0] == "True"


async def test_hosts_are_asked_anew_only_after_the_audit_time_and_nothing_is_written():
    w = world("kvm1")
    await reconcile(w.context, KEY)
    w.client.writes.clear()
    for _ in range(5):
        w.clock.move(20)
        await reconcile(w.context, KEY)
    assert asked(w) == 1
    w.clock.move(300)
    await reconcile(w.context, KEY)
    assert asked(w) == 2
    assert w.client.writes == []


async def test_a_host_that_cannot_be_asked_is_not_counted_against_the_network():
    w = world("kvm1", "kvm2")
    w.hosts.hosts["kvm2"].disconnect()
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[0] == "True"
    assert "kvm2" in w.condition(KEY, "Ready")[2]
    assert w.status(KEY)["hosts"][1]["available"] is False
    w.hosts.hosts["kvm1"].disconnect()
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[:2] == ("False", "True")


async def test_unknown_pool_and_empty_pool():
    w = world()
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[2:] == ("True", "NoHosts")
    w.cache.delete(Key("HostPool", "", "default"))
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[2:] == ("True", "PoolNotFound")


async def test_deletion_waits_for_vms():
    w = world("kvm1", deletionTimestamp="2026-11-20T12:00:00Z")
    spec = {
        "runPolicy": "Halted",
        "pool": "default",
        "memory": {"size": "1Gi"},
        "nics": [{"name": "lan", "network": "lan"}],
    }
    vm = w.add("VirtualMachine", "web", spec, namespace="default")
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[3] == "InUse"
    assert "default/web" in w.condition(KEY, "Ready")[2]
    w.cache.delete(vm)
    await reconcile(w.context, KEY)
    assert w.context.objects.get(Network, "lan") is None
