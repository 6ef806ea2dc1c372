"""What each host has left for VMs: inventory, VMs in flight and promises, brought together for placement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from crds.host import Host, HostMode, HostPhase, Management
from crds.host_pool import HostPool
from crds.network import Network
from crds.storage_domain import StorageDomain, StorageMode
from drivers.hypervisor import ACTIVE, ConnectionState, ConnectionView, DomainObservation, HostFacts
from placement import Candidate, memory_overhead
from reconcilers.context import Context, Reservation
from reconcilers.projections import DEMAND, Demand
from reconcilers.relations import domains_of_pool, hosts_of, networks_of_pool, vms_of_host

_RESERVE_AT_LEAST = 256 * 2**20
_RESERVE_SHARE = 20


@dataclass(frozen=True)
class Use:
    """What is given away on a host: virtual CPUs, and bytes of memory with QEMU's overhead."""

    cpus: int
    memory: int


def allocatable_memory(facts: HostFacts) -> int:
    """Bytes of a host's memory that VMs may use: all but 5 %, at least 256 MiB, which the host itself needs."""
    return max(0, facts.memory - max(_RESERVE_AT_LEAST, facts.memory // _RESERVE_SHARE))


def active(view: ConnectionView | None) -> list[DomainObservation]:
    """The domains that take up room on a host, foreign ones too, as last listed."""
    if view is None or view.inventory is None:
        return []
    return [domain for domain in view.inventory.domains if domain.state in ACTIVE]


def use(
    host: str,
    domains: Iterable[DomainObservation],
    vms: Iterable[Demand],
    reservations: Mapping[str, Reservation],
    ignore: str | None = None,
) -> Use:
    """What is given away on a host, each VM counted once: as active domain, else as in flight, else as promised.

    In flight: placed here, meant to run, and not seen active yet. `ignore`: uid of the VM that room is sought for.
    """
    # A VM that was made anew keeps its domain, whose metadata still names the uid that is dead.
    vms = list(vms)
    bound = {vm.uuid: vm.uid for vm in vms}
    room: dict[str, tuple[int, int]] = {}
    for domain in domains:
        stamped = domain.identity.uid if domain.identity is not None else domain.uuid
        room[bound.get(domain.uuid, stamped)] = (domain.cpus, domain.memory)
    for vm in vms:
        if vm.host == host:
            room.setdefault(vm.uid, (vm.cpus, vm.memory))
    taken = {uid: (cpus, memory + memory_overhead(memory, cpus)) for uid, (cpus, memory) in room.items()}
    for uid, promise in reservations.items():
        if promise.host == host:
            taken.setdefault(uid, (promise.cpus, promise.memory))
    taken.pop(ignore or "", None)
    return Use(sum(c for c, _ in taken.values()), sum(m for _, m in taken.values()))


def demands(ctx: Context, host: str) -> Iterator[Demand]:
    """What the VMs ask for that run, or may run, on a host."""
    found = (ctx.cache.projected(DEMAND, key) for key in vms_of_host(ctx, host))
    return (demand for demand in found if demand is not None)


def why_not(host: Host, view: ConnectionView | None) -> str:
    """Why nothing may be placed on a host now, as a verb phrase; empty when something may."""
    connected = view is not None and view.state is ConnectionState.CONNECTED and view.fresh and view.facts is not None
    if host.metadata.deleting:
        return "is being deleted"
    if host.spec.management is Management.OBSERVE:
        return "is only observed"
    if host.spec.mode is not HostMode.ACTIVE:
        return "is cordoned" if host.spec.mode is HostMode.CORDONED else "is in maintenance"
    if not connected:
        return "is not connected"
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
    name = pool.metadata.name
    storage = domains_of_pool(ctx, name)
    networks = networks_of_pool(ctx, name)
    found = []
    for host in hosts_of(ctx, [name]):
        reached = frozenset(d.metadata.name for d in storage if _is_reached(d, host.metadata.name))
        plugged = frozenset(n.metadata.name for n in networks if _is_there(n, host.metadata.name))
        found.append(_candidate(ctx, host, reached, plugged, ignore))
    return found


def _candidate(
    ctx: Context,
    host: Host,
    reached: frozenset[str],
    plugged: frozenset[str],
    ignore: str | None,
) -> Candidate:
    view = ctx.view(host.metadata.name)
    facts = view.facts if view is not None else None
    taken = use(host.metadata.name, active(view), demands(ctx, host.metadata.name), ctx.reservations, ignore)
    reason = why_not(host, view)
    return Candidate(
        name=host.metadata.name,
        labels=host.metadata.labels,
        schedulable=not reason,
        why_not=reason,
        cpus=facts.cpus if facts is not None else 0,
        memory=allocatable_memory(facts) if facts is not None else 0,
        used_cpus=taken.cpus,
        used_memory=taken.memory,
        storage_domains=reached,
        networks=plugged,
        cpu_models=frozenset(facts.cpu_models) if facts is not None else frozenset(),
        uefi=facts is not None and facts.firmware_uefi is not None,
    )


def _is_reached(domain: StorageDomain, host: str) -> bool:
    usable = domain.spec.mode is StorageMode.ACTIVE and domain.status.id is not None
    return usable and any(reach.reachable for reach in domain.status.hosts if reach.name == host)


def _is_there(network: Network, host: str) -> bool:
    return any(found.available for found in network.status.hosts if found.name == host)
