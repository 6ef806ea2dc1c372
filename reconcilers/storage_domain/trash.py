"""The trash: volumes of deleted disks wait on the storage, and are purged when their time has come.

A deleted volume stays under its name, and an empty file `<volume>.trash-<unix time>` beside it says since when it is
deleted. Purging removes the volume, then its record, then that file: whatever a crash leaves is purged the next time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from crds.disk import Disk
from crds.storage_domain import StorageDomain
from drivers.errors import HostUnavailable, NotFound
from drivers.hypervisor import Hypervisor, Volume
from reconcilers.context import Context
from reconcilers.relations import disks_of
from xmlgen import names

_RECORD_LIMIT = 65536


@dataclass(frozen=True)
class Deleted:
    """A volume in the trash."""

    volume: str
    mark: str
    """Name of the file that says so."""
    since: int
    """Unix time at which it was deleted."""


def deleted(files: Iterable[Volume]) -> list[Deleted]:
    """The trash among the files of a directory, oldest first. A mark is empty: a file that holds anything is none."""
    found = []
    for file in files:
        parsed = names.parse_trash_name(file.name)
        if parsed is not None and file.capacity == 0 and parsed[0] != names.MARKER:
            found.append(Deleted(parsed[0], file.name, parsed[1]))
    return sorted(found, key=lambda d: (d.since, d.volume))


def may_purge(volume: str, *, present: bool, owner: str | None, installation: str) -> bool:
    """Whether a volume in the trash is ours for certain: by its record (`owner` is the installation in it), else by its
    name. Where there is neither volume nor record, a purge was cut off, and only the mark is left.
    """
    if owner is not None:
        return owner == installation
    return not present or names.parse_volume_name(volume) is not None


def wanted(disks: Iterable[Disk], host: str | None) -> frozenset[str]:
    """Volumes that Disks refer to, or take over: never purged. `host`: whose directory, if HostLocal."""
    found: set[str] = set()
    for disk in disks:
        volume = disk.status.volume
        if volume is not None and (host is None or volume.host in (None, host)):
            found.add(volume.name)
        source = disk.spec.source
        if source is not None and source.existing is not None:
            found.add(PurePosixPath(source.existing.path).name)
    return frozenset(found)


async def sweep(ctx: Context, domain: StorageDomain, host: Hypervisor, *, local: bool) -> float | None:
    """Purge what is due in the domain's directory on this host; seconds until the next is due, or None.

    The caller has just verified the domain there. Raises HypervisorError.
    """
    path = domain.spec.directory.path
    files = await host.list_volumes(path)
    present = {file.name for file in files}
    keep = _kept(ctx, domain, host, local=local)
    _answered(ctx, host, path)
    now, waits = ctx.clock.now().timestamp(), list[float]()
    for entry in deleted(files):
        left = entry.since + domain.spec.trash_seconds - now
        if entry.volume in keep:
            continue
        if left > 0:
            waits.append(left)
        else:
            owner = await _owner(host, path, entry.volume)
            ours = may_purge(entry.volume, present=entry.volume in present, owner=owner, installation=ctx.installation)
            # Purging many takes a while, in which somebody may have asked for this one.
            if ours and entry.volume not in _kept(ctx, domain, host, local=local):
                await _purge(ctx, host, path, entry)
    return min(waits, default=None)


def _kept(ctx: Context, domain: StorageDomain, host: Hypervisor, *, local: bool) -> frozenset[str]:
    disks = disks_of(ctx, domain.metadata.name)
    return wanted(disks, host.name if local else None) | _in_use(ctx, domain.spec.directory.path)


async def _purge(ctx: Context, host: Hypervisor, path: str, entry: Deleted) -> None:
    place = f"{path}/{entry.volume}"
    ctx.purging[place] = host.name
    try:
        await host.delete_volume(path, entry.volume)
        await host.delete_volume(path, names.record_name(entry.volume))
        await host.delete_volume(path, entry.mark)
    except HostUnavailable:
        # It may be removed yet, whenever the host goes on: it is not taken back before the host has answered.
        raise
    except BaseException:
        ctx.purging.pop(place, None)
        raise
    ctx.purging.pop(place, None)


def _answered(ctx: Context, host: Hypervisor, path: str) -> None:
    """The host has listed the directory anew: what it was told in an earlier sweep is over."""
    for place, told in list(ctx.purging.items()):
        if told == host.name and str(PurePosixPath(place).parent) == path:
            del ctx.purging[place]


async def _owner(host: Hypervisor, path: str, volume: str) -> str | None:
    """The installation that the volume's record names; None where there is no record that can be read."""
    try:
        name = names.record_name(volume)
        data = b"".join([chunk async for chunk in host.download(path, name, limit=_RECORD_LIMIT)])
        return str(json.loads(data.rstrip(b"\0"))["installation"])
    except (NotFound, ValueError, TypeError, KeyError):
        return None


def _in_use(ctx: Context, path: str) -> frozenset[str]:
    """Files in the directory that any known domain has, whoever made it."""
    views = (ctx.view(name) for name in ctx.hosts.names())
    images = (
        i for v in views if v is not None and v.inventory is not None for d in v.inventory.domains for i in d.opened
    )
    return frozenset(file.name for file in map(PurePosixPath, images) if str(file.parent) == path)
