"""Disks that a VM makes from the templates of its drives, and what it leaves tidy when it is off."""

from __future__ import annotations

from typing import Any

from crds.base import API_VERSION, FINALIZER
from crds.disk import Disk
from crds.quantity import to_bytes
from crds.virtual_machine import VirtualMachine, VMDisk
from engine import errors
from reconcilers.context import FIELD_MANAGER, Context
from reconcilers.objects import API, key_of
from reconcilers.standing import Verdict, stalled
from reconcilers.virtual_machine.document import files_of, seed_input
from reconcilers.virtual_machine.files import remove_files
from reconcilers.virtual_machine.needs import Needs, disk_name, template_growth


async def ensure(ctx: Context, vm: VirtualMachine) -> None:
    """Make the Disks of the VM's templates that are not there, and let those grow that are declared larger."""
    for drive in vm.spec.disks:
        name = disk_name(vm, drive)
        if drive.template is None or name is None:
            continue
        disk = ctx.objects.get(Disk, name, vm.metadata.namespace)
        if disk is None:
            await _create(ctx, vm, drive, name)
        elif _owned(disk, vm) and _follows(drive, disk):
            await _update(ctx, drive, disk)


def refused(ctx: Context, vm: VirtualMachine) -> Verdict | None:
    """What the templates of the VM's drives ask of its Disks and cannot have; it stops nothing. None: nothing."""
    found = []
    for drive in vm.spec.disks:
        name = disk_name(vm, drive)
        disk = ctx.objects.get(Disk, name, vm.metadata.namespace) if name is not None else None
        if drive.template is None or disk is None or not _owned(disk, vm):
            continue
        if to_bytes(drive.template.size) < to_bytes(disk.spec.size):
            found.append(
                f"drive {drive.name}: a disk cannot shrink, and Disk {name} has {disk.spec.size}: set the drive's "
                f"template.size, now {drive.template.size}, to {disk.spec.size} or more"
            )
    return stalled("CannotShrink", "; ".join(found)[:1024]) if found else None


def _owned(disk: Disk, vm: VirtualMachine) -> bool:
    return any(owner.uid == vm.metadata.uid for owner in disk.metadata.owner_references)


async def _create(ctx: Context, vm: VirtualMachine, drive: VMDisk, name: str) -> None:
    assert drive.template is not None
    body: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Disk",
        "metadata": {
            "name": name,
            "namespace": vm.metadata.namespace,
            "finalizers": [FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "VirtualMachine",
                    "name": vm.metadata.name,
                    "uid": vm.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": drive.template.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True),
    }
    try:
        ctx.cache.upsert(await ctx.client.create(API["Disk"], body, manager=FIELD_MANAGER))
    except errors.AlreadyExists:
        # Somebody else's, or ours from before a restart: the watch brings it, and the next pass sees which.
        return


# What may change in a Disk may change in its template too.
_FOLLOWED = ("discard", "deletionPolicy")


def _follows(drive: VMDisk, disk: Disk) -> bool:
    if drive.template is None or disk.metadata.deleting:
        return False
    wanted, there = drive.template.to_dict(), disk.spec.to_dict()
    return template_growth(drive, disk) or any(wanted.get(name) != there.get(name) for name in _FOLLOWED)


async def _update(ctx: Context, drive: VMDisk, disk: Disk) -> None:
    assert drive.template is not None
    wanted, there = drive.template.to_dict(), disk.spec.to_dict()
    raw = ctx.cache.get(key_of(disk))
    stored = dict(raw["spec"]) if raw is not None else {}
    ops: list[dict[str, Any]] = []
    for name in _FOLLOWED:
        if wanted.get(name) == there.get(name):
            continue
        if wanted.get(name) is not None:
            ops.append({"op": "add", "path": f"/spec/{name}", "value": wanted[name]})
        elif name in stored:
            ops.append({"op": "remove", "path": f"/spec/{name}"})
    if template_growth(drive, disk):
        ops.append({"op": "replace", "path": "/spec/size", "value": drive.template.size})
    answer = await ctx.client.patch_metadata(
        API["Disk"], key_of(disk), ops, resource_version=disk.metadata.resource_version, manager=FIELD_MANAGER
    )
    ctx.cache.upsert(answer)


async def tidy(ctx: Context, vm: VirtualMachine, needs: Needs) -> None:
    """Remove seeds that the VM, which is off, does not use any more. What cannot be removed now is tried next time."""
    newest = ctx.objects.get(VirtualMachine, vm.metadata.name, vm.metadata.namespace)
    if newest is None or needs.verdict is not None or not newest.status.files:
        return
    if newest.spec.cloud_init is not None and newest.spec.cloud_init.user_data_secret_ref is not None:
        return
    wanted = files_of(newest, needs, seed_input(newest, None)).records
    unused = [file for file in newest.status.files if file not in wanted and file.name.endswith(".seed.iso")]
    if unused and await remove_files(ctx, newest, unused) is None:
        left = [file for file in newest.status.files if file not in unused]
        await ctx.compare_and_set(newest, {"files": left})
