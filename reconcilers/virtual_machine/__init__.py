"""VirtualMachine: from what is declared to a running guest, and back.

`reconcile` reads top to bottom: fetch, observe, decide, act, status. What it did is observed on the next pass, which it
asks for itself; it never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from crds.base import FINALIZER
from crds.host import Host, HostPhase
from crds.storage_domain import StorageDomain
from crds.virtual_machine import VirtualMachine, VMPhase
from drivers.errors import HostUnavailable, HypervisorError
from drivers.model import ConnectionState, ConnectionView, DomainObservation
from engine import errors
from engine.keys import Key
from engine.result import Done, Failed, FailureKind, RequeueAfter, Result
from reconcilers.context import Context
from reconcilers.holding import hold
from reconcilers.objects import key_of
from reconcilers.ownership import Claim, HostFact, MayStart, Ownership, RunsOn, ownership
from reconcilers.standing import Standing, Verdict, progressing, seconds_left
from reconcilers.virtual_machine import act, decide, devices, disks
from reconcilers.virtual_machine import plan as steps
from reconcilers.virtual_machine.document import domain_input, files_of, seed_input
from reconcilers.virtual_machine.needs import Needs, resolve
from reconcilers.virtual_machine.plan import Observed, Plan
from reconcilers.virtual_machine.start import Outcome, start
from reconcilers.virtual_machine.status import status_of
from xmlgen import domain as xml
from xmlgen.sections import Changes
from xmlgen.seed import decoded

STEPS_IN_ONE_PASS = 4
"""A step's effect is often known at once; then the next one follows without a round through the queue."""


@dataclass(frozen=True)
class Seen:
    """Everything that one pass goes by."""

    vm: VirtualMachine
    needs: Needs
    facts: tuple[HostFact, ...]
    ownership: Ownership
    document: xml.DomainDocument | None
    observed: Observed

    @property
    def domain(self) -> DomainObservation | None:
        """The VM's domain, where it is active and its host can be asked."""
        answer = self.ownership.answer
        return answer.domain if isinstance(answer, RunsOn) and answer.fresh else None


async def reconcile(ctx: Context, key: Key) -> Result:
    """Bring one VM closer to what is declared."""
    result: Result = Done()
    for _ in range(STEPS_IN_ONE_PASS):
        vm = ctx.objects.get(VirtualMachine, key.name, key.namespace)
        if vm is None or (vm.metadata.deleting and FINALIZER not in vm.metadata.finalizers):
            ctx.shutdown_asked.pop(key, None)
            devices.forget(ctx, key)
            return Done()
        vm = await hold(ctx, vm)
        if not vm.metadata.deleting and vm.metadata.paused_by is None:
            await disks.ensure(ctx, vm)
        seen = await observe(ctx, vm)
        plan = decide.decide(vm, seen.observed)
        result, more = await _carry_out(ctx, seen, plan)
        if not more:
            return result
    return RequeueAfter(0.0, "more steps") if isinstance(result, Done) else result


async def observe(ctx: Context, vm: VirtualMachine) -> Seen:
    """What is declared, what it needs, and what all hosts say of the VM."""
    needs = resolve(ctx, vm)
    uuid = vm.status.uuid or vm.metadata.uid
    seen_on = _seen_on(ctx, vm, uuid)
    candidates = _candidates(ctx, vm, needs, seen_on)
    facts = tuple(_fact(ctx, vm, uuid, name, view) for name, view in _machines(ctx, candidates | seen_on, candidates))
    claim = Claim(
        installation=ctx.installation,
        namespace=vm.metadata.namespace,
        name=vm.metadata.name,
        uuid=uuid,
        epoch=vm.status.placement.epoch if vm.status.placement is not None else 0,
        candidates=candidates,
    )
    owned = ownership(claim, facts)
    document: xml.DomainDocument | None = None
    changes: Changes | None = None
    trays: dict[str, steps.Tray] = {}
    if isinstance(owned.answer, RunsOn) and needs.verdict is None:
        document = await _document(ctx, vm, needs, owned)
    if isinstance(owned.answer, RunsOn) and document is not None:
        changes = devices.differences(ctx, vm, owned.answer.domain, document)
        trays = devices.held_trays(ctx, vm, owned.answer.domain, changes)
    if isinstance(owned.answer, MayStart):
        ctx.shutdown_asked.pop(key_of(vm), None)
        devices.forget(ctx, key_of(vm))
    observed = Observed(
        now=ctx.clock.now(),
        ownership=owned,
        lost=_lost(ctx, claim.candidates.union(fact.host for fact in facts if fact.domain is not None)),
        needs=needs.verdict,
        lacking=isinstance(owned.answer, RunsOn) and devices.lacking(ctx, vm, owned.answer.domain),
        changes=changes,
        trays=trays,
        running_since=_running_since(vm),
        last_shutdown=_since_shutdown(ctx, vm),
    )
    return Seen(vm, needs, facts, owned, document, observed)


def _seen_on(ctx: Context, vm: VirtualMachine, uuid: str) -> frozenset[str]:
    """Hosts that list a domain with the VM's UUID, or one that is stamped with its name."""
    stamped = ctx.sightings.of_object(ctx.installation, vm.metadata.namespace, vm.metadata.name)
    return frozenset(ctx.sightings.of_domain(uuid) | stamped)


def _candidates(ctx: Context, vm: VirtualMachine, needs: Needs, seen_on: frozenset[str]) -> frozenset[str]:
    """Hosts that may hold the VM.

    One that has no placement was never started, or the API was set back to before it was. So every host of its pool
    that is about to be heard is heard first; and where its disks have a past, every host that reaches them. One that
    is heard may hold it if it lists it. A host that fell silent has been heard: what it holds is known from before.
    """
    if vm.status.placement is not None:
        host = vm.status.placement.host
        return frozenset([*vm.status.placement.candidates, *([host] if host is not None else [])])
    pools: set[str] = set()
    if needs.taken_over:
        domains = [ctx.objects.get(StorageDomain, name) for name in needs.storage_domains]
        pools = {pool for domain in domains if domain is not None for pool in domain.spec.pools}
    names = {key.name for pool in (vm.spec.pool, *pools) for key in ctx.cache.keys_by_index("Host", "pool", pool)}
    unheard = [ctx.objects.get(Host, name) for name in names if not _is_fresh(ctx, name)]
    awaited = (
        host.metadata.name
        for host in unheard
        if host is not None and (host.spec.pool in pools or _comes(host, ctx.view(host.metadata.name)))
    )
    return frozenset([*awaited, *(name for name in seen_on if _is_fresh(ctx, name))])


def _is_fresh(ctx: Context, host: str) -> bool:
    known = ctx.host(host)
    return known is not None and known.fresh


def _comes(host: Host, view: ConnectionView | None) -> bool:
    """Whether what a host holds is known, or about to be: it is neither lost nor has it fallen silent."""
    silent = view is not None and view.state is ConnectionState.SUSPECT and view.inventory is not None
    return not silent and not _is_lost(host)


def _machines(ctx: Context, hosts: frozenset[str], candidates: frozenset[str]) -> list[tuple[str, ConnectionView]]:
    """What is observed of these hosts, each machine once.

    Of two Hosts that are the same machine one would tell of the other's domain, a moment later: as of an older copy. So
    for one whose list is not fresh another Host of that machine may speak.
    """
    views = {name: view for name in hosts if (view := ctx.view(name)) is not None}
    stale = {view.facts.uuid for view in views.values() if view.facts is not None and not view.fresh}
    if stale:
        others = ((name, ctx.view(name)) for name in ctx.hosts.names() if name not in views)
        views |= {name: view for name, view in others if view and view.facts and view.facts.uuid in stale}
    found: dict[str, str] = {}
    for name in sorted(views, key=lambda name: (name not in candidates, name)):
        facts = views[name].facts
        uuid = facts.uuid if facts is not None else name
        if uuid not in found or (views[name].fresh and not views[found[uuid]].fresh):
            found[uuid] = name
    return [(name, views[name]) for name in sorted(found.values())]


def _fact(ctx: Context, vm: VirtualMachine, uuid: str, host: str, view: ConnectionView) -> HostFact:
    """The domain with the VM's UUID; else one that is stamped with its name, from before its object was made again."""
    if view.inventory is None:
        return HostFact(host, fresh=False, domain=None)
    found = view.inventory.get(uuid)
    if found is None:
        stamped = view.inventory.stamped(ctx.installation, vm.metadata.namespace, vm.metadata.name)
        found = next(iter(stamped), None)
    return HostFact(host, view.fresh, found)


async def _document(ctx: Context, vm: VirtualMachine, needs: Needs, owned: Ownership) -> xml.DomainDocument | None:
    """What the running domain should be made of; None while its user-data cannot be read."""
    assert isinstance(owned.answer, RunsOn)
    data = vm.spec.cloud_init
    user_data = None
    if data is not None and data.user_data_secret_ref is not None:
        try:
            user_data = await _known_user_data(ctx, vm, data.user_data_secret_ref.name)
        except (errors.NotFound, errors.Forbidden):
            return None
    files = files_of(vm, needs, seed_input(vm, user_data))
    return xml.generate(domain_input(ctx, vm, needs, files, epoch=owned.epoch, uuid=owned.answer.domain.uuid))


async def _known_user_data(ctx: Context, vm: VirtualMachine, secret: str) -> str:
    """The Secret's user-data as it was when the VM's spec was last looked at: a settled VM asks nothing of the API."""
    known = ctx.user_data.get(vm.metadata.uid)
    mark = (secret, vm.metadata.generation)
    if known is None or known[0] != mark:
        data = await ctx.client.get_secret(vm.metadata.namespace, secret)
        known = (mark, decoded(data.get("userData", b"")))
        ctx.user_data[vm.metadata.uid] = known
    return known[1]


def _lost(ctx: Context, hosts: frozenset[str]) -> frozenset[str]:
    """Those of the hosts that count as lost: their Host says so, or there is no such Host any more."""
    found = {name: ctx.objects.get(Host, name) for name in hosts}
    return frozenset(name for name, host in found.items() if host is None or _is_lost(host))


def _is_lost(host: Host) -> bool:
    stalled = host.status.condition("Stalled")
    return host.status.phase is HostPhase.NON_RESPONSIVE or (stalled is not None and stalled.status == "True")


def _running_since(vm: VirtualMachine) -> datetime | None:
    """When it began to run: a restart within one pass enters no phase anew, but has a placement of its own."""
    entered = next((t.at for t in vm.status.phase_transition_timestamps if t.phase is VMPhase.RUNNING), None)
    placed = vm.status.placement.since if vm.status.placement is not None else None
    return max((entered, placed), default=None) if entered is not None and placed is not None else entered


def _since_shutdown(ctx: Context, vm: VirtualMachine) -> float | None:
    asked = ctx.shutdown_asked.get(key_of(vm))
    return None if asked is None else ctx.clock.monotonic() - asked


async def _carry_out(ctx: Context, seen: Seen, plan: Plan) -> tuple[Result, bool]:
    """Write down the plan's facts, take its step, write the status. The second value: whether to look again at once."""
    vm = seen.vm
    outcome: Outcome | None = None
    if not isinstance(plan.step, steps.Start) and plan.fields:
        await ctx.compare_and_set(vm, plan.fields)
        act.announce_failure(ctx, vm, plan.fields)
    try:
        if isinstance(plan.step, steps.Start):
            outcome = await start(ctx, vm, plan, plan.step.only, seen.ownership.epoch)
            if outcome.verdict is None:
                return Done(), True
        elif isinstance(plan.step, steps.Release):
            waits = await act.release(ctx, vm, plan.step, seen.facts)
            if waits is None:
                return Done(), False
            outcome = Outcome(progressing("Deleting", waits, 120.0), 15.0)
        elif not isinstance(plan.step, steps.Nothing):
            await _step(ctx, seen, plan.step)
            return Done(), True
    except HostUnavailable as error:
        await _write(ctx, seen, plan, _held_up(plan, error))
        return Failed(FailureKind.WAIT_FOR_HOST, error.message, 5.0), False
    except HypervisorError as error:
        await _write(ctx, seen, plan, _held_up(plan, error))
        return Failed(FailureKind.RETRY_SOON, error.message), False
    verdict = outcome.verdict if outcome is not None else plan.verdict
    await _write(ctx, seen, plan, verdict)
    return _when(ctx, seen, plan, verdict, outcome), False


def _held_up(plan: Plan, error: HypervisorError) -> Verdict | None:
    """How the VM stands after a step that failed: with a change of its devices to come it is not yet as declared."""
    if not isinstance(plan.step, steps.Apply) or plan.verdict is None or plan.verdict.standing is not Standing.READY:
        return plan.verdict
    return progressing("ChangeRefused", f"a change of its devices is tried again: {error.message}", decide.CHANGE_BOUND)


async def _step(ctx: Context, seen: Seen, step: steps.OneCall) -> None:
    vm = seen.vm
    match step:
        case steps.Shutdown():
            ctx.shutdown_asked[key_of(vm)] = ctx.clock.monotonic()
            await act.shutdown(ctx, vm, step)
        case steps.Destroy():
            await act.destroy(ctx, vm, step, seen.facts)
        case steps.Undefine(hosts=hosts):
            await act.undefine(ctx, hosts, seen.facts)
            if isinstance(seen.ownership.answer, MayStart):
                await disks.tidy(ctx, vm, seen.needs)
        case steps.Act():
            await act.power_action(ctx, vm, step)
        case steps.Apply():
            assert seen.document is not None
            assert seen.domain is not None
            await devices.apply_changes(ctx, vm, step, seen.domain, seen.document)
        case steps.Stamp():
            assert seen.domain is not None
            await act.stamp(ctx, vm, step, seen.domain)
        case _:
            assert_never(step)


async def _write(ctx: Context, seen: Seen, plan: Plan, verdict: Verdict | None) -> None:
    """Write the status of the newest object. Without a verdict nothing new is known, and nothing is written."""
    vm = ctx.objects.get(VirtualMachine, seen.vm.metadata.name, seen.vm.metadata.namespace)
    if verdict is None or vm is None or vm.metadata.uid != seen.vm.metadata.uid:
        return
    if verdict.standing is Standing.READY:
        verdict = disks.refused(ctx, vm) or verdict
    phase = plan.phase
    if isinstance(plan.step, steps.Start) and verdict.reason == "Unschedulable":
        phase = VMPhase.SCHEDULING
    act.announce(ctx, vm, phase, verdict)
    changes: Changes | None = seen.observed.changes
    if isinstance(seen.ownership.answer, MayStart):
        changes = Changes()
    await ctx.write_status(vm, status_of(vm, verdict, phase, seen.needs, seen.domain, changes, ctx.clock.now()))


def _when(ctx: Context, seen: Seen, plan: Plan, verdict: Verdict | None, outcome: Outcome | None) -> Result:
    """When to look again, if nothing wakes us before."""
    times = [plan.again, outcome.retry_after if outcome is not None else None]
    vm = ctx.objects.get(VirtualMachine, seen.vm.metadata.name, seen.vm.metadata.namespace)
    if verdict is not None and vm is not None:
        left = seconds_left(vm, verdict, ctx.clock.now())
        times.append(left + 1.0 if left else None)
    if vm is not None and vm.status.start_failure is not None and seen.observed.running_since is not None:
        times.append(decide.STABLE_CHECK)
    given = [t for t in times if t is not None]
    if not given:
        return Done()
    return RequeueAfter(max(0.05, min(given)), verdict.reason if verdict is not None else "the host is silent")
