"""Deleting a disk: wait until nothing uses it, then trash, delete or keep its volume, then let the object go."""

from __future__ import annotations

from crds.base import FINALIZER
from crds.disk import Disk, DiskVolume
from crds.storage_domain import StorageDomain
from drivers.hypervisor import Hypervisor
from reconcilers.context import Context
from reconcilers.disk import begun, growing, place, provision, record
from reconcilers.holding import let_go
from reconcilers.objects import key_of
from reconcilers.reach import working_host
from reconcilers.relations import hosts_of, leaving_vms, listed, vms_of_disk
from reconcilers.standing import Verdict, progressing, stalled
from xmlgen import names


async def remove(ctx: Context, disk: Disk) -> Verdict | None:
    """Carry the deletion on. Returns what it waits for, or None when the object is gone."""
    waits = _held(disk)
    if waits is not None:
        return waits
    # Before anything else is waited for: nobody will ever use what is being copied.
    if not await ctx.jobs.cancel(key_of(disk)):
        return progressing("ImportEnding", "deletion waits: the host has not yet let go of the import", 600.0)
    waits = _used(ctx, disk)
    if waits is not None:
        return waits
    if disk.status.volume is not None and disk.spec.deletes_volume:
        waits = await _discard(ctx, disk)
        if waits is not None:
            return waits
    await let_go(ctx, disk)
    return None


def _held(disk: Disk) -> Verdict | None:
    prefix = "delete.check.hostler.dev/"
    who = ", ".join(sorted(a.removeprefix(prefix) for a in disk.metadata.annotations if a.startswith(prefix)))
    if who:
        return stalled("DeletionHeld", f"deletion waits for {who}")
    if disk.metadata.paused_by is not None:
        return stalled("Paused", f"hostler.dev/paused is set by {disk.metadata.paused_by}: the disk is not deleted")
    return None


def _used(ctx: Context, disk: Disk) -> Verdict | None:
    if disk.status.volume is None:
        # Nothing was made that anybody could use; a VM that names the disk may wait for it to go.
        return None
    # A VM that is being deleted lets go of its disks when our finalizer is off it: its domain is gone by then.
    users = [
        vm.metadata.name
        for vm in vms_of_disk(ctx, disk)
        if not vm.metadata.deleting or FINALIZER in vm.metadata.finalizers
    ]
    if users:
        return progressing("InUse", f"deletion waits: VirtualMachine {', '.join(users)} refers to the disk", 600.0)
    path = disk.status.volume.path
    runs = growing.running_user(ctx, disk, path, writing=False) if path is not None else None
    if runs is not None:
        return progressing("InUse", f"deletion waits: a domain on host {runs[0]} has the volume open", 600.0)
    leaving = [vm.metadata.name for vm in leaving_vms(ctx, disk)]
    if leaving:
        message = f"deletion waits: VirtualMachine {listed(leaving)} may have the volume open still"
        return progressing("InUse", message, 600.0)
    silent = _silent_hosts(ctx, disk)
    if silent:
        message = (
            f"deletion waits for host {listed(silent)}, which does not answer and may run something from the volume "
            "(it was not always this Disk's): bring the host back, delete the Host, or set deletionPolicy to Retain"
        )
        return progressing("HostUnreachable", message, 600.0)
    return None


def _silent_hosts(ctx: Context, disk: Disk) -> list[str]:
    """Hosts that reach the volume and cannot be asked, where others than our VMs may have it open."""
    volume, domain = disk.status.volume, ctx.objects.get(StorageDomain, disk.spec.storage_domain)
    if volume is None or not volume.taken_over or not disk.spec.deletes_volume or domain is None:
        return []
    hosts = [h.metadata.name for h in hosts_of(ctx, domain.spec.pools) if volume.host in (None, h.metadata.name)]
    views = {name: ctx.view(name) for name in hosts}
    return [name for name, view in views.items() if view is None or not view.fresh]


async def _discard(ctx: Context, disk: Disk) -> Verdict | None:
    volume = disk.status.volume
    assert volume is not None
    domain = ctx.objects.get(StorageDomain, disk.spec.storage_domain)
    if domain is None:
        message = f"{volume.path} is left: StorageDomain {disk.spec.storage_domain} is gone"
        ctx.event(disk, "VolumeLeft", message, warning=True)
        return None
    host = await working_host(ctx, domain, volume.host, work=disk.metadata.uid)
    if host is None:
        message = f"deletion waits: no host reaches StorageDomain {domain.metadata.name}, where the volume lies"
        return progressing("StorageNotReachable", message, 600.0)
    pool = domain.spec.directory.path
    if not await _is_mine(ctx, disk, volume, host, pool):
        return None
    files = await host.volume_names(pool)
    trashed = None
    if volume.name in files and not place.is_trashed(volume.name, files):
        assert disk.metadata.deletion_timestamp is not None
        trashed = names.trash_name(volume.name, int(disk.metadata.deletion_timestamp.timestamp()))
    if volume.name in files and trashed is None:
        return None
    ours = begun.at_work(ctx, disk) is not None
    if await provision.discard(disk, host, pool, domain.spec.trash_seconds, trashed, ours=ours):
        message = f"{volume.name} is trash and goes in {domain.spec.trash_seconds} s: source.existing takes it back"
        ctx.event(disk, "Trashed", message)
    return None


async def _is_mine(ctx: Context, disk: Disk, volume: DiskVolume, host: Hypervisor, pool: str) -> bool:
    """Whether the volume ever became this Disk's: one that lay there before may be another Disk's, or nobody's."""
    if volume.provisioned_at is not None or not volume.taken_over:
        return True
    found = await record.read(host, pool, volume.name)
    return found is not None and found.same_disk(provision.expected(ctx, disk, volume))
