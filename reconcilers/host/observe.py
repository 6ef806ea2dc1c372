"""What is known of a host and of what hangs on it, read from the cache and the connection without asking anyone."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from crds.host import Host
from crds.host_pool import HostPool
from drivers.hypervisor import HostTarget
from drivers.model import ConnectionView, DomainObservation
from engine.cache import Cache
from engine.keys import Key
from placement import memory_overhead
from reconcilers.capacity import active, allocatable_memory
from reconcilers.context import Context
from reconcilers.figures import figure
from reconcilers.host.compatible import incompatible
from reconcilers.host.decide import Observed
from reconcilers.host.status import Figures, Reach
from reconcilers.host.target import target_of
from reconcilers.objects import key_of
from reconcilers.relations import domains_of_pool, networks_of_pool, titles, vms_of_host
from reconcilers.standing import Verdict

_trying_since: WeakKeyDictionary[Cache, dict[str, float]] = WeakKeyDictionary()


def target(ctx: Context, host: Host, pool: HostPool | None) -> HostTarget | Verdict:
    """How the host is to be reached, or what a person must mend first."""
    name = host.spec.credentials_secret
    secret = ctx.cache.get(Key("Secret", ctx.namespace, name)) if name is not None else None
    return target_of(host, pool, secret, ctx.namespace)


def observe(ctx: Context, host: Host, pool: HostPool | None, problem: Verdict | None) -> Observed:
    """Everything that `decide` goes by."""
    name = host.metadata.name
    view = ctx.view(name)
    facts = view.facts if view is not None else None
    baseline = pool.status.baseline if pool is not None else None
    now = ctx.clock.monotonic()
    return Observed(
        view=view,
        monotonic=now,
        trying_since=_trying_since.setdefault(ctx.cache, {}).setdefault(name, now),
        failed_after=float(pool.spec.fencing.failed_after_seconds if pool is not None else 30),
        problem=problem,
        baseline_known=baseline is not None,
        incompatible=incompatible(facts, baseline) if facts is not None and baseline is not None else None,
        duplicate_of=_older_twin(ctx, host, facts.uuid) if facts is not None else None,
        another_machine=ctx.is_another_machine(name),
        vms=_vms(ctx, name, view),
    )


def forget(ctx: Context, name: str) -> None:
    """The Host is gone."""
    _trying_since.get(ctx.cache, {}).pop(name, None)


def figures(ctx: Context, host: Host, view: ConnectionView | None) -> Figures | None:
    """What the host has and what is given away on it; None until it was listed once."""
    if view is None or view.facts is None or view.inventory is None:
        return None
    running = active(view)
    ours = [domain for domain in running if _is_ours(ctx, domain)]
    foreign = sum(1 for domain in view.inventory.domains if not _is_ours(ctx, domain))
    whole = allocatable_memory(view.facts)
    before = host.status
    counted_anew = (before.vm_count, before.foreign_domains) != (len(ours), foreign)
    key = key_of(host)
    shown = before.allocatable.memory if before.allocatable is not None else None
    given = before.allocated.memory if before.allocated is not None else None
    taken = sum(domain.memory + memory_overhead(domain.memory, domain.cpus) for domain in running)
    return Figures(
        allocatable_memory=figure(ctx, key, "allocatable", shown, whole, whole),
        allocated_cpus=sum(domain.cpus for domain in running),
        allocated_memory=figure(ctx, key, "allocated", given, taken, whole, now=counted_anew),
        vms=len(ours),
        foreign=foreign,
    )


def storage(ctx: Context, host: Host) -> Reach:
    """Which storage domains of its pool the host does not reach."""
    domains = domains_of_pool(ctx, host.spec.pool)
    missing = {}
    for domain in domains:
        reach = next((r for r in domain.status.hosts if r.name == host.metadata.name), None)
        if reach is None or not reach.reachable:
            missing[domain.metadata.name] = (
                (reach.message or reach.reason) if reach is not None else "not looked at yet"
            )
    return Reach(missing, len(domains))


def networks(ctx: Context, host: Host) -> Reach:
    """Which networks of its pool the host does not have."""
    found = networks_of_pool(ctx, host.spec.pool)
    missing = {}
    for network in found:
        entry = next((n for n in network.status.hosts if n.name == host.metadata.name), None)
        if entry is None or not entry.available:
            missing[network.metadata.name] = (entry.message or "missing") if entry is not None else "not looked at yet"
    return Reach(missing, len(found))


def _older_twin(ctx: Context, host: Host, uuid: str) -> str | None:
    said = {name: _said_uuid(ctx, name) for name in ctx.hosts.names()}
    before = {key.name for key in ctx.cache.keys_by_index("Host", "uuid", uuid) if said.get(key.name) is None}
    twins = [ctx.objects.get(Host, name) for name in {*before, *(name for name in said if said[name] == uuid)}]
    older = [twin for twin in twins if twin is not None and _age(twin) < _age(host)]
    return min(older, key=_age).metadata.name if older else None


def _said_uuid(ctx: Context, host: str) -> str | None:
    """What the machine says itself; None for one that has not been connected yet."""
    connection = ctx.host(host)
    return connection.facts.uuid if connection is not None and connection.facts is not None else None


def _age(host: Host) -> tuple[str, str]:
    created = host.metadata.creation_timestamp
    return (created.isoformat() if created is not None else "", host.metadata.name)


def _vms(ctx: Context, name: str, view: ConnectionView | None) -> tuple[str, ...]:
    """The VMs that have a place here, and those whose domain is seen active here."""
    placed = {*titles(vms_of_host(ctx, name))}
    identities = [domain.identity for domain in active(view) if domain.identity is not None]
    ours = [i for i in identities if i.installation == ctx.installation]
    known = [Key("VirtualMachine", i.namespace, i.name) for i in ours]
    seen = {*titles(key for key in known if ctx.cache.version(key) is not None)}
    return tuple(sorted(placed | seen))


def _is_ours(ctx: Context, domain: DomainObservation) -> bool:
    return domain.identity is not None and domain.identity.installation == ctx.installation
