"""Host: have a connection to it, and say how it stands."""

from __future__ import annotations

from crds.host import Host
from crds.host_pool import HostPool
from drivers.hypervisor import HostTarget
from engine.keys import Key
from engine.result import Done, RequeueAfter, Result
from reconcilers import figures
from reconcilers.context import Context
from reconcilers.holding import hold, let_go
from reconcilers.host import act, observe
from reconcilers.host.decide import decide
from reconcilers.host.status import status
from reconcilers.settling import AGAIN, settling


async def reconcile(ctx: Context, key: Key) -> Result:
    """One look at a Host. A paused one is still watched, since watching changes nothing on it."""
    host = ctx.objects.get(Host, key.name)
    if host is None:
        await _forget(ctx, key)
        return Done()
    if host.metadata.paused_by is None:
        host = await hold(ctx, host)
    pool = ctx.objects.get(HostPool, host.spec.pool)
    target = observe.target(ctx, host, pool)
    problem = None
    if isinstance(target, HostTarget):
        ctx.hosts.ensure(target)
    else:
        # A connection that there is already stays: it is better than none, and VMs may hang on it.
        problem = target
    seen = observe.observe(ctx, host, pool, problem)
    plan = decide(host, seen)
    if plan.remove:
        if host.metadata.paused_by is None:
            await _forget(ctx, key)
            await let_go(ctx, host)
        return Done()
    if problem is None and not plan.keeps_uuid and settling(ctx, host, [key.name]):
        return RequeueAfter(AGAIN, "the host is being connected to")
    act.announce(ctx, host, plan, seen.view)
    await ctx.write_status(
        host,
        status(
            host,
            plan,
            seen.view,
            observe.figures(ctx, host, seen.view),
            observe.storage(ctx, host),
            observe.networks(ctx, host),
            ctx.clock.now(),
        ),
    )
    return RequeueAfter(plan.again, plan.verdict.reason)


async def _forget(ctx: Context, key: Key) -> None:
    await ctx.hosts.remove(key.name)
    figures.forget(ctx, key)
    observe.forget(ctx, key.name)
