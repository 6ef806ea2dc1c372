"""Which objects belong together: the questions that more than one kind asks of the cache."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crds.base import Resource
from crds.disk import Disk
from crds.host import Host
from crds.network import Network
from crds.storage_domain import StorageDomain
from crds.virtual_machine import VirtualMachine
from engine.keys import Key, Keys
from reconcilers.context import Context
from reconcilers.projections import STORED, Stored

_NAMED_AT_MOST = 10


def hosts_of(ctx: Context, pools: Iterable[str]) -> list[Host]:
    """The hosts of these pools, by name."""
    found = [host for pool in sorted(set(pools)) for host in ctx.objects.by_index(Host, "pool", pool)]
    return sorted(found, key=lambda host: host.metadata.name)


def vms_of_host(ctx: Context, host: str) -> Keys:
    """The VMs that run, or may run, on a host: it is their place or one of their candidates."""
    return ctx.cache.keys_by_index("VirtualMachine", "host", host)


def vms_of_pool(ctx: Context, pool: str) -> Keys:
    """The VMs that are declared for a pool."""
    return ctx.cache.keys_by_index("VirtualMachine", "pool", pool)


def vms_of_network(ctx: Context, network: str) -> Keys:
    """The VMs with a card in a network."""
    return ctx.cache.keys_by_index("VirtualMachine", "network", network)


def domains_of_pool(ctx: Context, pool: str) -> list[StorageDomain]:
    """The storage domains that a pool's hosts reach, by name."""
    return ctx.objects.by_index(StorageDomain, "pool", pool)


def networks_of_pool(ctx: Context, pool: str) -> list[Network]:
    """The networks that a pool's hosts have, by name."""
    return ctx.objects.by_index(Network, "pool", pool)


def disks_of(ctx: Context, domain: str) -> Keys:
    """The disks that lie, or will lie, on a storage domain."""
    return ctx.cache.keys_by_index("Disk", "storageDomain", domain)


def volumes_of(ctx: Context, domain: str) -> list[Stored]:
    """The volumes on a storage domain that Disks refer to, or take over."""
    found = (ctx.cache.projected(STORED, key) for key in disks_of(ctx, domain))
    return [stored for stored in found if stored is not None]


def disks_with(ctx: Context, domain: str, volume: str) -> list[Disk]:
    """The disks that have a volume of this name on a storage domain, in whichever host's directory."""
    return ctx.objects.by_index(Disk, "volume", f"{domain}/{volume}")


def vms_of_disk(ctx: Context, disk: Disk) -> list[VirtualMachine]:
    """The VMs whose spec refers to a disk, by name."""
    found = ctx.objects.by_index(VirtualMachine, "disk", title(disk))
    return sorted(found, key=lambda vm: vm.metadata.name)


def holds_a_place(ctx: Context, vm: VirtualMachine) -> bool:
    """Whether a VM runs or may run somewhere, or is just being given a host."""
    placement = vm.status.placement
    placed = placement is not None and (placement.host is not None or bool(placement.candidates))
    return placed or vm.metadata.uid in ctx.reservations


def leaving_vms(ctx: Context, disk: Disk) -> list[VirtualMachine]:
    """VMs whose spec named the disk and does not any more, and that may have it open still.

    The guest has not given it up, or it takes a restart; or nobody can say, because its host cannot be asked.
    """
    referring = {vm.metadata.name for vm in vms_of_disk(ctx, disk)}
    names = [name for name in disk.status.used_by if name not in referring]
    known = (ctx.objects.get(VirtualMachine, name, disk.metadata.namespace) for name in names)
    return [vm for vm in known if vm is not None and _may_have_open(ctx, vm, disk)]


def _may_have_open(ctx: Context, vm: VirtualMachine, disk: Disk) -> bool:
    placement, volume = vm.status.placement, disk.status.volume
    if placement is None or volume is None:
        return False
    for host in {*placement.candidates, *([placement.host] if placement.host is not None else [])}:
        view = ctx.view(host)
        if view is None or view.inventory is None or not view.fresh:
            return True
        mine = view.inventory.get(vm.status.uuid or vm.metadata.uid)
        if mine is not None and mine.state != "shutoff" and volume.path in mine.opened:
            return True
    return False


def title(obj: Resource[Any, Any]) -> str:
    """The object for a message: `namespace/name`, or its name."""
    meta = obj.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def titles(keys: Iterable[Key]) -> list[str]:
    """As `title`, of objects that need not be read for it."""
    return [f"{key.namespace}/{key.name}" if key.namespace else key.name for key in keys]


def listed(every: list[str]) -> str:
    """Words for a message, ten at most, in their order."""
    rest = len(every) - _NAMED_AT_MOST
    return ", ".join(every[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")
