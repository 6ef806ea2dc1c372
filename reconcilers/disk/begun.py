"""Whose work a volume is that is not whole yet.

A controller writes only under a name that it has chosen itself, by compare-and-set in the Disk's status. Another one
may stand still between its check and its call, or a host may carry out late what it was told: what such a call names is
not the volume that a VM runs from. So what another controller (or another host) has begun is begun anew under another
name, and what lies under the earlier one is removed.
"""

from __future__ import annotations

from enum import Enum

from crds.disk import Disk, DiskVolume
from drivers.errors import HostTimeout, HypervisorError
from drivers.hypervisor import Hypervisor
from engine.keys import Key
from reconcilers.context import Begun, Context
from reconcilers.disk import provision, record
from reconcilers.disk.decide import Observed, Step
from reconcilers.objects import key_of
from xmlgen import names

PATIENCE_SECONDS = 600.0
"""How long a controller whose work another one has taken over leaves it to that one."""


class Turn(Enum):
    """Who goes on with a volume."""

    MINE = "Mine"
    """This controller, under the name that is written down."""
    ANEW = "Anew"
    """This controller, under another name."""
    THEIRS = "Theirs"
    """Another controller, which has taken it over from this one."""


def chosen(ctx: Context, disk: Disk, host: Hypervisor, pool: str, volume: str) -> None:
    """Remember that this controller has chosen the name, and written it down."""
    ctx.making[key_of(disk)] = Begun(disk.metadata.uid, host.name, pool, volume)


def finished(ctx: Context, disk: Disk) -> None:
    """It is whole, or gone."""
    ctx.making.pop(key_of(disk), None)


def at_work(ctx: Context, disk: Disk) -> str | None:
    """The host on which this controller has begun the volume."""
    mine, volume = _mine(ctx, disk), disk.status.volume
    return mine.host if mine is not None and volume is not None and mine.volume == volume.name else None


def turn(ctx: Context, disk: Disk, host: Hypervisor, seen: Observed, step: Step) -> Turn:
    """Who goes on with making the volume (step: Create or Import), now that it was looked at on this host."""
    mine, volume = _mine(ctx, disk), disk.status.volume
    assert volume is not None, "which volume it will be is written down first"
    in_the_way = step is Step.CREATE and seen.volume is not None
    if mine is not None and mine.volume == volume.name:
        job = ctx.jobs.get(key_of(disk), provision.IMPORT)
        stays = mine.host == host.name or (job is not None and not job.finished)
        # A call without an answer may take effect later: nothing whole is ever made under that name.
        unanswered = job is not None and job.finished and isinstance(job.error, HostTimeout)
        return Turn.MINE if stays and not in_the_way and not unanswered else Turn.ANEW
    if step is Step.CREATE:
        # A host refuses to make a file that is there: two who make one blank volume make one.
        return Turn.ANEW if in_the_way else Turn.MINE
    if mine is None or (mine.lost_at is not None and ctx.clock.monotonic() - mine.lost_at > PATIENCE_SECONDS):
        return Turn.ANEW
    return Turn.THEIRS


def anew(ctx: Context, disk: Disk, host: Hypervisor, pool: str) -> DiskVolume:
    """The volume under another name, to be begun again on this host."""
    volume, meta = disk.status.volume, disk.metadata
    assert volume is not None, "it was begun"
    name = names.volume_name(
        meta.namespace, meta.name, f"{meta.uid}/{host.name}/{ctx.new_id()}", disk.spec.format.value
    )
    earlier = [*volume.earlier, volume.name]
    return DiskVolume(name=name, host=volume.host, path=f"{pool}/{name}", taken_over=False, earlier=earlier)


async def give_up(ctx: Context, disk: Disk) -> None:
    """End what this controller does under a name that the Disk does not have any more, and have it removed."""
    mine, volume = _mine(ctx, disk), disk.status.volume
    if mine is None or volume is None or mine.lost_at is not None or mine.volume == volume.name:
        return
    if await ctx.jobs.cancel(key_of(disk)) and await _abandon(ctx, mine):
        mine.lost_at = ctx.clock.monotonic()


async def gone(ctx: Context, key: Key) -> bool:
    """The Disk is gone: end what is done for it. False: the host has not let go of it yet."""
    if not await ctx.jobs.cancel(key):
        return False
    mine = ctx.making.get(key)
    if mine is not None and mine.lost_at is None and not await _abandon(ctx, mine, unless_whole=True):
        return False
    ctx.making.pop(key, None)
    return True


async def _abandon(ctx: Context, mine: Begun, *, unless_whole: bool = False) -> bool:
    host = ctx.host(mine.host)
    if host is None:
        return True
    try:
        if unless_whole and await record.read(host, mine.pool, mine.volume) is not None:
            return True
        await provision.abandon(host, mine.pool, mine.volume, int(ctx.clock.now().timestamp()))
    except HypervisorError:
        return False
    return True


def _mine(ctx: Context, disk: Disk) -> Begun | None:
    mine = ctx.making.get(key_of(disk))
    return mine if mine is not None and mine.uid == disk.metadata.uid else None
