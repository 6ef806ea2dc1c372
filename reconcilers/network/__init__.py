"""Network: see on which hosts its bridge is. Nothing is made on the hosts."""

from __future__ import annotations

from crds.network import Network
from engine.keys import Key
from engine.result import Done, RequeueAfter, Result
from reconcilers.context import Context
from reconcilers.holding import hold, let_go
from reconcilers.network.decide import decide
from reconcilers.network.observe import observe
from reconcilers.network.status import status
from reconcilers.relations import hosts_of
from reconcilers.settling import AGAIN, settling


async def reconcile(ctx: Context, key: Key) -> Result:
    """One look at a Network. A paused one is still looked at, since looking changes nothing."""
    network = ctx.objects.get(Network, key.name)
    if network is None:
        return Done()
    if network.metadata.paused_by is None:
        network = await hold(ctx, network)
    if settling(ctx, network, [host.metadata.name for host in hosts_of(ctx, network.spec.pools)]):
        return RequeueAfter(AGAIN, "hosts are being connected to")
    plan = decide(network, await observe(ctx, network))
    if plan.release:
        if network.metadata.paused_by is None:
            await let_go(ctx, network)
        return Done()
    await ctx.write_status(network, status(network, plan, ctx.clock.now()))
    return RequeueAfter(plan.again, plan.verdict.reason)
