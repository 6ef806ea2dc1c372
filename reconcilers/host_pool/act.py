"""Carries a pool's plan out: makes the baseline and writes it down."""

from __future__ import annotations

from crds.host_pool import CPUBaseline, HostPool, PoolBaseline
from drivers.errors import HostUnavailable, HypervisorError
from drivers.model import HostFacts
from reconcilers.context import Context
from reconcilers.host_pool.decide import MakeBaseline, baseline
from reconcilers.standing import Verdict, progressing, stalled


async def make(ctx: Context, pool: HostPool, step: MakeBaseline) -> PoolBaseline | Verdict:
    """The baseline of these hosts, or why there is none yet."""
    views = [ctx.view(name) for name in step.hosts]
    facts = tuple(view.facts for view in views if view is not None and view.facts is not None)
    host = ctx.host(step.hosts[0])
    if host is None or len(facts) < len(step.hosts):
        return progressing("WaitingForHosts", "a host was lost meanwhile", 60)
    try:
        cpu = await _cpu(ctx, pool, step, facts)
    except HostUnavailable as error:
        return progressing("WaitingForHosts", f"host {host.name} did not answer: {error.message}", 60)
    except HypervisorError as error:
        message = f"the hosts have no CPU in common that libvirt can name ({error.message}): set spec.cpu.model"
        return stalled("BaselineFailed", message)
    return baseline(facts, cpu)


async def record(ctx: Context, pool: HostPool, made: PoolBaseline) -> None:
    """Write the baseline down, and tell of it."""
    await ctx.compare_and_set(pool, {"baseline": made})
    machines = ", ".join(machine.type for machine in made.machines)
    ctx.event(pool, "BaselineSet", f"guests get CPU {made.cpu.model} and machine type {machines}")


async def _cpu(ctx: Context, pool: HostPool, step: MakeBaseline, facts: tuple[HostFacts, ...]) -> CPUBaseline:
    if pool.spec.cpu is not None:
        return CPUBaseline(model=pool.spec.cpu.model)
    host = ctx.host(step.hosts[0])
    assert host is not None, "the caller has seen it connected"
    found = await host.baseline_cpu([f.cpu_xml for f in facts])
    return CPUBaseline(model=found.model, features=list(found.features)[:256])
