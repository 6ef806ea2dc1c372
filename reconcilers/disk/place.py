"""Where a new disk goes: which volume it will be, and on a host-local domain on which host."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import PurePosixPath

from crds.disk import Disk, DiskVolume
from crds.host_pool import HostPool
from crds.storage_domain import StorageDomain, StorageScope
from crds.virtual_machine import VirtualMachine
from drivers.hypervisor import Hypervisor
from drivers.model import FileNames
from placement import choose
from reconcilers import capacity
from reconcilers.context import Context
from reconcilers.disk import record
from reconcilers.reach import reaching_hosts
from reconcilers.relations import disks_with, hosts_of, listed, title
from reconcilers.settling import is_unheard
from reconcilers.standing import Verdict, progressing, stalled
from reconcilers.virtual_machine.document import placement_request
from reconcilers.virtual_machine.needs import disk_names, resolve
from xmlgen import names

CONSUMER_BOUND = 300.0


def local_host(ctx: Context, disk: Disk, domain: StorageDomain) -> str | Verdict:
    """The host of a new disk on a host-local domain: the one on which the VM that uses it can run.

    As with WaitForFirstConsumer volumes, a disk that nobody uses yet waits: a host chosen blindly could be one on which
    the VM will never fit.
    """
    users = ctx.objects.by_index(VirtualMachine, "disk", f"{disk.metadata.namespace}/{disk.metadata.name}")
    vm = next(iter(sorted(users, key=lambda user: user.metadata.name)), None)
    if vm is None:
        message = "a disk on a host-local storage domain is made on the host of the VM that uses it: create that VM"
        return progressing("WaitForFirstConsumer", message, CONSUMER_BOUND)
    pool = ctx.objects.get(HostPool, vm.spec.pool)
    if pool is None:
        return stalled(
            "PoolNotFound", f"VirtualMachine {vm.metadata.name} names a HostPool {vm.spec.pool}, which is not there"
        )
    request = placement_request(vm, resolve(ctx, vm), only=None)
    siblings = _siblings(ctx, vm)
    if siblings is not None:
        request = replace(request, hosts=siblings if request.hosts is None else request.hosts & siblings)
    hosts = capacity.candidates(ctx, pool, ignore=vm.metadata.uid)
    candidates = [host for host in hosts if domain.metadata.name in host.storage_domains]
    decision = choose(request, candidates, pool.spec.placement)
    if decision.host is None:
        return progressing(
            "Unschedulable", f"for VirtualMachine {vm.metadata.name}: {decision.explanation}", CONSUMER_BOUND
        )
    return decision.host


def _siblings(ctx: Context, vm: VirtualMachine) -> frozenset[str] | None:
    """The hosts on which other host-local disks of the VM lie already."""
    disks = (ctx.objects.get(Disk, name, vm.metadata.namespace) for name in disk_names(vm))
    volumes = (disk.status.volume for disk in disks if disk is not None)
    hosts = frozenset(v.host for v in volumes if v is not None and v.host is not None)
    return hosts or None


async def home(ctx: Context, disk: Disk, domain: StorageDomain) -> str | Verdict | None:
    """The host on which a volume of the disk's past lies already, where storage is host-local; None: on none.

    Objects that were all made again say nothing of it, and the VM may run on from there. So a host that is about to be
    heard of is waited for.
    """
    reaching = list(reaching_hosts(ctx, domain))
    declared = [host.metadata.name for host in hosts_of(ctx, domain.spec.pools)]
    looked_at = {host.name for host in domain.status.hosts}
    unheard = [name for name in declared if name not in looked_at or is_unheard(ctx.view(name))]
    if unheard:
        message = f"host {listed(unheard)} is about to be looked at: the disk's volume may lie there already"
        return progressing("StorageNotReachable", message, CONSUMER_BOUND)
    pasts = await asyncio.gather(*(_past(ctx, disk, host, domain.spec.directory.path) for host in reaching))
    return next((host.name for host, past in zip(reaching, pasts, strict=True) if past is not None), None)


async def claim(ctx: Context, disk: Disk, domain: StorageDomain, host: Hypervisor) -> DiskVolume:
    """Which volume the disk will be: the one that `existing` names, the one of its own past, or a new one."""
    pool, meta = domain.spec.directory.path, disk.metadata
    local = host.name if domain.spec.directory.scope is StorageScope.HOST_LOCAL else None
    existing = disk.spec.source.existing if disk.spec.source is not None else None
    if existing is not None:
        name = PurePosixPath(existing.path).name
        return DiskVolume(name=name, host=local, path=f"{pool}/{name}", taken_over=True)
    past = await _past(ctx, disk, host, pool)
    name = past or names.volume_name(meta.namespace, meta.name, meta.uid, disk.spec.format.value)
    return DiskVolume(name=name, host=local, path=f"{pool}/{name}", taken_over=past is not None)


async def _past(ctx: Context, disk: Disk, host: Hypervisor, pool: str) -> str | None:
    """A whole volume that a Disk of this name had before the object was made again, and that nobody threw away."""
    meta, fmt = disk.metadata, disk.spec.format.value
    files = await host.volume_names(pool)
    wanted = names.parse_volume_name(names.volume_name(meta.namespace, meta.name, meta.uid, fmt))
    assert wanted is not None, "a name that was made can be read"
    for name in files.starting(names.beginning(meta.namespace, meta.name)):
        parsed = names.parse_volume_name(name)
        if parsed is None or (parsed.namespace, parsed.name, parsed.format) != (wanted.namespace, wanted.name, fmt):
            continue
        if is_trashed(name, files):
            continue
        found = await record.read(host, pool, name)
        if found is not None and (found.installation, found.namespace, found.name) == (
            ctx.installation,
            meta.namespace,
            meta.name,
        ):
            return name
    return None


def rival(ctx: Context, disk: Disk, volume: DiskVolume, beside: record.Record | None) -> str | None:
    """The Disk that has a better right to the volume: it has it, claims it and is older, or is named by its record."""
    for other in disks_with(ctx, disk.spec.storage_domain, volume.name):
        theirs = other.status.volume
        if other.metadata.uid == disk.metadata.uid or theirs is None:
            continue
        if theirs.host == volume.host and (theirs.provisioned_at is not None or _age(other) < _age(disk)):
            return title(other)
    if beside is None or beside.installation != ctx.installation:
        return None
    owner = ctx.objects.get(Disk, beside.name, beside.namespace)
    return title(owner) if owner is not None and owner.metadata.uid != disk.metadata.uid else None


def _age(disk: Disk) -> tuple[str, str]:
    created = disk.metadata.creation_timestamp
    return (created.isoformat() if created is not None else "", disk.metadata.uid)


def is_trashed(volume: str, files: FileNames) -> bool:
    """Whether the volume waits in the trash, by the files of its directory."""
    return bool(files.starting(f"{volume}.trash-"))


async def copied_from_other(ctx: Context, disk: Disk, host: Hypervisor, pool: str) -> Verdict | None:
    """Why a file source is not copied: it is a volume of another namespace's Disk, or was, by the record beside it."""
    source = disk.spec.source.file if disk.spec.source is not None else None
    if source is None:
        return None
    name, namespace = PurePosixPath(source.path).name, disk.metadata.namespace
    others = [
        title(other)
        for other in disks_with(ctx, disk.spec.storage_domain, name)
        if other.metadata.namespace != namespace
    ]
    beside = None if others else await record.read(host, pool, name)
    if beside is not None and (beside.installation, beside.namespace) != (ctx.installation, namespace):
        others = [f"{beside.namespace}/{beside.name}"]
    if not others:
        return None
    return stalled("OwnedByOther", f"{name} is the volume of Disk {others[0]}, which is not of this namespace")


def file_problem(disk: Disk, domain: StorageDomain) -> Verdict | None:
    """Why the path of a file or existing source is not taken: it must be a file of the domain's own directory."""
    source = disk.spec.source
    named = (source.file or source.existing) if source is not None else None
    if named is None or source is None:
        return None
    path = PurePosixPath(named.path)
    if ".." in path.parts:
        return stalled("PathOutside", f"{named.path} has '..' in it: name the file itself")
    if path.is_absolute() and str(path.parent) != domain.spec.directory.path:
        where = f"the directory {domain.spec.directory.path} of StorageDomain {domain.metadata.name}"
        message = f"{named.path} does not lie in {where}"
        return stalled("PathOutside", message)
    if not path.is_absolute() and len(path.parts) != 1:
        return stalled(
            "PathOutside", f"{named.path} lies in a sub-directory: only files of the directory itself are taken"
        )
    trashed = names.parse_trash_name(path.name)
    if source.existing is not None and trashed is not None:
        return stalled("OwnedByOther", f"{path.name} only marks a volume as trash: to take it back, name {trashed[0]}")
    # Whatever a volume is called, its record is called <volume>.json: who could write that could give volumes away.
    beside = names.is_ours(path.name) or path.suffix in (".json", ".import")
    if beside or (source.file is not None and names.parse_volume_name(path.name) is not None):
        return stalled(
            "OwnedByOther", f"{path.name} is a file that Hostler keeps for another object: name another file"
        )
    return None
