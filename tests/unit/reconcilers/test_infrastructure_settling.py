"""A process that has just started tells nobody that hosts are lost before it has tried them."""

from typing import Any

from drivers.errors import ConnectFailed
from drivers.model import ConnectionState
from engine.keys import Key
from reconcilers import host, host_pool, network, storage_domain
from tests.unit.reconcilers.fakes import BASELINE, Directory, World

RECONCILERS = {
    Key("Host", "", "kvm1"): host.reconcile,
    Key("HostPool", "", "default"): host_pool.reconcile,
    Key("StorageDomain", "", "fast"): storage_domain.reconcile,
    Key("Network", "", "lan"): network.reconcile,
}


async def settled() -> World:
    w = World()
    w.pool(status={"baseline": BASELINE})
    w.host("kvm1").directories["/p"] = Directory()
    w.add("StorageDomain", "fast", {"type": "directory", "directory": {"path": "/p"}, "pools": ["default"]})
    w.add("Network", "lan", {"type": "bridge", "bridge": {"name": "lan"}, "pools": ["default"]})
    for _ in range(2):
        await everything(w)
    return w


async def everything(w: World) -> None:
    for key, reconcile in RECONCILERS.items():
        await reconcile(w.context, key)


def restarted(before: World, **state: Any) -> World:
    """Another process on the same cluster."""
    w = World()
    for kind in ("HostPool", "Host", "StorageDomain", "Network"):
        for obj in before.cache.list(kind):
            w.client.put(obj)
    machine = w.hosts.hosts["kvm1"] = before.hosts.hosts["kvm1"]
    machine.clock = w.clock
    for name, value in state.items():
        setattr(machine, name, value)
    return w


async def test_a_restart_writes_nothing_while_hosts_are_being_connected():
    w = restarted(await settled(), state=ConnectionState.CONNECTING, last_seen=None)
    await everything(w)
    w.clock.move(2)
    await everything(w)
    w.hosts.hosts["kvm1"].state = ConnectionState.CONNECTED
    await everything(w)
    assert w.client.writes == []
    assert w.recorder.events == []


async def test_a_host_that_stays_silent_is_told_of_soon():
    w = restarted(await settled(), state=ConnectionState.CONNECTING, last_seen=None)
    await everything(w)
    w.clock.move(11)
    await everything(w)
    assert [w.condition(key, "Ready")[0] for key in RECONCILERS] == ["False", "False", "False", "False"]


async def test_a_host_that_refuses_is_told_of_at_once():
    error = ConnectFailed("mend it", reason="TLSRefused")
    w = restarted(await settled(), state=ConnectionState.CONNECTING, last_seen=None, error=error)
    await everything(w)
    assert w.standing(Key("Host", "", "kvm1"))[3] == "TLSRefused"
