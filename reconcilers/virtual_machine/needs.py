"""What a VM needs from other objects before it can run: disks, networks, cloud-init data, a pool. Reads only.

Everything that is missing is found in one pass, so that a person sees the whole list and not one item after another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crds.disk import Disk, DiskAccess, DiskContent, DiskFormat, DiskPhase
from crds.host_pool import HostPool
from crds.network import Network
from crds.quantity import to_bytes
from crds.storage_domain import StorageDomain, StorageMode
from crds.virtual_machine import DiskType, VirtualMachine, VMDisk
from drivers.model import ACTIVE
from reconcilers.consumers import allowed
from reconcilers.context import Context
from reconcilers.relations import holds_a_place, leaving_vms, vms_of_disk
from reconcilers.standing import Verdict, progressing, stalled

IMPORT_BOUND = 3600.0
"""Seconds that a VM may wait for its disks before it counts as stalled; the Disk itself says so earlier."""
CREATE_BOUND = 120.0


@dataclass(frozen=True)
class Drive:
    """A drive of the VM and the disk behind it, which is ready."""

    spec: VMDisk
    disk: Disk | None
    """None for an empty CD-ROM."""
    domain: StorageDomain | None


@dataclass(frozen=True)
class Needs:
    """What was found, and every problem met on the way."""

    pool: HostPool | None
    drives: tuple[Drive, ...]
    networks: dict[str, Network]
    problems: tuple[Verdict, ...]
    disk_problems: tuple[Verdict, ...]

    @property
    def verdict(self) -> Verdict | None:
        """The problem to show: what a person must mend comes before what only takes time. All messages are joined."""
        every = (*self.problems, *self.disk_problems)
        if not every:
            return None
        first = next((v for v in every if v.bound is None), every[0])
        same = [v for v in every if (v.bound is None) == (first.bound is None)]
        message = "; ".join(dict.fromkeys(v.message for v in same))
        return Verdict(first.standing, first.reason, message[:1024], first.bound)

    @property
    def storage_domains(self) -> frozenset[str]:
        """Names of the storage domains that the host must reach."""
        return frozenset(d.domain.metadata.name for d in self.drives if d.domain is not None)

    @property
    def hosts(self) -> frozenset[str] | None:
        """The hosts where host-local disks lie (more than one: they cannot be had together), or None for any host."""
        bound = [d.disk.status.host for d in self.drives if d.disk is not None and d.disk.status.host is not None]
        return frozenset(bound) if bound else None

    @property
    def taken_over(self) -> bool:
        """Whether a volume was there before its Disk: then the VM's history is not known."""
        disks = (d.disk for d in self.drives if d.disk is not None)
        return any(d.status.volume is not None and d.status.volume.taken_over for d in disks)


def disk_name(vm: VirtualMachine, drive: VMDisk) -> str | None:
    """Name of the Disk behind a drive; None for an empty CD-ROM."""
    if drive.disk_ref is not None:
        return drive.disk_ref.name
    return f"{vm.metadata.name}-{drive.name}" if drive.template is not None else None


def disk_names(vm: VirtualMachine) -> tuple[str, ...]:
    """Names of all Disks that the VM refers to."""
    names = (disk_name(vm, drive) for drive in vm.spec.disks)
    return tuple(dict.fromkeys(name for name in names if name is not None))


def resolve(ctx: Context, vm: VirtualMachine) -> Needs:
    """Everything that the VM's spec refers to, from the cache. The cloud-init Secret is read when the seed is made."""
    labels = ctx.objects.namespace_labels(vm.metadata.namespace)
    problems: list[Verdict] = []
    disk_problems: list[Verdict] = []
    pool = ctx.objects.get(HostPool, vm.spec.pool)
    if pool is None:
        problems.append(stalled("PoolNotFound", f"there is no HostPool {vm.spec.pool}: create it, or change spec.pool"))
    elif not allowed(pool.spec.consumers, labels):
        problems.append(_not_a_consumer(vm, pool))
    elif pool.status.baseline is None:
        problems.append(
            progressing("PoolNotReady", f"HostPool {vm.spec.pool} has no host yet to learn its CPU from", CREATE_BOUND)
        )
    networks: dict[str, Network] = {}
    for nic in vm.spec.nics:
        network = ctx.objects.get(Network, nic.network)
        if network is None:
            problems.append(
                stalled("NetworkNotFound", f"there is no Network {nic.network}: create it, or change nic {nic.name}")
            )
        elif not allowed(network.spec.consumers, labels):
            problems.append(_not_a_consumer(vm, network))
        else:
            networks[nic.network] = network
    drives: list[Drive] = []
    for spec in vm.spec.disks:
        found = _drive(ctx, vm, spec)
        if isinstance(found, Verdict):
            disk_problems.append(found)
        else:
            drives.append(found)
    problems.extend(_duplicate_macs(ctx, vm))
    disk_problems.extend(_conflicts(ctx, vm, drives))
    disk_problems.extend(_not_bootable(drives))
    return Needs(pool, tuple(drives), networks, tuple(problems), tuple(disk_problems))


def _not_a_consumer(vm: VirtualMachine, obj: HostPool | Network) -> Verdict:
    return stalled(
        "NotAllowed",
        f"namespace {vm.metadata.namespace} may not use {obj.kind} {obj.metadata.name}: "
        "its spec.consumers.namespaceSelector does not select this namespace",
    )


def _drive(ctx: Context, vm: VirtualMachine, spec: VMDisk) -> Drive | Verdict:
    name = disk_name(vm, spec)
    if name is None:
        return Drive(spec, None, None)
    disk = ctx.objects.get(Disk, name, vm.metadata.namespace)
    if disk is None and spec.template is not None:
        return progressing("DisksNotReady", f"disk {name}: it is being made", IMPORT_BOUND)
    if disk is None:
        return stalled("DiskNotFound", f"there is no Disk {name}: create it, or change drive {spec.name}")
    if spec.template is not None and not any(o.uid == vm.metadata.uid for o in disk.metadata.owner_references):
        return stalled(
            "DiskNameTaken",
            f"Disk {name} is there already and is not this VM's: use diskRef for it, or rename drive {spec.name}",
        )
    if disk.metadata.deleting:
        return stalled("DiskDeleting", f"Disk {name} is being deleted: change drive {spec.name}")
    return _ready_drive(ctx, spec, disk)


def _ready_drive(ctx: Context, spec: VMDisk, disk: Disk) -> Drive | Verdict:
    name, status = disk.metadata.name, disk.status
    ready = status.condition("Ready")
    provisioned = status.volume is not None and status.volume.provisioned_at is not None
    # A disk that only grows, or whose domain cannot be asked for a moment, can still be run from.
    if not provisioned or status.phase in (DiskPhase.FAILED, None) or status.path is None:
        why = ready.message if ready is not None and ready.message else "it is not ready yet"
        held_up = status.condition("Stalled")
        if held_up is not None and held_up.status == "True":
            return stalled(ready.reason if ready is not None else "DisksNotReady", f"disk {name}: {why}")
        # One word for all the short steps of a disk's making: each other one would cost a write of ours.
        if ready is None or ready.reason == "Creating":
            why = "it is being made"
        return progressing("DisksNotReady", f"disk {name}: {why}", IMPORT_BOUND)
    grows_it = status.volume.grows_on if status.volume is not None else None
    if grows_it is not None:
        return progressing("DisksNotReady", f"disk {name}: host {grows_it} makes it larger", CREATE_BOUND)
    domain = ctx.objects.get(StorageDomain, disk.spec.storage_domain)
    if domain is None:
        return stalled("StorageDomainNotFound", f"disk {name}: there is no StorageDomain {disk.spec.storage_domain}")
    if domain.spec.mode is StorageMode.MAINTENANCE:
        return stalled("StorageMaintenance", f"disk {name}: StorageDomain {domain.metadata.name} is in maintenance")
    return Drive(spec, disk, domain)


def _duplicate_macs(ctx: Context, vm: VirtualMachine) -> Iterable[Verdict]:
    declared = [nic.mac for nic in vm.spec.nics if nic.mac is not None]
    for mac in sorted({m for m in declared if declared.count(m) > 1}):
        yield stalled("DuplicateMAC", f"MAC address {mac} is declared twice in this VM")
    for mac in dict.fromkeys(declared):
        others = [o for o in ctx.objects.by_index(VirtualMachine, "mac", mac) if o.metadata.uid != vm.metadata.uid]
        # Of two that declare the same address the older one keeps it, so that a new VM never stops a running one.
        older = [o for o in others if _age(o) < _age(vm)]
        if older:
            other = f"{older[0].metadata.namespace}/{older[0].metadata.name}"
            yield stalled("DuplicateMAC", f"MAC address {mac} belongs to VirtualMachine {other}: choose another one")


def _age(obj: VirtualMachine) -> tuple[str, str]:
    created = obj.metadata.creation_timestamp
    return (created.isoformat() if created is not None else "", obj.metadata.uid)


def _conflicts(ctx: Context, vm: VirtualMachine, drives: Iterable[Drive]) -> Iterable[Verdict]:
    """Disks that something else has in use: another VM that holds a place on a host, or any domain on one."""
    for drive in drives:
        if drive.disk is None or drive.disk.spec.access is DiskAccess.SHARED or drive.spec.type == "cdrom":
            continue
        holder = _holder(ctx, vm, drive.disk)
        if holder is not None:
            yield stalled(
                "DiskInUse",
                f"disk {drive.disk.metadata.name} is in use by {holder}: an Exclusive disk is for one VM at a time",
            )


def _not_bootable(drives: Iterable[Drive]) -> Iterable[Verdict]:
    """CD-ROM drives that are booted from and hold no CD. Any image can be in the others: it is data."""
    for drive in drives:
        if drive.spec.type is not DiskType.CDROM or drive.spec.boot_order is None or drive.disk is None:
            continue
        volume = drive.disk.status.volume
        if volume is not None and volume.content is DiskContent.OTHER:
            name, spec = drive.disk.metadata.name, drive.disk.spec
            why = "it is no image of a CD or DVD" if spec.format is DiskFormat.RAW else "an ISO has format raw"
            yield stalled(
                "NotAnISO",
                f"disk {name}: drive {drive.spec.name} is booted from (bootOrder) and cannot be: {why}. Name a Disk "
                "with format raw that is made from an ISO, remove bootOrder, or make it a drive of type disk",
            )


def _holder(ctx: Context, vm: VirtualMachine, disk: Disk) -> str | None:
    if not _has_open(ctx, vm, disk):
        holders = [*(o for o in vms_of_disk(ctx, disk) if holds_a_place(ctx, o)), *leaving_vms(ctx, disk)]
        for other in holders:
            if other.metadata.uid != vm.metadata.uid:
                return f"VirtualMachine {other.metadata.name}"
    return _domain_holding(ctx, vm, disk)


def _has_open(ctx: Context, vm: VirtualMachine, disk: Disk) -> bool:
    """Whether the VM's own domain is seen with the disk now: then another VM that only asks for it takes nothing."""
    placement = vm.status.placement
    view = ctx.view(placement.host) if placement is not None and placement.host is not None else None
    if view is None or view.inventory is None or not view.fresh:
        return False
    mine = view.inventory.get(vm.status.uuid or vm.metadata.uid)
    return mine is not None and mine.state in ACTIVE and disk.status.path in mine.images


def _domain_holding(ctx: Context, vm: VirtualMachine, disk: Disk) -> str | None:
    """Any active domain that has the image open, or below one, whoever made it; another namespace's VM or a foreign
    domain too.
    """
    own = (ctx.installation, vm.metadata.namespace, vm.metadata.name)
    local, path = disk.status.host, disk.status.path
    if path is None:
        return None
    for name in sorted(ctx.sightings.of_file(path)):
        host = ctx.host(name)
        inventory = host.inventory() if host is not None else None
        if inventory is None or (local is not None and local != name):
            continue
        for domain in inventory.having(path):
            stamp = domain.identity
            mine = stamp is not None and (stamp.installation, stamp.namespace, stamp.name) == own
            if domain.state != "shutoff" and not mine and path in domain.relied_on:
                return f"domain {domain.name} on host {name}"
    return None


def template_growth(drive: VMDisk, disk: Disk) -> bool:
    """Whether the drive's template asks for a larger disk than the Disk that was made from it."""
    return drive.template is not None and to_bytes(drive.template.size) > to_bytes(disk.spec.size)
