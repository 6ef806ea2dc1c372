"""Which bridges the hosts have, asked anew when what is known is too old."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from crds.host import Host
from crds.host_pool import HostPool
from crds.network import Network
from drivers.errors import HypervisorError
from drivers.hypervisor import Hypervisor
from drivers.model import ConnectionState
from reconcilers.context import Context
from reconcilers.network.decide import HostFact, Observed
from reconcilers.relations import hosts_of, titles, vms_of_network

MISSING_AGE = 5.0
"""Seconds for which an answer counts that lacks the bridge."""

_asked: WeakKeyDictionary[Hypervisor, float] = WeakKeyDictionary()
_locks: WeakKeyDictionary[Hypervisor, asyncio.Lock] = WeakKeyDictionary()


async def observe(ctx: Context, network: Network) -> Observed:
    """Everything that `decide` goes by."""
    pools = {name: ctx.objects.get(HostPool, name) for name in network.spec.pools}
    known = [pool for pool in pools.values() if pool is not None]
    audit = float(min((pool.spec.monitoring.audit_seconds for pool in known), default=300))
    hosts = [host for host in hosts_of(ctx, network.spec.pools) if not host.metadata.deleting]
    facts = await asyncio.gather(*(_fact(ctx, host, network.spec.bridge.name, audit) for host in hosts))
    users: tuple[str, ...] = ()
    if network.metadata.deleting:
        users = tuple(titles(vms_of_network(ctx, network.metadata.name)))
    return Observed(tuple(facts), tuple(name for name, pool in pools.items() if pool is None), audit, users)


async def _fact(ctx: Context, host: Host, bridge: str, audit: float) -> HostFact:
    name = host.metadata.name
    connection = ctx.host(name)
    if connection is None or connection.view().state is not ConnectionState.CONNECTED:
        return HostFact(name, None)
    # Several networks look at one host at once: it is asked once for all of them.
    async with _locks.setdefault(connection, asyncio.Lock()):
        facts = connection.view().facts
        age = ctx.clock.monotonic() - _asked.get(connection, float("-inf"))
        if facts is None or age > (audit * 0.9 if bridge in facts.bridges else MISSING_AGE):
            try:
                facts = await connection.refresh_facts()
            except HypervisorError:
                return HostFact(name, None)
            _asked[connection] = ctx.clock.monotonic()
    return HostFact(name, frozenset(facts.bridges))
