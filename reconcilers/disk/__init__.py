"""Disk: a volume that is made once, never twice, and never lost.

`reconcile` reads top to bottom: fetch, guard clauses, observe the storage, decide, act, status.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from crds.base import FINALIZER
from crds.disk import Disk, DiskPhase, DiskVolume
from crds.quantity import to_bytes
from crds.storage_domain import StorageDomain, StorageMode, StorageScope
from drivers.errors import HostUnavailable, HypervisorError, StorageFull
from drivers.hypervisor import Hypervisor
from drivers.model import Volume
from engine.keys import Key
from engine.result import Done, Failed, FailureKind, RequeueAfter, Result
from reconcilers.consumers import allowed
from reconcilers.context import Context
from reconcilers.disk import begun, growing, place, provision, record, removal
from reconcilers.disk.decide import CREATE_BOUND, Observed, Plan, Step, decide
from reconcilers.disk.image import BadImage
from reconcilers.disk.status import status_of
from reconcilers.holding import hold
from reconcilers.objects import key_of
from reconcilers.reach import working_host
from reconcilers.relations import leaving_vms, vms_of_disk
from reconcilers.settling import AGAIN as SETTLING_AGAIN
from reconcilers.settling import settling
from reconcilers.standing import Verdict, progressing, ready, seconds_left, stalled
from reconcilers.storage_domain import trash
from reconcilers.storage_domain.marker import DomainNotReachable

STEPS_IN_ONE_PASS = 4
GONE_AGAIN = 15.0


@dataclass
class Standing:
    """How the disk stands at the end of a step."""

    verdict: Verdict
    phase: DiskPhase | None
    volume: Volume | None = None
    progress: int | None = None
    again: float | None = None
    more: bool = False
    """Whether to look again at once."""
    quiet: bool = False
    """Nothing new is known: the status stays as it is."""


async def reconcile(ctx: Context, key: Key) -> Result:
    """Bring one disk closer to what is declared."""
    result: Result = Done()
    for _ in range(STEPS_IN_ONE_PASS):
        disk = ctx.objects.get(Disk, key.name, key.namespace)
        if disk is None or (disk.metadata.deleting and FINALIZER not in disk.metadata.finalizers):
            return Done() if await begun.gone(ctx, key) else RequeueAfter(GONE_AGAIN, "its import ends")
        disk = await hold(ctx, disk)
        standing = await _step(ctx, disk)
        if standing is None:
            return Done()
        if not standing.more:
            return await _settle(ctx, key, standing)
        result = RequeueAfter(0.0, standing.verdict.reason)
    return result


async def _step(ctx: Context, disk: Disk) -> Standing | None:
    """One step, with every way in which a host can fail turned into a verdict. None: the object is gone."""
    try:
        if disk.metadata.deleting:
            return await _remove(ctx, disk)
        return await _keep(ctx, disk)
    except DomainNotReachable as error:
        return Standing(stalled(error.reason, error.message), disk.status.phase or DiskPhase.PENDING, again=15.0)
    except HostUnavailable as error:
        message = f"the host does not answer: {error.message}"
        return Standing(progressing("HostUnavailable", message, CREATE_BOUND), disk.status.phase, again=5.0)
    except (StorageFull, BadImage) as error:
        reason = "StorageFull" if isinstance(error, StorageFull) else error.reason
        return Standing(stalled(reason, error.message), DiskPhase.FAILED, again=30.0)
    except HypervisorError as error:
        return Standing(stalled(error.reason, error.message), disk.status.phase or DiskPhase.FAILED, again=15.0)


async def _settle(ctx: Context, key: Key, standing: Standing) -> Result:
    """Write the status, and say when to look again."""
    disk = ctx.objects.get(Disk, key.name, key.namespace)
    if disk is None:
        return Done()
    if standing.quiet:
        return RequeueAfter(standing.again or 1.0, standing.verdict.reason)
    leaving = leaving_vms(ctx, disk)
    used_by = sorted(vm.metadata.name for vm in [*vms_of_disk(ctx, disk), *leaving])
    now = ctx.clock.now()
    status = status_of(disk, standing.verdict, standing.phase, standing.volume, used_by, standing.progress, now)
    await ctx.write_status(disk, status)
    newest = ctx.objects.get(Disk, key.name, key.namespace)
    left = seconds_left(newest, standing.verdict, now) if newest is not None else None
    times = [t for t in (standing.again, left + 1.0 if left else None, 60.0 if leaving else None) if t is not None]
    if standing.verdict.reason == "HostUnavailable":
        return Failed(FailureKind.WAIT_FOR_HOST, standing.verdict.message, min(times, default=None))
    return RequeueAfter(max(0.05, min(times)), standing.verdict.reason) if times else Done()


async def _keep(ctx: Context, disk: Disk) -> Standing:
    if disk.metadata.paused_by is not None:
        return _as_before(disk)
    domain = ctx.objects.get(StorageDomain, disk.spec.storage_domain)
    if domain is None:
        message = f"there is no StorageDomain {disk.spec.storage_domain}: create it"
        return Standing(stalled("StorageDomainNotFound", message), disk.status.phase or DiskPhase.PENDING)
    provisioned = disk.status.volume is not None and disk.status.volume.provisioned_at is not None
    problem = None if provisioned else _guard(ctx, disk, domain)
    if problem is not None:
        return Standing(problem, DiskPhase.PENDING, again=30.0)
    host = await _host(ctx, disk, domain)
    if isinstance(host, Verdict):
        if provisioned and settling(ctx, disk, [reach.name for reach in domain.status.hosts]):
            return Standing(host, disk.status.phase, again=SETTLING_AGAIN, quiet=True)
        return Standing(host, disk.status.phase or DiskPhase.PENDING, again=15.0)
    pool = domain.spec.directory.path
    if disk.status.volume is None:
        claimed = await place.claim(ctx, disk, domain, host)
        await ctx.compare_and_set(disk, {"volume": claimed})
        begun.chosen(ctx, disk, host, pool, claimed.name)
        return Standing(progressing("Creating", "", CREATE_BOUND), DiskPhase.CREATING, more=True)
    await begun.give_up(ctx, disk)
    seen = await _observe(ctx, disk, disk.status.volume, host, pool)
    if provisioned and seen.trashed:
        # Written late, by a controller that stood still while the volume was taken back: it must not outlive this Disk.
        await trash.unmark(host, pool, disk.status.volume.name)
    return await _act(ctx, disk, domain, host, seen, decide(disk, seen))


def _as_before(disk: Disk) -> Standing:
    """Paused: nothing is done, and what was known stays."""
    before = disk.status.condition("Ready")
    if before is None:
        return Standing(stalled("Paused", f"hostler.dev/paused is set by {disk.metadata.paused_by}"), disk.status.phase)
    as_it_was = ready if before.status == "True" else stalled
    return Standing(as_it_was(before.reason, before.message), disk.status.phase)


def _guard(ctx: Context, disk: Disk, domain: StorageDomain) -> Verdict | None:
    """What keeps a new disk from being made, before any host is asked."""
    if not allowed(domain.spec.consumers, ctx.objects.namespace_labels(disk.metadata.namespace)):
        message = (
            f"namespace {disk.metadata.namespace} may not use StorageDomain {domain.metadata.name}: "
            "its spec.consumers.namespaceSelector does not select this namespace"
        )
        return stalled("NotAllowed", message)
    if domain.spec.mode is StorageMode.MAINTENANCE:
        return stalled("StorageMaintenance", f"StorageDomain {domain.metadata.name} is in maintenance")
    return place.file_problem(disk, domain)


async def _host(ctx: Context, disk: Disk, domain: StorageDomain) -> Hypervisor | Verdict:
    """The host to work on: the one where the disk lies or will lie, or any that reaches a shared domain now."""
    name = disk.status.volume.host if disk.status.volume is not None else None
    if name is None and domain.spec.directory.scope is StorageScope.HOST_LOCAL:
        chosen = await place.home(ctx, disk, domain) or place.local_host(ctx, disk, domain)
        if isinstance(chosen, Verdict):
            return chosen
        name = chosen
    # What is made under a path that has just been unmounted would be found whole, and be gone with the next mount.
    max_age = 5.0 if disk.status.volume is not None and disk.status.volume.provisioned_at is not None else 0.0
    # Work that was begun on a host goes on there while that host can be asked.
    before = begun.at_work(ctx, disk) if name is None else None
    host = await working_host(ctx, domain, before, max_age=max_age) if before is not None else None
    host = host or await working_host(ctx, domain, name, work=disk.metadata.uid, max_age=max_age)
    if host is None:
        where = f"host {name}" if name is not None else "no host"
        message = f"{where} does not reach StorageDomain {domain.metadata.name} now: look at its status"
        if name is None:
            message = f"no host reaches StorageDomain {domain.metadata.name} now: look at its status"
        return progressing("StorageNotReachable", message, CREATE_BOUND)
    return host


async def _observe(ctx: Context, disk: Disk, volume: DiskVolume, host: Hypervisor, pool: str) -> Observed:
    settled = volume.provisioned_at is not None
    files = await host.volume_names(pool, max_age=5.0 if settled else 0.0)
    found = await host.volume(pool, volume.name) if settled or volume.name in files else None
    if settled and found is not None and not growing.is_told_right(disk, found):
        # What the guest wrote to the beginning of its disk is no word on how large it is.
        found = replace(found, capacity=to_bytes(disk.status.virtual_size or disk.spec.size))
    beside = None if settled else await record.read(host, pool, volume.name)
    return Observed(
        volume=found,
        record=beside,
        mine=provision.expected(ctx, disk, volume),
        trashed=place.is_trashed(volume.name, files),
        rival=None if settled else place.rival(ctx, disk, volume, beside),
    )


async def _act(
    ctx: Context, disk: Disk, domain: StorageDomain, host: Hypervisor, seen: Observed, plan: Plan
) -> Standing:
    pool = domain.spec.directory.path
    standing = Standing(plan.verdict, plan.phase, seen.volume)
    if plan.step in (Step.CREATE, Step.IMPORT):
        full = provision.room_problem(domain, disk)
        if full is not None and ctx.jobs.get(key_of(disk), provision.IMPORT) is None:
            return Standing(full, DiskPhase.PENDING, again=60.0)
        other = await _turn(ctx, disk, host, pool, seen, plan)
        if other is not None:
            return other
    match plan.step:
        case Step.CREATE:
            await provision.create_blank(disk, host, pool, seen)
            standing.more = True
        case Step.TAKE_OVER:
            if seen.trashed and not await trash.take_back(ctx, domain, host.name, seen.mine.volume):
                message = f"its time in the trash is over: {seen.mine.volume} is being removed"
                return Standing(stalled("VolumeNotFound", message), DiskPhase.FAILED, again=15.0)
            await provision.take_over(disk, host, pool, seen)
            ctx.event(disk, "TakenOver", f"uses the volume {seen.mine.volume}, which was there already")
            standing.more = True
        case Step.FINISH:
            ctx.jobs.take(key_of(disk), provision.IMPORT)
            await provision.finish(ctx, disk, host, pool)
            begun.finished(ctx, disk)
            standing.more = True
        case Step.IMPORT:
            problem = await place.copied_from_other(ctx, disk, host, pool)
            if problem is not None:
                return Standing(problem, DiskPhase.FAILED, again=30.0)
            verdict, phase, percent, again = await provision.run_import(ctx, disk, host, pool, seen)
            standing = Standing(verdict, phase, None, percent, again)
        case Step.GROW:
            assert seen.volume is not None, "what grows is there"
            waits = await growing.grow(ctx, disk, host, pool, seen.volume)
            if waits is not None:
                return Standing(waits, plan.phase, again=5.0)
            ctx.event(disk, "Resized", f"grown to {disk.spec.size}")
            standing.more = True
        case _:
            standing.again = 15.0 if plan.verdict.reason != "Ready" else None
    return standing


async def _turn(ctx: Context, disk: Disk, host: Hypervisor, pool: str, seen: Observed, plan: Plan) -> Standing | None:
    """See whether it is for this controller to go on with the volume under its name; None: it is."""
    match begun.turn(ctx, disk, host, seen, plan.step):
        case begun.Turn.MINE:
            assert disk.status.volume is not None, "it was looked at"
            begun.chosen(ctx, disk, host, pool, disk.status.volume.name)
            return None
        case begun.Turn.ANEW:
            ctx.jobs.take(key_of(disk), provision.IMPORT)
            volume = begun.anew(ctx, disk, host, pool)
            await ctx.compare_and_set(disk, {"volume": volume})
            begun.chosen(ctx, disk, host, pool, volume.name)
            return Standing(progressing("Creating", "", CREATE_BOUND), DiskPhase.CREATING, more=True)
        case begun.Turn.THEIRS:
            return Standing(plan.verdict, plan.phase, again=30.0, quiet=True)


async def _remove(ctx: Context, disk: Disk) -> Standing | None:
    waits = await removal.remove(ctx, disk)
    if waits is None:
        return None
    return Standing(waits, disk.status.phase, again=15.0)
