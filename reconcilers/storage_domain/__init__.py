"""StorageDomain: know the storage by its marker, say who reaches it, and empty its trash."""

from __future__ import annotations

from crds.storage_domain import StorageDomain, StorageScope
from drivers.model import PoolInfo
from engine.keys import Key
from engine.result import Done, RequeueAfter, Result
from reconcilers import figures
from reconcilers.context import Context
from reconcilers.holding import hold, let_go
from reconcilers.relations import disks_of, hosts_of
from reconcilers.settling import AGAIN, settling
from reconcilers.standing import seconds_left
from reconcilers.storage_domain.act import act, announce, empty_trash
from reconcilers.storage_domain.decide import Plan, RecordId, Release, decide
from reconcilers.storage_domain.memory import forget
from reconcilers.storage_domain.observe import World, observe
from reconcilers.storage_domain.space import low, may_allocate
from reconcilers.storage_domain.status import status

__all__ = ["may_allocate", "reconcile"]

_ROUNDS = 4
"""A first use takes three: write the marker, read it everywhere and record its id, look at the result."""


async def reconcile(ctx: Context, key: Key) -> Result:
    """One look at a StorageDomain, and what follows from it."""
    domain = ctx.objects.get(StorageDomain, key.name)
    if domain is None:
        figures.forget(ctx, key)
        return Done()
    if domain.metadata.paused_by is None:
        domain = await hold(ctx, domain)
    if settling(ctx, domain, [host.metadata.name for host in hosts_of(ctx, domain.spec.pools)]):
        return RequeueAfter(AGAIN, "hosts are being connected to")
    for _ in range(_ROUNDS):
        world = await observe(ctx, domain)
        plan = decide(domain, world.observed)
        if any(isinstance(step, Release) for step in plan.steps):
            if domain.metadata.paused_by is None:
                forget(ctx, domain)
                await let_go(ctx, domain)
            return Done()
        refused = [verdict for step in plan.steps if (verdict := await act(ctx, domain, step)) is not None]
        if refused or not plan.steps:
            break
        if any(isinstance(step, RecordId) for step in plan.steps):
            newest = ctx.objects.get(StorageDomain, key.name)
            if newest is None:
                return Done()
            domain = newest
    verdict = refused[0] if refused else plan.verdict
    shown = _figures(ctx, key, domain, world, plan)
    spaces = _reached_spaces(world, plan)
    disks = len(disks_of(ctx, key.name))
    announce(ctx, domain, plan.reach)
    now = ctx.clock.now()
    short = low(domain, spaces) if spaces else None
    await ctx.write_status(domain, status(domain, plan, verdict, shown, short, disks, now))
    due = await empty_trash(ctx, domain, plan.reach)
    times = [plan.again, due, seconds_left(domain, verdict, now)]
    return RequeueAfter(min(max(0.5, time) for time in times if time is not None), verdict.reason)


def _reached_spaces(world: World, plan: Plan) -> dict[str, PoolInfo]:
    reached = {reach.name for reach in plan.reach if reach.reachable}
    return {name: space for name, space in world.spaces.items() if name in reached}


def _figures(ctx: Context, key: Key, domain: StorageDomain, world: World, plan: Plan) -> tuple[str | None, str | None]:
    """Capacity and free space to show: of one host's view of shared storage, or of all local directories together."""
    spaces = list(_reached_spaces(world, plan).values())
    if not spaces:
        return domain.status.capacity, domain.status.available
    if domain.spec.directory.scope is StorageScope.SHARED:
        spaces = spaces[:1]
    capacity, available = sum(s.capacity for s in spaces), sum(s.available for s in spaces)
    return (
        figures.figure(ctx, key, "capacity", domain.status.capacity, capacity, capacity),
        figures.figure(ctx, key, "available", domain.status.available, available, capacity),
    )
