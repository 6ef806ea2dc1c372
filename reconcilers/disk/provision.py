"""Making and growing volumes. Every step may have been begun before, by this process or an earlier one."""

from __future__ import annotations

import asyncio
from functools import partial

from crds.disk import Disk, DiskContent, DiskFormat, DiskPhase, DiskVolume
from crds.quantity import about, to_bytes
from crds.storage_domain import StorageDomain
from drivers.errors import AlreadyExists, HypervisorError
from drivers.hypervisor import Hypervisor
from engine import metrics
from reconcilers.bandwidth import Bandwidth
from reconcilers.context import Context
from reconcilers.disk import record
from reconcilers.disk.decide import Observed
from reconcilers.disk.image import HEADER_BYTES, BadImage, inspect, is_iso
from reconcilers.disk.imports import Import, NoRoom
from reconcilers.disk.webfile import shown
from reconcilers.jobs import Job
from reconcilers.objects import key_of
from reconcilers.standing import Verdict, progressing, stalled
from reconcilers.storage_domain import may_allocate, trash
from xmlgen import names
from xmlgen.volume import volume_xml

IMPORT = "import"
LATE_SECONDS = 600
"""How long after a volume was given up a host may still make a file of it: so long its mark in the trash stays."""
RETRY_SECONDS = 30.0
"""Time after which a failed import is tried again; the server or the file may have been mended."""


async def create_blank(disk: Disk, host: Hypervisor, pool: str, seen: Observed) -> None:
    """Make the blank volume and its record. What lies in its way is never removed: it may have become whole by now."""
    assert disk.status.volume is not None
    name = disk.status.volume.name
    try:
        await host.create_volume(pool, volume_xml(name, disk.spec.format.value, to_bytes(disk.spec.size)))
    except AlreadyExists:
        # The list was older than the file: another controller may have made it, and a VM may run from it by now. A new
        # look tells.
        return
    await record.write(host, pool, seen.mine)


async def take_over(disk: Disk, host: Hypervisor, pool: str, seen: Observed) -> None:
    """Use a volume that lies there. Its header is read first: it may come from anybody. Raises BadImage."""
    assert seen.volume is not None
    head = b"".join([chunk async for chunk in host.download(pool, seen.volume.name, limit=HEADER_BYTES)])
    info = inspect(head, max(seen.volume.capacity, len(head)))
    if info.format != disk.spec.format.value:
        raise BadImage("FormatMismatch", f"the file is {info.format}, not {disk.spec.format.value}")
    await record.write(host, pool, seen.mine)
    await trash.unmark(host, pool, seen.volume.name)


async def finish(ctx: Context, disk: Disk, host: Hypervisor, pool: str) -> None:
    """Write down that the volume is whole, and what it holds. From now on it is never made again."""
    volume, source = disk.status.volume, disk.spec.source
    assert volume is not None
    if source is not None and (source.http is not None or source.file is not None):
        for name in names.import_names(volume.name):
            await host.delete_volume(pool, name)
    for name in volume.earlier:
        await abandon(host, pool, name, int(ctx.clock.now().timestamp()))
    content = DiskContent.OTHER
    if disk.spec.format is DiskFormat.RAW and source is not None and source.blank is None:
        head = b"".join([chunk async for chunk in host.download(pool, volume.name, limit=HEADER_BYTES)])
        content = DiskContent.CDROM if is_iso(head) else content
    done = volume.model_copy(update={"provisioned_at": ctx.clock.now(), "content": content, "earlier": []})
    await ctx.compare_and_set(disk, {"volume": done})


def room_problem(domain: StorageDomain, disk: Disk) -> Verdict | None:
    """Why the domain takes no new disk of this size now, or None."""
    # Volumes are thin: what a guest will write is not known, only whether the domain takes new disks at all.
    why = may_allocate(domain, 0)
    return stalled("StorageFull", why) if why is not None else None


async def run_import(
    ctx: Context, disk: Disk, host: Hypervisor, pool: str, seen: Observed
) -> tuple[Verdict, DiskPhase, int | None, float]:
    """Start the import, or see how far it is: (verdict, phase, percent, seconds until the next look)."""
    assert disk.status.volume is not None
    key = key_of(disk)
    job = ctx.jobs.get(key, IMPORT)
    if job is not None and job.finished and job.error is not None:
        waited = asyncio.get_running_loop().time() - job.ended_at
        if waited < RETRY_SECONDS:
            return _failed(job.error), DiskPhase.FAILED, None, RETRY_SECONDS - waited + 0.1
        if isinstance(job.error, NoRoom) and (await host.pool_info(pool)).available < job.error.needed:
            job.ended_at += waited
            return _failed(job.error), DiskPhase.FAILED, None, RETRY_SECONDS + 0.1
        ctx.jobs.take(key, IMPORT)
        job = None
    if job is not None and job.finished:
        # It is whole, since the storage was looked at; or it is gone again, and then the next look begins anew.
        ctx.jobs.take(key, IMPORT)
        return progressing("Importing", "the image has been copied", 3600.0), DiskPhase.IMPORTING, 100, 0.1
    if job is None:
        job = ctx.jobs.start(key, IMPORT, partial(_import, ctx, disk=disk, host=host, pool=pool, seen=seen))
    message = f"the image is being copied from {_origin(disk)}"
    return progressing("Importing", message, 3600.0), DiskPhase.IMPORTING, job.percent, 60.0


async def _import(ctx: Context, job: Job, *, disk: Disk, host: Hypervisor, pool: str, seen: Observed) -> None:
    begun, volume = ctx.clock.monotonic(), seen.mine.volume
    try:
        earlier = tuple(disk.status.volume.earlier) if disk.status.volume is not None else ()
        share = _share(ctx, disk.spec.storage_domain)
        brought = await Import(job, disk, host, pool, volume, share, earlier, ctx.connector).run()
        if brought.grows:
            await host.resize_volume(pool, volume, to_bytes(disk.spec.size))
        await record.write(host, pool, seen.mine)
    except Exception as error:
        metrics.imports.labels(reason_of(error)).inc()
        raise
    seconds = max(ctx.clock.monotonic() - begun, 0.001)
    metrics.imports.labels("ok").inc()
    metrics.import_rate.observe(brought.received / seconds)
    rate = about(int(brought.received / seconds))
    cut = f", after {brought.interruptions} interruptions" if brought.interruptions else ""
    ctx.event(
        disk, "Imported", f"{about(brought.received)} from {_origin(disk)} in {seconds:.0f} s, {rate} a second{cut}"
    )


def _share(ctx: Context, domain: str) -> Bandwidth:
    """What all imports onto the domain share; by what is declared at the moment."""

    def rate() -> int:
        declared = ctx.objects.get(StorageDomain, domain)
        return to_bytes(declared.spec.bandwidth_per_second) if declared is not None else 0

    return ctx.bandwidths.setdefault(domain, Bandwidth(rate))


def _origin(disk: Disk) -> str:
    source = disk.spec.source
    if source is None:
        return "nowhere"
    return shown(source.http.url) if source.http is not None else (source.file.path if source.file is not None else "")


def _failed(error: Exception) -> Verdict:
    again = f"It is tried again every {RETRY_SECONDS:.0f} s"
    if isinstance(error, BadImage | HypervisorError):
        return stalled(error.reason, f"{error.message}. {again}")
    return stalled("InternalError", f"the import failed: {error!r}. {again}")


def reason_of(error: Exception) -> str:
    """The error's word, for a metric."""
    return error.reason if isinstance(error, BadImage | HypervisorError) else "InternalError"


async def discard(
    disk: Disk, host: Hypervisor, pool: str, trash_seconds: int, trashed_name: str | None, *, ours: bool = True
) -> bool:
    """Remove the volume: into the trash when it was whole and the domain keeps trash (True), else for good.

    `ours`: nobody else has begun it, whose calls may still be under way.
    """
    volume, asked = disk.status.volume, disk.metadata.deletion_timestamp
    assert volume is not None
    assert asked is not None
    for name in volume.earlier:
        await abandon(host, pool, name, int(asked.timestamp()))
    whole = volume.provisioned_at is not None or volume.taken_over
    if whole and trash_seconds > 0 and trashed_name is not None:
        await _trash(host, pool, trashed_name)
        return True
    for name in (*names.import_names(volume.name), volume.name, names.record_name(volume.name)):
        await host.delete_volume(pool, name)
    if not whole and not ours:
        await abandon(host, pool, volume.name, int(asked.timestamp()))
    return False


async def abandon(host: Hypervisor, pool: str, volume: str, now: int) -> None:
    """Have what was begun under a name, which no disk has any more, removed in time."""
    for name in names.import_names(volume):
        await host.delete_volume(pool, name)
    await _trash(host, pool, names.trash_name(volume, now + LATE_SECONDS))


async def _trash(host: Hypervisor, pool: str, trashed_name: str) -> None:
    try:
        await host.create_volume(pool, volume_xml(trashed_name, "raw", 0))
    except AlreadyExists:
        return


def expected(ctx: Context, disk: Disk, volume: DiskVolume) -> record.Record:
    """The record that the disk's volume should have."""
    meta = disk.metadata
    return record.Record(ctx.installation, meta.namespace, meta.name, meta.uid, volume.name, disk.spec.format.value)
