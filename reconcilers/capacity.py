"""What each host has left for VMs: inventory, VMs in flight and promises, brought together for placement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import NamedTuple
from weakref import WeakKeyDictionary

from crds.host import Host, HostMode, HostPhase, Management
from crds.host_pool import HostPool
from crds.network import Network
from crds.storage_domain import StorageDomain, StorageMode
from drivers.hypervisor import Hypervisor
from drivers.model import ACTIVE, ConnectionView, DomainObservation, HostFacts, Inventory
from engine.cache import Cache
from placement import Candidate, memory_overhead
from reconcilers.context import Context, Reservation
from reconcilers.projections import DEMAND, Demand
from reconcilers.relations import domains_of_pool, hosts_of, networks_of_pool, vms_of_host

_RESERVE_AT_LEAST = 256 * 2**20
_RESERVE_SHARE = 20


class Use(NamedTuple):
    """What is given away on a host: virtual CPUs, and bytes of memory with QEMU's overhead."""

    cpus: int
    memory: int


@dataclass(frozen=True)
class Given:
    """What is given away on a host to VMs that are there or in flight, foreign domains too; promises apart."""

    inventory: Inventory | None
    revision: int
    """Of its VMs: with the inventory, what this was computed from."""
    rooms: Mapping[str, Use]
    """By uid."""
    total: Use


class Reach(NamedTuple):
    """What each host of a pool reaches, by host: storage domains, and networks."""

    of: tuple[object, ...]
    """The objects that say so."""
    domains: Mapping[str, frozenset[str]]
    networks: Mapping[str, frozenset[str]]


class Offer(NamedTuple):
    """A host as placement was told of it, and what that was computed from."""

    of: tuple[object, ...]
    candidate: Candidate


_given: WeakKeyDictionary[Cache, dict[str, Given]] = WeakKeyDictionary()
_reach: WeakKeyDictionary[Cache, dict[str, Reach]] = WeakKeyDictionary()
_offers: WeakKeyDictionary[Cache, dict[str, Offer]] = WeakKeyDictionary()


def allocatable_memory(facts: HostFacts) -> int:
    """Bytes of a host's memory that VMs may use: all but 5 %, at least 256 MiB, which the host itself needs."""
    return max(0, facts.memory - max(_RESERVE_AT_LEAST, facts.memory // _RESERVE_SHARE))


def active(view: ConnectionView | None) -> list[DomainObservation]:
    """The domains that take up room on a host, foreign ones too, as last listed."""
    return _active(view.inventory if view is not None else None)


def _active(inventory: Inventory | None) -> list[DomainObservation]:
    return [domain for domain in inventory.domains if domain.state in ACTIVE] if inventory is not None else []


def given(ctx: Context, host: str, inventory: Inventory | None) -> Given:
    """What is given away on a host, each VM counted once: as active domain, else as in flight.

    In flight: placed here, meant to run, and not seen active yet. Counted anew only when something has changed there.
    """
    revision, every = ctx.cache.revision("VirtualMachine", "host", host), _given.setdefault(ctx.cache, {})
    known = every.get(host)
    if known is None or known.inventory is not inventory or known.revision != revision:
        rooms = _rooms(host, inventory, list(demands(ctx, host)))
        total = Use(sum(room.cpus for room in rooms.values()), sum(room.memory for room in rooms.values()))
        known = every[host] = Given(inventory, revision, rooms, total)
    return known


def _rooms(host: str, inventory: Inventory | None, vms: Sequence[Demand]) -> dict[str, Use]:
    # A VM that was made anew keeps its domain, whose metadata still names the uid that is dead.
    bound = {vm.uuid: vm.uid for vm in vms}
    found: dict[str, Use] = {}
    for domain in _active(inventory):
        stamped = domain.identity.uid if domain.identity is not None else domain.uuid
        found[bound.get(domain.uuid, stamped)] = _with_overhead(domain.cpus, domain.memory)
    for vm in vms:
        if vm.host == host:
            found.setdefault(vm.uid, _with_overhead(vm.cpus, vm.memory))
    return found


def _with_overhead(cpus: int, memory: int) -> Use:
    return Use(cpus, memory + memory_overhead(memory, cpus))


def _used(known: Given, promises: Mapping[str, Reservation], ignore: str | None) -> Use:
    """With what was promised, and without what the VM that room is sought for has itself."""
    own = known.rooms.get(ignore, Use(0, 0)) if ignore is not None else Use(0, 0)
    more = [promise for uid, promise in promises.items() if uid not in known.rooms and uid != ignore]
    return Use(
        known.total.cpus - own.cpus + sum(promise.cpus for promise in more),
        known.total.memory - own.memory + sum(promise.memory for promise in more),
    )


def demands(ctx: Context, host: str) -> Iterator[Demand]:
    """What the VMs ask for that run, or may run, on a host."""
    found = (ctx.cache.projected(DEMAND, key) for key in vms_of_host(ctx, host))
    return (demand for demand in found if demand is not None)


def why_not(host: Host, connection: Hypervisor | None) -> str:
    """Why nothing may be placed on a host now, as a verb phrase; empty when something may."""
    if host.metadata.deleting:
        return "is being deleted"
    if host.spec.management is Management.OBSERVE:
        return "is only observed"
    if host.spec.mode is not HostMode.ACTIVE:
        return "is cordoned" if host.spec.mode is HostMode.CORDONED else "is in maintenance"
    if connection is None or not connection.fresh or connection.facts is None:
        return "is not connected"
    if host.status.uuid not in (None, connection.facts.uuid):
        return "is another machine than before"
    if host.status.phase is not HostPhase.UP:
        return f"is {host.status.phase}" if host.status.phase else "is not ready yet"
    said = host.status.condition("Schedulable")
    if said is None or said.status != "True":
        return f"is not schedulable ({said.reason})" if said is not None else "is not ready yet"
    return ""


def candidates(ctx: Context, pool: HostPool, *, ignore: str | None = None) -> list[Candidate]:
    """The hosts of a pool as placement wants them. `ignore`: uid of the VM that is to be placed.

    Nothing is awaited: what is computed here holds until the caller awaits, so a promise written to
    `ctx.reservations` right after the choice is seen by the next one.
    """
    reach = _reached(ctx, pool.metadata.name)
    promises: dict[str, dict[str, Reservation]] = {}
    for uid, promise in ctx.reservations.items():
        promises.setdefault(promise.host, {})[uid] = promise
    return [
        _candidate(ctx, host, reach, promises.get(host.metadata.name, {}), ignore)
        for host in hosts_of(ctx, [pool.metadata.name])
    ]


def _reached(ctx: Context, pool: str) -> Reach:
    """What the hosts of a pool reach; computed anew when a storage domain or a network of it has changed."""
    every = _reach.setdefault(ctx.cache, {})
    domains, networks = domains_of_pool(ctx, pool), networks_of_pool(ctx, pool)
    known = every.get(pool)
    if known is None or not _same(known.of, (*domains, *networks)):
        storage = {domain.metadata.name: _reaching(domain) for domain in domains}
        plugged = {network.metadata.name: _plugged(network) for network in networks}
        known = every[pool] = Reach((*domains, *networks), _by_host(storage), _by_host(plugged))
    return known


def _by_host(hosts: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    names = frozenset[str]().union(*hosts.values())
    return {host: frozenset(name for name, having in hosts.items() if host in having) for host in names}


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether they hold the very same objects: whatever has changed is another object."""
    return len(one) == len(other) and all(map(is_, one, other))


def _candidate(
    ctx: Context, host: Host, reach: Reach, promises: Mapping[str, Reservation], ignore: str | None
) -> Candidate:
    name, connection = host.metadata.name, ctx.host(host.metadata.name)
    facts = connection.facts if connection is not None else None
    known = given(ctx, name, connection.inventory() if connection is not None else None)
    reason = why_not(host, connection)
    if promises or (ignore is not None and ignore in known.rooms):
        return _offer(host, facts, reach, _used(known, promises, ignore), reason)
    offers, of = _offers.setdefault(ctx.cache, {}), (host, facts, known, reach)
    told = offers.get(name)
    if told is None or not _same(told.of, of) or told.candidate.why_not != reason:
        told = offers[name] = Offer(of, _offer(host, facts, reach, known.total, reason))
    return told.candidate


def _offer(host: Host, facts: HostFacts | None, reach: Reach, taken: Use, reason: str) -> Candidate:
    return Candidate(
        name=host.metadata.name,
        labels=host.metadata.labels,
        schedulable=not reason,
        why_not=reason,
        cpus=facts.cpus if facts is not None else 0,
        memory=allocatable_memory(facts) if facts is not None else 0,
        used_cpus=taken.cpus,
        used_memory=taken.memory,
        storage_domains=reach.domains.get(host.metadata.name, frozenset()),
        networks=reach.networks.get(host.metadata.name, frozenset()),
        cpu_models=facts.cpu_models if facts is not None else (),
        uefi=facts is not None and facts.firmware_uefi is not None,
    )


def _reaching(domain: StorageDomain) -> frozenset[str]:
    usable = domain.spec.mode is StorageMode.ACTIVE and domain.status.id is not None
    return frozenset(reach.name for reach in domain.status.hosts if reach.reachable) if usable else frozenset()


def _plugged(network: Network) -> frozenset[str]:
    return frozenset(found.name for found in network.status.hosts if found.available)
