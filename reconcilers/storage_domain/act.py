"""Carries a storage domain's plan out: markers, the recorded id, the trash, and what users are told."""

from __future__ import annotations

from crds.storage_domain import HostReach, StorageDomain, StorageMode, StorageScope
from drivers.errors import HostUnavailable, HypervisorError
from engine.clock import timestamp
from reconcilers.context import Context
from reconcilers.relations import hosts_of
from reconcilers.standing import Verdict, stalled
from reconcilers.storage_domain import marker as markers
from reconcilers.storage_domain.decide import RecordId, Release, Step, Withdraw, WriteMarker
from reconcilers.storage_domain.marker import DomainNotReachable, Marker
from reconcilers.storage_domain.memory import memory_of
from reconcilers.storage_domain.trash import sweep

SWEEP_SECONDS = 60.0
"""Seconds between two looks into the trash."""


async def act(ctx: Context, domain: StorageDomain, step: Step) -> Verdict | None:
    """Carry one step out; what a person must mend, if the storage refused it."""
    try:
        match step:
            case WriteMarker():
                await _write(ctx, domain, step)
            case RecordId(id=found):
                await _record(ctx, domain, found)
            case Withdraw():
                await _withdraw(ctx, domain, step)
            case Release():
                raise AssertionError("the caller lets the object go")
    except HostUnavailable:
        return None
    except HypervisorError as error:
        where = f"{domain.spec.directory.path} on host {step.host}" if isinstance(step, WriteMarker | Withdraw) else ""
        return stalled(error.reason, f"the marker cannot be written to {where}: {error.message}")
    return None


async def _write(ctx: Context, domain: StorageDomain, step: WriteMarker) -> None:
    host = ctx.host(step.host)
    if host is None:
        return
    local = domain.spec.directory.scope is StorageScope.HOST_LOCAL
    marker = Marker(
        id=step.id or ctx.new_id(),
        installation=ctx.installation,
        name=domain.metadata.name,
        scope=str(domain.spec.directory.scope),
        host=step.host if local else None,
        nonce=ctx.new_id(),
        created=timestamp(ctx.clock.now()),
    )
    memory = memory_of(ctx, domain)
    if step.id is None:
        # Before it is sent: when nobody knows whether it was written, it is still known to be ours.
        memory.pending = (step.host, marker, ctx.clock.monotonic())
    try:
        written = await markers.write(host, domain.spec.directory.path, marker, into_blank=step.into_blank)
    finally:
        _look_anew(ctx, domain)
    if not written and step.id is None:
        memory.pending = None


async def _record(ctx: Context, domain: StorageDomain, found: str) -> None:
    await ctx.compare_and_set(domain, {"id": found})
    memory = memory_of(ctx, domain)
    memory.pending, memory.refused = None, ()
    ctx.event(domain, "Initialized", f"the storage is marked as this domain's: {found}")


async def _withdraw(ctx: Context, domain: StorageDomain, step: Withdraw) -> None:
    memory = memory_of(ctx, domain)
    pending, memory.pending = memory.pending, None
    memory.refused, memory.refused_at = step.unseen, ctx.clock.monotonic()
    host = ctx.host(step.host)
    if pending is None or host is None:
        return
    try:
        await markers.withdraw(host, domain.spec.directory.path, pending[1])
    finally:
        _look_anew(ctx, domain)


def _look_anew(ctx: Context, domain: StorageDomain) -> None:
    for obj in hosts_of(ctx, domain.spec.pools):
        host = ctx.host(obj.metadata.name)
        if host is not None:
            markers.invalidate(domain, host)


async def empty_trash(ctx: Context, domain: StorageDomain, reach: tuple[HostReach, ...]) -> float | None:
    """Purge what is due, where the domain is reached; seconds until the next look into the trash is worth it."""
    memory, now = memory_of(ctx, domain), ctx.clock.monotonic()
    due = memory.trash_due is not None and memory.trash_due <= now
    if not due and now - memory.swept_at < SWEEP_SECONDS:
        return _left(memory.trash_due, now)
    if domain.spec.mode is StorageMode.MAINTENANCE or domain.metadata.paused_by is not None:
        return None
    local = domain.spec.directory.scope is StorageScope.HOST_LOCAL
    reached = [r.name for r in reach if r.reachable]
    waits = [await _sweep(ctx, domain, name, local=local) for name in (reached if local else reached[:1])]
    soonest = min((wait for wait in waits if wait is not None), default=None)
    memory.swept_at = now
    memory.trash_due = None if soonest is None else now + soonest
    return soonest


async def _sweep(ctx: Context, domain: StorageDomain, name: str, *, local: bool) -> float | None:
    host = ctx.host(name)
    if host is None:
        return None
    try:
        await markers.verify(ctx, domain, host)
        return await sweep(ctx, domain, host, local=local)
    except (DomainNotReachable, HypervisorError):
        return SWEEP_SECONDS


def _left(due: float | None, now: float) -> float | None:
    return None if due is None else max(0.0, due - now)


def announce(ctx: Context, domain: StorageDomain, reach: tuple[HostReach, ...]) -> None:
    """Tell when the domain is not there any more on a host that answers."""
    before = {r.name for r in domain.status.hosts if r.reachable}
    lost = [r for r in reach if r.name in before and not r.reachable and r.reason != "HostNotConnected"]
    if lost:
        messages = "; ".join(f"host {r.name}: {r.message}" for r in lost[:10])
        ctx.event(domain, "Unreachable", messages[:1024], warning=True)
