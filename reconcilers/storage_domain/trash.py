"""The trash: volumes of deleted disks wait on the storage, and are purged when their time has come.

A deleted volume stays under its name, and an empty file `<volume>.trash-<unix time>` beside it says since when it is
deleted. Purging removes the volume, then its record, then that file: whatever a crash leaves is purged the next time.

Whether a volume is purged or taken back is decided once, by compare-and-set in the domain's status (`purging`,
`takingBack`): the two exclude each other, whoever decides, and whoever stands still before he does what was decided.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from crds.storage_domain import StorageDomain, StorageScope
from drivers.errors import NotFound
from drivers.hypervisor import Hypervisor
from engine.errors import Conflict
from reconcilers.context import Context
from reconcilers.objects import API
from reconcilers.projections import STORED, Stored
from reconcilers.relations import volumes_of
from xmlgen import names

_RECORD_LIMIT = 65536
BATCH = 50
"""Volumes whose purge is written down at once."""


@dataclass(frozen=True)
class Deleted:
    """A volume in the trash."""

    volume: str
    mark: str
    """Name of the file that says so."""
    since: int
    """Unix time at which it was deleted."""


def deleted(files: Iterable[str]) -> list[Deleted]:
    """The trash, by the names of the files in a directory, oldest first."""
    found = []
    for name in files:
        parsed = names.parse_trash_name(name)
        if parsed is not None and parsed[0] != names.MARKER:
            found.append(Deleted(parsed[0], name, parsed[1]))
    return sorted(found, key=lambda d: (d.since, d.volume))


def may_purge(volume: str, *, present: bool, owner: str | None, installation: str) -> bool:
    """Whether a volume in the trash is ours for certain: by its record (`owner` is the installation in it), else by its
    name. Where there is neither volume nor record, a purge was cut off, and only the mark is left.
    """
    if owner is not None:
        return owner == installation
    return not present or names.parse_volume_name(volume) is not None


def wanted_by(disks: Iterable[Stored], host: str | None) -> frozenset[str]:
    """Volumes that Disks refer to, or take over: never purged. `host`: whose directory, if HostLocal."""
    found: set[str] = set()
    for disk in disks:
        if disk.volume is not None and (host is None or disk.host in (None, host)):
            found.add(disk.volume)
        if disk.existing is not None:
            found.add(disk.existing)
    return frozenset(found)


async def sweep(ctx: Context, domain: StorageDomain, host: Hypervisor, *, local: bool) -> float | None:
    """Purge what is due in the domain's directory on this host; seconds until the next is due, or None.

    The caller has just verified the domain there. Raises HypervisorError, and engine.errors.Conflict where somebody has
    changed the domain meanwhile.
    """
    path, here = domain.spec.directory.path, host.name if local else None
    before = _newest(ctx, domain)
    files = await host.volume_names(path)
    trash = deleted(files)
    await _strike_out_old(ctx, before, trash, here)
    keep = _kept(ctx, domain, here) if trash else frozenset()
    now, waits, due = ctx.clock.now().timestamp(), list[float](), list[Deleted]()
    for entry in trash:
        left = entry.since + domain.spec.trash_seconds - now
        if title(entry.volume, here) in before.status.purging:
            # Who wrote that down may be about to remove it: nobody has it any more, and nobody can take it back.
            due.append(entry)
        elif entry.volume in keep:
            continue
        elif left > 0:
            waits.append(left)
        elif await _is_mark(host, path, entry.mark):
            owner = await _owner(host, path, entry.volume)
            if may_purge(entry.volume, present=entry.volume in files, owner=owner, installation=ctx.installation):
                due.append(entry)
    for first in range(0, len(due), BATCH):
        decided = await _decide(ctx, domain, due[first : first + BATCH], here)
        for entry in decided:
            await _purge(host, path, entry, files)
        await _strike_out(ctx, domain, purged={title(entry.volume, here) for entry in decided})
    return min(waits, default=None)


async def take_back(ctx: Context, domain: StorageDomain, host: str, volume: str) -> bool:
    """Write down that a volume is taken back from the trash, so that nobody purges it. False: it is being purged.

    Raises engine.errors.Conflict where somebody has changed the domain meanwhile.
    """
    known = _newest(ctx, domain)
    name = title(volume, host if known.spec.directory.scope is StorageScope.HOST_LOCAL else None)
    if name in known.status.purging:
        return False
    if name not in known.status.taking_back:
        await ctx.compare_and_set(known, {"takingBack": sorted({*known.status.taking_back, name})})
    return True


async def unmark(host: Hypervisor, path: str, volume: str) -> None:
    """Have no mark beside a volume that a Disk has. Raises HypervisorError."""
    for name in (await host.volume_names(path)).starting(f"{volume}.trash-"):
        if names.parse_trash_name(name) is not None and await _is_mark(host, path, name):
            await host.delete_volume(path, name)


def title(volume: str, host: str | None) -> str:
    """What a volume is called in the domain's status; `host` where each has a directory of its own."""
    return volume if host is None else f"{host}/{volume}"


async def _decide(ctx: Context, domain: StorageDomain, due: list[Deleted], here: str | None) -> list[Deleted]:
    """Write down what is purged now, before anything is removed: one process can stand still before it removes a volume
    while another one gives it to a Disk.
    """
    known, keep = _newest(ctx, domain), _kept(ctx, domain, here)
    before = set(known.status.purging)
    decided = [e for e in due if title(e.volume, here) in before or e.volume not in keep]
    wanted = before | {title(e.volume, here) for e in decided}
    if wanted != before:
        await ctx.compare_and_set(known, {"purging": sorted(wanted)})
    return decided


async def _strike_out_old(ctx: Context, domain: StorageDomain, trash: list[Deleted], here: str | None) -> None:
    """Strike out what was written down before the trash was listed and is over: purged, taken back, or given up."""
    mine, lies = title("", here), {title(entry.volume, here) for entry in trash}
    purged = {name for name in domain.status.purging if name.startswith(mine) and name not in lies}
    taken = {name for name in domain.status.taking_back if name.startswith(mine)}
    if taken & lies - _titles(volumes_of(ctx, domain.metadata.name), here):
        # A Disk that is not in the cache yet may want it back.
        known, _ = await ctx.client.list(API["Disk"])
        disks = (STORED.function(disk) for disk in known if disk["spec"]["storageDomain"] == domain.metadata.name)
        taken -= lies & _titles((stored for stored in disks if stored is not None), here)
    else:
        taken -= lies
    await _strike_out(ctx, domain, purged=purged, taken=taken)


def _titles(disks: Iterable[Stored], here: str | None) -> set[str]:
    return {title(volume, here) for volume in wanted_by(disks, here)}


async def _strike_out(ctx: Context, domain: StorageDomain, *, purged: set[str], taken: Collection[str] = ()) -> None:
    known = _newest(ctx, domain)
    purging = [name for name in known.status.purging if name not in purged]
    taking = [name for name in known.status.taking_back if name not in taken]
    if (purging, taking) != (known.status.purging, known.status.taking_back):
        await ctx.compare_and_set(known, {"purging": purging, "takingBack": taking})


def _newest(ctx: Context, domain: StorageDomain) -> StorageDomain:
    found = ctx.objects.get(StorageDomain, domain.metadata.name)
    if found is None or found.metadata.uid != domain.metadata.uid:
        raise Conflict(409, "Conflict", f"StorageDomain {domain.metadata.name} is gone")
    return found


def _kept(ctx: Context, domain: StorageDomain, here: str | None) -> frozenset[str]:
    taken = _newest(ctx, domain).status.taking_back
    prefix = title("", here)
    back = frozenset(name.removeprefix(prefix) for name in taken if name.startswith(prefix))
    return (
        wanted_by(volumes_of(ctx, domain.metadata.name), here)
        | ctx.sightings.files_in(domain.spec.directory.path)
        | back
    )


async def _is_mark(host: Hypervisor, path: str, name: str) -> bool:
    """A mark is empty: a file that holds anything is none."""
    found = await host.volume(path, name)
    return found is not None and found.capacity == 0


async def _purge(host: Hypervisor, path: str, entry: Deleted, present: Collection[str]) -> None:
    beside = [name for name in names.import_names(entry.volume) if name in present]
    for name in (*beside, entry.volume, names.record_name(entry.volume), entry.mark):
        await host.delete_volume(path, name)


async def _owner(host: Hypervisor, path: str, volume: str) -> str | None:
    """The installation that the volume's record names; None where there is no record that can be read."""
    try:
        name = names.record_name(volume)
        data = b"".join([chunk async for chunk in host.download(path, name, limit=_RECORD_LIMIT)])
        return str(json.loads(data.rstrip(b"\0"))["installation"])
    except (NotFound, ValueError, TypeError, KeyError):
        return None
