"""Carrying out the steps of a plan, but for Start, which has a module of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from crds.disk import Disk
from crds.virtual_machine import PowerAction, PowerRequestPhase, VirtualMachine, VMPhase
from drivers.errors import Refused
from drivers.hypervisor import Hypervisor
from drivers.model import DomainObservation
from engine.keys import Key
from reconcilers.context import FIELD_MANAGER, Context
from reconcilers.holding import let_go
from reconcilers.objects import API, key_of
from reconcilers.ownership import HostFact
from reconcilers.reach import acting_host
from reconcilers.standing import Verdict
from reconcilers.virtual_machine import plan as steps
from reconcilers.virtual_machine.devices import identity_of
from reconcilers.virtual_machine.files import opened_by, remove_files
from reconcilers.virtual_machine.power import refused, succeeded
from reconcilers.wiring import vm_disks
from xmlgen.metadata import metadata_xml


def announce(ctx: Context, vm: VirtualMachine, phase: VMPhase | None, verdict: Verdict) -> None:
    """Tell of an end: what differs from the status as it is written down, before the new one is."""
    if phase is vm.status.phase:
        return
    if phase is VMPhase.CRASHED and verdict.reason == "Crashed":
        ctx.event(vm, "Crashed", verdict.message, warning=True)
    elif phase is VMPhase.STOPPED and vm.status.phase is not None and not vm.metadata.deleting:
        ctx.event(vm, "Stopped", verdict.message or "the VM is off")


def announce_failure(ctx: Context, vm: VirtualMachine, fields: Mapping[str, Any]) -> None:
    """Tell of an end that nobody asked for, when it has been counted: the VM may be started again at once."""
    failure = fields.get("startFailure")
    if failure is not None and failure != vm.status.start_failure:
        ctx.event(vm, "Ended", failure.message, warning=True)


async def shutdown(ctx: Context, vm: VirtualMachine, step: steps.Shutdown) -> None:
    """Ask the guest to power off; a guest that ended meanwhile is no error."""
    ctx.event(vm, "ShuttingDown", f"the guest on host {step.host} is asked to shut down")
    await acting_host(ctx, step.host).shutdown(step.uuid)


async def destroy(ctx: Context, vm: VirtualMachine, step: steps.Destroy, facts: tuple[HostFact, ...]) -> None:
    """Cut the power of the VM's domains on these hosts."""
    for fact in facts:
        if fact.host in step.hosts and fact.domain is not None:
            ctx.event(vm, "PoweredOff", f"its power is cut on host {fact.host}", warning=True)
            host = acting_host(ctx, fact.host)
            await host.destroy(fact.domain.uuid)
            await host.refresh(fact.domain.uuid)


async def undefine(ctx: Context, hosts: tuple[str, ...], facts: tuple[HostFact, ...], *, nvram: bool = False) -> None:
    """Remove the definitions of a VM that is off."""
    for fact in facts:
        if fact.host in hosts and fact.domain is not None:
            host = acting_host(ctx, fact.host)
            await host.undefine(fact.domain.uuid, remove_nvram=nvram)
            await host.refresh(fact.domain.uuid)


async def power_action(ctx: Context, vm: VirtualMachine, step: steps.Act) -> None:
    """Do what was asked of the running guest, once; then say so, also where the host refused.

    Without a request under way it is our own resume of a paused guest that shall shut down.
    """
    try:
        host = acting_host(ctx, step.host)
        await _press(host, step.uuid, step.action)
    except Refused as error:
        if await _answered(ctx, vm, step, f"host {step.host} refused: {error.message}"):
            return
        raise
    await host.refresh(step.uuid)
    await _answered(ctx, vm, step, None)


async def _press(host: Hypervisor, uuid: str, action: PowerAction) -> None:
    match action:
        case PowerAction.REBOOT:
            await host.reboot(uuid)
        case PowerAction.RESET:
            await host.reset(uuid)
        case PowerAction.PAUSE:
            await host.suspend(uuid)
        case PowerAction.RESUME:
            await host.resume(uuid)
        case PowerAction.START | PowerAction.SHUTDOWN | PowerAction.FORCE_OFF:
            raise AssertionError(f"{action} is a matter of status.power, not of a running guest")
        case _:
            assert_never(action)


async def _answered(ctx: Context, vm: VirtualMachine, step: steps.Act, refusal: str | None) -> bool:
    """Write the end of the request under way; False when the step was not asked for by one."""
    newest = ctx.objects.get(VirtualMachine, vm.metadata.name, vm.metadata.namespace)
    if newest is None or newest.status.power_request is None or newest.spec.power_request is None:
        return False
    request = newest.status.power_request
    if newest.spec.power_request.action is not step.action or request.phase is not PowerRequestPhase.RUNNING:
        return False
    now = ctx.clock.now()
    ended = succeeded(request, now) if refusal is None else refused(request, refusal, now)
    await ctx.compare_and_set(newest, {"powerRequest": ended})
    return True


async def stamp(ctx: Context, vm: VirtualMachine, step: steps.Stamp, domain: DomainObservation) -> None:
    """Write who the VM is now into its domain; before that into its status which files the domain was given.

    Afterwards nothing tells any more that they, named after another uid, are this VM's.
    """
    host = acting_host(ctx, step.host)
    newest = ctx.objects.get(VirtualMachine, vm.metadata.name, vm.metadata.namespace) or vm
    opened = [file for file in opened_by(ctx, newest, domain, step.host) if file not in newest.status.files]
    if opened:
        await ctx.compare_and_set(newest, {"files": [*newest.status.files, *opened]})
    await host.set_metadata(step.uuid, metadata_xml(identity_of(ctx, vm), domain.sections))
    await host.refresh(step.uuid)
    ctx.event(vm, "Bound", f"bound to the domain that was found on host {step.host}")


async def release(ctx: Context, vm: VirtualMachine, step: steps.Release, facts: tuple[HostFact, ...]) -> str | None:
    """Remove what is left of the VM, then let the object go. Returns what it waits for, or None when it is gone."""
    if not step.orphan:
        await undefine(ctx, step.hosts, facts, nvram=True)
        waits = await remove_files(ctx, vm, vm.status.files)
        if waits is not None:
            return waits
    else:
        await _keep_disks(ctx, vm)
    await let_go(ctx, vm)
    return None


async def _keep_disks(ctx: Context, vm: VirtualMachine) -> None:
    """A domain that is left as it is keeps its disks: they are no longer deleted with the VM.

    From then on it is with them as with any volume that lay there before: a host that cannot be asked may use it.
    """
    declared = ctx.cache.get(key_of(vm))
    for name in vm_disks(declared) if declared is not None else []:
        disk = ctx.objects.get(Disk, name, vm.metadata.namespace)
        if disk is not None and disk.status.volume is not None and not disk.status.volume.taken_over:
            unknown_history = disk.status.volume.model_copy(update={"taken_over": True})
            await ctx.compare_and_set(disk, {"volume": unknown_history})
    for raw in ctx.cache.list("Disk", vm.metadata.namespace):
        owners = raw["metadata"].get("ownerReferences") or []
        left = [o for o in owners if o["uid"] != vm.metadata.uid]
        if len(left) == len(owners):
            continue
        ops = [{"op": "replace", "path": "/metadata/ownerReferences", "value": left}]
        answer = await ctx.client.patch_metadata(
            API["Disk"],
            Key.of(raw),
            ops,
            resource_version=raw["metadata"]["resourceVersion"],
            manager=FIELD_MANAGER,
        )
        ctx.cache.upsert(answer)
