"""Starting a VM: choose a host, write the choice down, make the VM's own files, define and start the domain.

The order is the safety argument: the host is among the candidates in the API *before* anything is sent to it. A crash
at any point leaves either nothing, or a candidate whose host is looked at before anything else happens.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from crds.disk import Disk, DiskAccess
from crds.storage_domain import StorageDomain
from crds.virtual_machine import DiskType, FirmwareType, Placement, StartFailure, VirtualMachine, VMFile
from drivers.errors import AlreadyExists, ConnectFailed, HostUnavailable, HypervisorError, NotConnected
from drivers.hypervisor import Hypervisor
from drivers.model import DomainState, StopReason
from engine import errors
from placement import Decision, choose
from reconcilers import capacity
from reconcilers.context import Context, Reservation
from reconcilers.disk import growing
from reconcilers.objects import API, key_of
from reconcilers.reach import acting_host
from reconcilers.relations import holds_a_place, vms_of_disk
from reconcilers.standing import Verdict, progressing, stalled
from reconcilers.storage_domain.marker import DomainNotReachable, verify
from reconcilers.virtual_machine import act
from reconcilers.virtual_machine import files as vm_files
from reconcilers.virtual_machine.decide import START_BOUND, UNSCHEDULABLE_BOUND
from reconcilers.virtual_machine.document import (
    Files,
    domain_input,
    files_of,
    home,
    placeholders,
    placement_request,
    seed_input,
)
from reconcilers.virtual_machine.needs import Needs, disk_names, resolve
from reconcilers.virtual_machine.plan import Plan
from reconcilers.virtual_machine.power import next_failure
from xmlgen import domain as xml
from xmlgen.seed import SeedInput, decoded


@dataclass(frozen=True)
class Outcome:
    """How far the start came. `verdict` None: the domain runs."""

    verdict: Verdict | None
    retry_after: float | None = None


async def start(ctx: Context, vm: VirtualMachine, plan: Plan, only: frozenset[str] | None, epoch: int) -> Outcome:
    """Carry out the step Start. `epoch` is the highest that was seen."""
    try:
        seed = seed_input(vm, await _user_data(ctx, vm))
    except (errors.NotFound, errors.Forbidden):
        assert vm.spec.cloud_init is not None
        assert vm.spec.cloud_init.user_data_secret_ref is not None
        name = vm.spec.cloud_init.user_data_secret_ref.name
        return Outcome(
            stalled(
                "SecretNotFound", f"there is no Secret {name} with a key userData: create it, or change spec.cloudInit"
            ),
            15.0,
        )
    # While the Secret was read another VM may have taken a disk: what it needs is looked at now, and from here to the
    # promise of a place nothing is awaited.
    needs = resolve(ctx, vm)
    if needs.verdict is not None:
        return Outcome(needs.verdict, 1.0)
    assert needs.pool is not None, "needs without a problem have a pool"
    if home(needs) is None and (seed is not None or vm.spec.firmware.type is FirmwareType.UEFI):
        message = "cloud-init data and UEFI variables are kept beside the VM's first disk: give it a disk"
        return Outcome(stalled("DiskNeeded", message))

    candidates = capacity.candidates(ctx, needs.pool, ignore=vm.metadata.uid)
    decision = choose(placement_request(vm, needs, only=only), candidates, needs.pool.spec.placement)
    if decision.host is None:
        return Outcome(progressing("Unschedulable", decision.explanation, UNSCHEDULABLE_BOUND), 15.0)
    files = files_of(vm, needs, seed)
    written = await _write_down(ctx, vm, needs, plan, decision, files, epoch, only)
    waits = await _grown_meanwhile(ctx, needs) or await _taken_meanwhile(ctx, vm, needs)
    if waits is not None:
        # Of an earlier start nobody knows here whether it was sent: the place stays.
        if written.status.placement != vm.status.placement:
            await _vacate(ctx, written, decision.host, written.status.start_failure)
        return Outcome(waits, 2.0)
    return await _create(ctx, written, needs, acting_host(ctx, decision.host), files, seed)


async def _user_data(ctx: Context, vm: VirtualMachine) -> str | None:
    """The user-data of the Secret that the VM names; None where it names none. Raises NotFound."""
    data = vm.spec.cloud_init
    if data is None or data.user_data_secret_ref is None:
        return None
    secret = await ctx.client.get_secret(vm.metadata.namespace, data.user_data_secret_ref.name)
    if "userData" not in secret:
        raise errors.NotFound(404, "NotFound", "the Secret has no key userData")
    return decoded(secret["userData"])


async def _write_down(
    ctx: Context,
    vm: VirtualMachine,
    needs: Needs,
    plan: Plan,
    decision: Decision,
    files: Files,
    epoch: int,
    only: frozenset[str] | None,
) -> VirtualMachine:
    """Make the chosen host a candidate, before anything is sent to it. Returns the VM as it is then.

    A start that was interrupted goes on under its own epoch: it is the same decision.
    """
    assert decision.host is not None
    before = vm.status.placement
    resumed = only is not None and before is not None and before.host == decision.host and before.epoch >= epoch
    fields = dict(plan.fields)
    if not resumed:
        candidates = sorted({decision.host, *(before.candidates if before is not None and only is not None else ())})
        fields["placement"] = Placement(
            host=decision.host, epoch=epoch + 1, since=ctx.clock.now(), candidates=candidates
        )
    if vm.status.uuid is None:
        fields["uuid"] = vm.metadata.uid
    records = _merged(vm.status.files, files.records)
    if records != vm.status.files:
        fields["files"] = records
    if not fields:
        return vm
    request = placement_request(vm, needs, only=only)
    ctx.reservations[vm.metadata.uid] = Reservation(decision.host, request.cpus, request.memory)
    try:
        await ctx.compare_and_set(vm, fields)
    finally:
        del ctx.reservations[vm.metadata.uid]
    act.announce_failure(ctx, vm, fields)
    newest = ctx.objects.get(VirtualMachine, vm.metadata.name, vm.metadata.namespace)
    if newest is None or newest.metadata.uid != vm.metadata.uid:
        raise errors.Conflict(409, "Conflict", f"{key_of(vm)} has changed meanwhile")
    return newest


def _merged(known: list[VMFile], wanted: tuple[VMFile, ...]) -> list[VMFile]:
    return [*known, *(f for f in wanted if f not in known)]


async def _grown_meanwhile(ctx: Context, needs: Needs) -> Verdict | None:
    """A disk that another controller makes larger through its pool, as the API server knows it now.

    That one looks for places after it has written down that it grows the disk, this one the other way round: one of the
    two sees the other.
    """
    disks = [d.disk for d in needs.drives if d.disk is not None and growing.may_grow(d.disk)]
    newest = (ctx.client.get(API["Disk"], disk.metadata.namespace, disk.metadata.name) for disk in disks)
    for known, obj in zip(disks, await asyncio.gather(*newest), strict=True):
        found = Disk.parse(obj)
        if found.status.volume is not None and found.status.volume.grows_on is not None:
            message = f"disk {known.metadata.name}: host {found.status.volume.grows_on} makes it larger"
            return progressing("DisksNotReady", message, START_BOUND)
    return None


async def _taken_meanwhile(ctx: Context, vm: VirtualMachine, needs: Needs) -> Verdict | None:
    """A disk for one VM at a time that another VM has a place with, as the API server knows it now.

    Each of two controllers gives its own VM a place and then looks: one of the two sees the other.
    """
    disks = [d.disk for d in needs.drives if d.disk is not None and d.spec.type is DiskType.DISK]
    alone = (disk for disk in disks if disk.spec.access is DiskAccess.EXCLUSIVE)
    contested = {disk.metadata.name for disk in alone if len(vms_of_disk(ctx, disk)) > 1}
    if not contested:
        return None
    found, _ = await ctx.client.list(API["VirtualMachine"], vm.metadata.namespace)
    for other in map(VirtualMachine.parse, found):
        shared = sorted(contested.intersection(disk_names(other)))
        if shared and other.metadata.uid != vm.metadata.uid and holds_a_place(ctx, other):
            message = f"disk {shared[0]} is in use by VirtualMachine {other.metadata.name}, which got it first"
            return progressing("DiskInUse", message, START_BOUND)
    return None


async def _is_still_meant(ctx: Context, vm: VirtualMachine) -> bool:
    """Whether the VM is to run at its place still, as the API server knows it now: who comes to this call late, or
    stood still before the one before it, must not start what was decided to be elsewhere meanwhile.
    """
    try:
        obj = await ctx.client.get(API["VirtualMachine"], vm.metadata.namespace, vm.metadata.name)
    except errors.NotFound:
        return False
    found = VirtualMachine.parse(obj)
    now, then = found.status.placement, vm.status.placement
    same = now is not None and then is not None and (now.host, now.epoch) == (then.host, then.epoch)
    return same and found.metadata.uid == vm.metadata.uid and not found.metadata.deleting


async def _vacate(ctx: Context, vm: VirtualMachine, host: str, failure: StartFailure | None) -> None:
    """Give the place on that host up: the VM is known not to run there."""
    assert vm.status.placement is not None
    left = sorted(set(vm.status.placement.candidates) - {host})
    vacated = vm.status.placement.model_copy(update={"host": None, "candidates": left, "since": ctx.clock.now()})
    await ctx.compare_and_set(vm, {"placement": vacated, "startFailure": failure})


async def _create(
    ctx: Context, vm: VirtualMachine, needs: Needs, host: Hypervisor, files: Files, seed: SeedInput | None
) -> Outcome:
    """Everything that is sent to the host. Each call may have been made before."""
    placement, uuid, facts = vm.status.placement, vm.status.uuid, host.view().facts
    assert placement is not None and uuid is not None, "written down just before"
    if facts is None:
        return Outcome(_waiting(host.name, "it is not connected"), 2.0)
    try:
        for name in sorted(needs.storage_domains):
            domain = ctx.objects.get(StorageDomain, name)
            if domain is not None:
                await verify(ctx, domain, host)
        if seed is not None and files.seed is not None:
            await vm_files.ensure_seed(ctx, vm, needs, host, files.seed, seed)
        document = xml.generate(domain_input(ctx, vm, needs, files, epoch=placement.epoch, uuid=uuid))
        await _forget_end(host, uuid)
        await host.define(xml.render(document, placeholders(facts, needs)))
        if not await _is_still_meant(ctx, vm):
            await host.undefine(uuid)
            raise errors.Conflict(409, "Conflict", f"{key_of(vm)} was given another place, or none, meanwhile")
        await host.start(uuid)
        await host.refresh(uuid)
    except (HostUnavailable, ConnectFailed) as error:
        # Nobody knows whether it runs: the host stays a candidate, and is looked at before anything else happens.
        return Outcome(_waiting(host.name, error.message), None if isinstance(error, NotConnected) else 2.0)
    except DomainNotReachable as error:
        await _refused(ctx, vm, host, f"{error.reason}: {error.message}", count=False)
        return Outcome(stalled(error.reason, error.message), 15.0)
    except HypervisorError as error:
        failure = await _refused(ctx, vm, host, error.message, count=True)
        return Outcome(_refusal(error, host.name, failure), _seconds_until(failure, ctx.clock.now()))
    ctx.event(vm, "Started", f"started on host {host.name}")
    return Outcome(None)


async def _forget_end(host: Hypervisor, uuid: str) -> None:
    """Remove what an earlier run has left defined, if it is known how that ended.

    A definition that is replaced keeps its old reason, and a start whose answer is lost would look like a run that has
    ended already: nobody would wait for it before a start elsewhere.
    """
    inventory = host.view().inventory
    known = inventory.get(uuid) if inventory is not None else None
    if known is not None and known.state is DomainState.SHUT_OFF and known.stop_reason is not StopReason.UNKNOWN:
        await host.undefine(uuid)
        await host.refresh(uuid)


def _waiting(host: str, why: str) -> Verdict:
    return progressing("Starting", f"waits for host {host}: {why}", START_BOUND)


def _refusal(error: HypervisorError, host: str, failure: StartFailure | None) -> Verdict:
    count = failure.count if failure is not None else 1
    message = f"host {host} refused to start the VM ({count} times): {error.message}"
    if isinstance(error, AlreadyExists):
        return stalled("NameTaken", f"{message}. A domain of this name that is not ours is there: remove or rename it")
    return stalled(error.reason if error.reason != "OperationFailed" else "StartFailed", message)


def _seconds_until(failure: StartFailure | None, now: datetime) -> float:
    return max(1.0, (failure.next_at - now).total_seconds()) if failure is not None else 15.0


async def _refused(
    ctx: Context, vm: VirtualMachine, host: Hypervisor, message: str, *, count: bool
) -> StartFailure | None:
    """The host said no: make sure of it, undo the definition, and free the candidate. Returns the failures so far.

    The host's answer and its fresh word that the domain is off are the fact that frees it. When the host cannot be
    asked any more it stays a candidate.
    """
    assert vm.status.uuid is not None
    assert vm.status.placement is not None
    failure = next_failure(vm.status.start_failure, message, ctx.clock.now()) if count else vm.status.start_failure
    ctx.event(vm, "StartFailed", f"on host {host.name}: {message}", warning=True)
    try:
        await host.undefine(vm.status.uuid)
        await host.refresh(vm.status.uuid)
    except HypervisorError:
        # It runs after all, or cannot be asked: the next pass looks.
        return failure
    await _vacate(ctx, vm, host.name, failure)
    return failure
