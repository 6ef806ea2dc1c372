"""Growing a volume: through the QEMU that has it open, or through the pool while nobody can open it.

Two programs that write one qcow2 file at once destroy it, and file locks do not reach across every shared file system.
So a volume is resized through the pool only while no VM that may have it open holds a place; and while that goes on
no VM is given one. Who grows writes that down (`status.volume.growsOn`), then looks at the API server for places, and
writes down that it found none (`growsAlone`) before it asks a host. Who starts writes down the place, then looks for
the former. One of the two sees the other, and whoever comes after both have died knows which has sent nothing.
"""

from __future__ import annotations

from crds.disk import Disk, DiskContent
from crds.host import Host
from crds.quantity import to_bytes
from crds.virtual_machine import VirtualMachine
from drivers.errors import HostUnavailable, HypervisorError
from drivers.hypervisor import Hypervisor
from drivers.model import DomainObservation, Volume
from engine.errors import Conflict
from reconcilers.context import Context
from reconcilers.objects import API, key_of
from reconcilers.reach import acting_host
from reconcilers.relations import holds_a_place, leaving_vms, listed, vms_of_disk
from reconcilers.standing import Verdict, progressing, stalled
from reconcilers.virtual_machine.needs import disk_names

BOUND = 120.0
RAW_LOOKS = frozenset({"raw", "iso"})
"""What a host may take a raw volume for without being wrong about its size."""


def is_told_right(disk: Disk, volume: Volume) -> bool:
    """Whether the host takes the volume for what it is. A guest can write any header into its raw disk, and the host
    then reads size and format from that.
    """
    return volume.format == disk.spec.format.value or (disk.spec.format == "raw" and volume.format in RAW_LOOKS)


def may_grow(disk: Disk) -> bool:
    """Whether somebody may make the volume larger, as far as one can know who has not seen the newest spec."""
    volume = disk.status.volume
    return volume is not None and volume.content is not DiskContent.CDROM


async def grow(ctx: Context, disk: Disk, host: Hypervisor, pool: str, seen: Volume) -> Verdict | None:
    """Make the volume as large as declared. Returns what it waits for, or None when it is so large."""
    volume = disk.status.volume
    assert volume is not None, "a disk that grows has a volume"
    if not is_told_right(disk, seen):
        return stalled("FormatMismatch", f"the volume begins like {seen.format}: its size cannot be told, nor changed")
    user = running_user(ctx, disk, volume.path or "", writing=True)
    if user is not None:
        name, domain = user
        if domain.identity is None or domain.identity.installation != ctx.installation:
            return stalled("InUse", f"domain {domain.name} on host {name}, which is not Hostler's, has the volume open")
        if seen.capacity < to_bytes(disk.spec.size):
            await acting_host(ctx, name).resize_block(domain.uuid, volume.path or "", to_bytes(disk.spec.size))
        if volume.grows_on is not None:
            await _write_down(ctx, disk, None)
        return None
    before = volume.grows_on
    if before not in (None, host.name) and ctx.objects.get(Host, before or "") is not None:
        return progressing("Resizing", f"waits for host {before}, which may be growing the volume still", BOUND)
    if before != host.name:
        holders = _holders(ctx, disk)
        if holders:
            return _waits(holders)
        disk = await _write_down(ctx, disk, host.name)
        ctx.growing.add(disk.metadata.uid)
    if before != host.name or not volume.grows_alone:
        holders = await _placed(ctx, disk)
        if holders:
            await _write_down(ctx, disk, None)
            return _waits(holders)
        disk = await _write_down(ctx, disk, host.name, alone=True)
    try:
        await host.resize_volume(pool, volume.name, to_bytes(disk.spec.size))
    except HostUnavailable:
        # It may be under way still: no VM starts, and no other host is asked, before this one has answered.
        raise
    except HypervisorError:
        # Who did not write it down does not know what has become of the call of who did.
        if disk.metadata.uid in ctx.growing:
            await _write_down(ctx, disk, None)
        raise
    await _write_down(ctx, disk, None)
    return None


async def _write_down(ctx: Context, disk: Disk, host: str | None, *, alone: bool = False) -> Disk:
    """Have it in the status through which host's pool the volume is being made larger; the newest object."""
    assert disk.status.volume is not None, "a disk that grows has a volume"
    mark = {"grows_on": host, "grows_alone": alone}
    await ctx.compare_and_set(disk, {"volume": disk.status.volume.model_copy(update=mark)})
    if host is None:
        ctx.growing.discard(disk.metadata.uid)
    newest = ctx.objects.get(Disk, disk.metadata.name, disk.metadata.namespace)
    if newest is None:
        raise Conflict(409, "Conflict", f"{key_of(disk)} is gone")
    return newest


def _waits(holders: list[str]) -> Verdict:
    message = f"waits until VirtualMachine {listed(holders)} is seen to run with the disk, or is off"
    return progressing("Resizing", message, BOUND)


async def _placed(ctx: Context, disk: Disk) -> list[str]:
    """VMs that refer to the disk and hold a place, as the API server knows them now."""
    found, _ = await ctx.client.list(API["VirtualMachine"], disk.metadata.namespace)
    vms = (VirtualMachine.parse(obj) for obj in found)
    return sorted(vm.metadata.name for vm in vms if disk.metadata.name in disk_names(vm) and holds_a_place(ctx, vm))


def running_user(ctx: Context, disk: Disk, path: str, *, writing: bool) -> tuple[str, DomainObservation] | None:
    """The host and the active domain that has the image open, whoever made it; writing: those that only read it, in a
    CD-ROM drive, do not count.
    """
    local = disk.status.volume.host if disk.status.volume is not None else None
    for name in sorted(ctx.sightings.of_file(path)):
        host = ctx.host(name)
        inventory = host.inventory() if host is not None else None
        if inventory is None or (local is not None and name != local):
            continue
        for domain in inventory.having(path):
            if domain.state != "shutoff" and (not writing or path in domain.images):
                return name, domain
    return None


def _holders(ctx: Context, disk: Disk) -> list[str]:
    """VMs that may have the volume open, or will soon: they hold a place or are promised one."""
    refer = (vm.metadata.name for vm in vms_of_disk(ctx, disk) if holds_a_place(ctx, vm))
    left = (vm.metadata.name for vm in leaving_vms(ctx, disk))
    return sorted({*refer, *left})
