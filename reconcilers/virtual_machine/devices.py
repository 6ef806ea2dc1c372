"""Devices of a running VM: how they differ from what is declared, and how they are changed.

The desired state is the spec, the other one is what the host reports: which devices are in the domain, and which image
is in which drive. A call is made again until both are the same, so it does not matter where it was cut off.
"""

from __future__ import annotations

from dataclasses import replace

from crds.disk import Disk
from crds.virtual_machine import VirtualMachine
from drivers.errors import HypervisorError, Refused
from drivers.hypervisor import Hypervisor
from drivers.model import DomainObservation
from engine.keys import Key
from reconcilers.context import Context, HeldTray, Plugging
from reconcilers.objects import key_of
from reconcilers.reach import acting_host
from reconcilers.virtual_machine import plan as steps
from reconcilers.virtual_machine.needs import disk_name
from xmlgen.domain import DomainDocument, device_xml
from xmlgen.metadata import Identity, metadata_xml
from xmlgen.sections import Changes, Sections, applied, as_found, compare


def sections_of(domain: DomainObservation, document: DomainDocument) -> Sections:
    """What the running domain is made of: its stamp, corrected by the devices that are seen in it."""
    return as_found(domain.sections, document.sections, {device.alias: device.source for device in domain.devices})


def differences(ctx: Context, vm: VirtualMachine, domain: DomainObservation, document: DomainDocument) -> Changes:
    """What makes the running domain what it should be. What the host could not plug in waits for a power cycle."""
    changes = compare(sections_of(domain, document), document.sections)
    known = _plugging(ctx, vm, domain).unpluggable
    waits = tuple(alias for alias in changes.attach if known.get(alias) == device_xml(document, alias))
    attach = tuple(alias for alias in changes.attach if alias not in waits)
    return replace(changes, attach=attach, restart=(*changes.restart, *waits))


def held_trays(ctx: Context, vm: VirtualMachine, domain: DomainObservation, changes: Changes) -> dict[str, steps.Tray]:
    """The drives of which the guest holds the tray; those whose medium is no longer to be changed are forgotten."""
    known, now = _plugging(ctx, vm, domain), ctx.clock.monotonic()
    known.trays = {alias: tray for alias, tray in known.trays.items() if alias in changes.update}
    return {alias: steps.Tray(now - tray.since, now - tray.asked) for alias, tray in known.trays.items()}


def forget(ctx: Context, key: Key) -> None:
    """The VM does not run: nothing that its guest did counts any more."""
    ctx.plugging.pop(key, None)


def _plugging(ctx: Context, vm: VirtualMachine, domain: DomainObservation) -> Plugging:
    run = (vm.metadata.uid, domain.identity.epoch if domain.identity is not None else 0)
    known = ctx.plugging.get(key_of(vm))
    if known is None or known.run != run:
        known = ctx.plugging[key_of(vm)] = Plugging(run)
    return known


def lacking(ctx: Context, vm: VirtualMachine, domain: DomainObservation) -> bool:
    """Whether the running domain lacks a declared drive or card, or has another image than declared in a drive."""
    there = {device.alias: device for device in domain.devices}
    for drive in vm.spec.disks:
        device, name = there.get(f"ua-disk-{drive.name}"), disk_name(vm, drive)
        disk = ctx.objects.get(Disk, name, vm.metadata.namespace) if name is not None else None
        if device is None or (name is not None and disk is None):
            return True
        if device.source != (disk.status.path if disk is not None else None):
            return True
    return any(f"ua-nic-{nic.name}" not in there for nic in vm.spec.nics)


async def apply_changes(
    ctx: Context, vm: VirtualMachine, step: steps.Apply, domain: DomainObservation, document: DomainDocument
) -> None:
    """Plug, unplug and change devices of the running domain; then stamp what it is made of now.

    A device that the guest does not give up, or that the host refuses, stays as it is and is tried again; the rest goes
    on. Raises the first such refusal; a tray that the guest holds, and what cannot be plugged in now, are remembered.
    """
    host, changes, done = acting_host(ctx, step.host), step.changes, set[str]()
    known, problems = _plugging(ctx, vm, domain), list[HypervisorError]()
    for alias in (*changes.detach, *changes.update, *changes.attach):
        begun = ctx.clock.monotonic()
        try:
            if alias in changes.detach:
                await host.detach_device(step.uuid, alias)
            elif alias in changes.update:
                await _update(host, step, alias, document)
            else:
                await host.attach_device(step.uuid, device_xml(document, alias))
            done.add(alias)
        except HypervisorError as error:
            if error.reason == "TrayLocked":
                before = known.trays.get(alias)
                known.trays[alias] = HeldTray(before.since if before is not None else begun, ctx.clock.monotonic())
            elif error.reason == "NoHotPlug":
                known.unpluggable[alias] = device_xml(document, alias)
            else:
                ctx.event(vm, "ChangeRefused", f"{alias.removeprefix('ua-')}: {error.message}", warning=True)
                problems.append(error)
    _tell(ctx, vm, step, done)
    if done:
        stamp = applied(sections_of(domain, document), document.sections, done)
        await host.set_metadata(step.uuid, metadata_xml(identity_of(ctx, vm), stamp))
    await host.refresh(step.uuid)
    if problems:
        raise problems[0]


async def _update(host: Hypervisor, step: steps.Apply, alias: str, document: DomainDocument) -> None:
    """Change a device in place. A drive whose tray libvirt does not know is taken out and put back with its medium."""
    device = device_xml(document, alias)
    try:
        await host.update_device(step.uuid, device, force=alias in step.force)
    except Refused as error:
        if error.reason != "NoTray":
            raise
        await host.detach_device(step.uuid, alias)
        await host.attach_device(step.uuid, device)


def _tell(ctx: Context, vm: VirtualMachine, step: steps.Apply, done: set[str]) -> None:
    if done:
        ctx.event(vm, "Changed", f"changed while running: {', '.join(sorted(a.removeprefix('ua-') for a in done))}")
    for alias in sorted(step.force & done):
        message = f"drive {alias.removeprefix('ua-disk-')}: the guest held the tray, its medium was changed by force"
        ctx.event(vm, "MediumForced", message, warning=True)


def identity_of(ctx: Context, vm: VirtualMachine) -> Identity:
    """Who the VM is now, for its domain's stamp."""
    newest = ctx.objects.get(VirtualMachine, vm.metadata.name, vm.metadata.namespace) or vm
    epoch = newest.status.placement.epoch if newest.status.placement is not None else 0
    return Identity(ctx.installation, vm.metadata.namespace, vm.metadata.name, vm.metadata.uid, epoch)
