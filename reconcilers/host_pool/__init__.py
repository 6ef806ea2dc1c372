"""HostPool: settle on the CPU and machine types of its guests, and count its hosts."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

from crds.host import Host
from crds.host_pool import HostPool, PoolBaseline
from drivers.model import ConnectionState
from engine.cache import Cache
from engine.keys import Key
from engine.result import Done, RequeueAfter, Result
from reconcilers.capacity import why_not
from reconcilers.context import Context
from reconcilers.holding import hold, let_go
from reconcilers.host_pool.act import make, record
from reconcilers.host_pool.decide import ChangeCPU, MakeBaseline, Member, Observed, Release, decide
from reconcilers.host_pool.status import status
from reconcilers.relations import hosts_of, listed, titles, vms_of_pool
from reconcilers.settling import AGAIN, settling

_first_connected: WeakKeyDictionary[Cache, dict[str, float]] = WeakKeyDictionary()


async def reconcile(ctx: Context, key: Key) -> Result:
    """One look at a HostPool."""
    pool = ctx.objects.get(HostPool, key.name)
    if pool is None:
        _first_connected.get(ctx.cache, {}).pop(key.name, None)
        return Done()
    if pool.metadata.paused_by is None:
        pool = await hold(ctx, pool)
    if settling(ctx, pool, [host.metadata.name for host in hosts_of(ctx, [key.name])]):
        return RequeueAfter(AGAIN, "hosts are being connected to")
    seen = _observe(ctx, pool)
    plan = decide(pool, seen)
    match plan.step:
        case Release():
            if pool.metadata.paused_by is None:
                await let_go(ctx, pool)
            return Done()
        case ChangeCPU(baseline=changed):
            await record(ctx, pool, changed)
            return RequeueAfter(0.0, "the CPU has changed")
        case MakeBaseline() as step:
            made = await make(ctx, pool, step)
            if isinstance(made, PoolBaseline):
                await record(ctx, pool, made)
                return RequeueAfter(0.0, "the baseline is made")
            plan = replace(plan, verdict=made)
    await ctx.write_status(pool, status(pool, plan.verdict, seen, ctx.clock.now()))
    return Done() if plan.again is None else RequeueAfter(plan.again, plan.verdict.reason)


def _observe(ctx: Context, pool: HostPool) -> Observed:
    name = pool.metadata.name
    members = tuple(_member(ctx, host) for host in hosts_of(ctx, [name]) if not host.metadata.deleting)
    users: tuple[str, ...] = ()
    if pool.metadata.deleting:
        users = _users(ctx, name)
    return Observed(members, _gathered_for(ctx, name, members), users)


def _member(ctx: Context, host: Host) -> Member:
    view = ctx.view(host.metadata.name)
    return Member(
        name=host.metadata.name,
        connected=view is not None and view.state is ConnectionState.CONNECTED,
        usable=not why_not(host, ctx.host(host.metadata.name)),
        facts=view.facts if view is not None else None,
        state=str(host.status.phase or "new"),
    )


def _gathered_for(ctx: Context, name: str, members: tuple[Member, ...]) -> float:
    """Seconds since this process first saw a host of the pool connected."""
    times = _first_connected.setdefault(ctx.cache, {})
    if not any(member.connected for member in members):
        times.pop(name, None)
        return 0.0
    now = ctx.clock.monotonic()
    return now - times.setdefault(name, now)


def _users(ctx: Context, pool: str) -> tuple[str, ...]:
    hosts = [host.metadata.name for host in hosts_of(ctx, [pool])]
    vms = titles(vms_of_pool(ctx, pool))
    found = []
    if hosts:
        found.append(f"hosts {listed(hosts)}")
    if vms:
        found.append(f"VirtualMachines {listed(vms)}")
    return tuple(found)
