"""What is known of a storage domain: one look at its directory on every connected host, all at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from crds.host import Host, HostMode, HostPhase, Management
from crds.host_pool import HostPool
from crds.storage_domain import StorageDomain
from drivers.model import ConnectionState, PoolInfo
from reconcilers.context import Context
from reconcilers.relations import disks_of, hosts_of, titles, volumes_of
from reconcilers.storage_domain.decide import REFUSED_SECONDS, HostFact, Observed, Pending
from reconcilers.storage_domain.marker import Look, Silent, Unusable, look
from reconcilers.storage_domain.memory import Memory, memory_of

LOOK_AGE = 5.0


@dataclass(frozen=True)
class World:
    """The observation, and the file systems that it was made on, by host."""

    observed: Observed
    spaces: dict[str, PoolInfo]


async def observe(ctx: Context, domain: StorageDomain) -> World:
    """Everything that `decide` goes by."""
    pools = {name: ctx.objects.get(HostPool, name) for name in domain.spec.pools}
    known = [pool for pool in pools.values() if pool is not None]
    rank = {name: index for index, name in enumerate(domain.spec.pools)}
    hosts = [host for host in hosts_of(ctx, domain.spec.pools) if not host.metadata.deleting]
    hosts.sort(key=lambda host: (rank[host.spec.pool], host.metadata.name))
    looks = await asyncio.gather(*(_look(ctx, domain, host) for host in hosts))
    volumes = [stored for stored in volumes_of(ctx, domain.metadata.name) if stored.provisioned]
    holding = {stored.host for stored in volumes}
    memory, now = memory_of(ctx, domain), ctx.clock.monotonic()
    facts = tuple(
        _fact(domain, host, found, holds=host.metadata.name in holding)
        for host, found in zip(hosts, looks, strict=True)
    )
    observed = Observed(
        installation=ctx.installation,
        hosts=facts,
        monotonic=now,
        gathered_for=_gathered_for(memory, facts, now),
        pending=Pending(memory.pending[0], memory.pending[1], now - memory.pending[2]) if memory.pending else None,
        refused=memory.refused if now - memory.refused_at < REFUSED_SECONDS else (),
        holds_disks=bool(volumes),
        unknown_pools=tuple(name for name, pool in pools.items() if pool is None),
        users=_users(ctx, domain.metadata.name) if domain.metadata.deleting else (),
        audit_seconds=float(min((pool.spec.monitoring.audit_seconds for pool in known), default=300)),
    )
    spaces = {host.metadata.name: f.space for host, f in zip(hosts, looks, strict=True) if f.space is not None}
    return World(observed, spaces)


async def _look(ctx: Context, domain: StorageDomain, host: Host) -> Look:
    if host.spec.management is Management.OBSERVE:
        reading = Unusable("HostObserved", "spec.management of the host is Observe: nothing is done there")
        return Look(reading, None, 0.0)
    if host.status.phase is HostPhase.NON_OPERATIONAL:
        # It may be the same machine as another Host, and speak for that one's directory.
        return Look(Unusable("HostNonOperational", "the host is NonOperational: see its own status"), None, 0.0)
    connection = ctx.host(host.metadata.name)
    if connection is None or connection.view().state is not ConnectionState.CONNECTED:
        return Look(Silent(), None, 0.0)
    return await look(ctx, domain, connection, max_age=LOOK_AGE)


def _fact(domain: StorageDomain, host: Host, found: Look, *, holds: bool) -> HostFact:
    name = host.metadata.name
    before = next((reach for reach in domain.status.hosts if reach.name == name), None)
    return HostFact(
        name=name,
        reading=found.reading,
        initialized=holds or (before is not None and before.initialized),
        excused=_excused(host),
    )


def _excused(host: Host) -> bool:
    set_aside = host.spec.mode is HostMode.MAINTENANCE or host.spec.management is Management.OBSERVE
    return set_aside or host.status.phase is HostPhase.NON_OPERATIONAL


def _gathered_for(memory: Memory, facts: tuple[HostFact, ...], now: float) -> float:
    if all(isinstance(fact.reading, Silent) for fact in facts):
        memory.first_connected = None
        return 0.0
    if memory.first_connected is None:
        memory.first_connected = now
    return now - memory.first_connected


def _users(ctx: Context, domain: str) -> tuple[str, ...]:
    disks = titles(disks_of(ctx, domain))
    vms = titles(ctx.cache.keys_by_index("VirtualMachine", "storageDomain", domain))
    return (*(f"Disk {disk}" for disk in disks), *(f"VirtualMachine {vm}" for vm in vms))
