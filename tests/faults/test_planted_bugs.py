"""The bed can fail: each of these bugs, planted into the product, turns a campaign or a story red."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from engine.keys import Key
from engine.kube import KubeClient
from engine.result import RequeueAfter, Result
from reconcilers import virtual_machine
from reconcilers.disk import begun, growing, place, provision, record, removal
from reconcilers.holding import let_go
from reconcilers.ownership import MayStart
from reconcilers.registry import RECONCILERS
from reconcilers.storage_domain import trash
from reconcilers.virtual_machine import act, devices
from reconcilers.virtual_machine.plan import Nothing
from simulator.findings import Campaign
from simulator.flows import FLOWS
from simulator.points import find
from tests.faults import frozen_stories, stories
from tests.faults.played import Story, problems_of

# The packages have functions of the same names, which hide these modules from an import.
start = importlib.import_module("reconcilers.virtual_machine.start")
decide = importlib.import_module("reconcilers.disk.decide")
vm_decide = importlib.import_module("reconcilers.virtual_machine.decide")

Patch = Callable[[pytest.MonkeyPatch], None]
SEEDS = range(6)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody reads the log of a campaign."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def candidates_written_after_the_send(patch: pytest.MonkeyPatch) -> None:
    write_down, create = start._write_down, start._create
    held: dict[str, Any] = {}

    async def later(ctx: Any, vm: Any, needs: Any, plan: Any, decision: Any, files: Any, epoch: int, only: Any) -> Any:
        held[vm.metadata.uid] = (ctx, vm, needs, plan, decision, files, epoch, only)
        place = start.Placement(host=decision.host, epoch=epoch + 1, since=ctx.clock.now(), candidates=[decision.host])
        status = vm.status.model_copy(update={"placement": place, "uuid": vm.metadata.uid})
        return vm.model_copy(update={"status": status})

    async def first(ctx: Any, vm: Any, *rest: Any) -> Any:
        outcome = await create(ctx, vm, *rest)
        await write_down(*held.pop(vm.metadata.uid))
        return outcome

    patch.setattr(start, "_write_down", later)
    patch.setattr(start, "_create", first)


def record_written_before_the_volume_is_whole(patch: pytest.MonkeyPatch) -> None:
    import_ = provision._import

    async def early(job: Any, **known: Any) -> None:
        await record.write(known["host"], known["pool"], known["seen"].mine)
        await import_(job, **known)

    patch.setattr(provision, "_import", early)


def absence_from_a_stale_list_counts_as_gone(patch: pytest.MonkeyPatch) -> None:
    fact, ownership = virtual_machine._fact, virtual_machine.ownership

    def believed(*given: Any) -> Any:
        owned = ownership(*given)
        return replace(owned, answer=MayStart(None, None)) if isinstance(owned.answer, MayStart) else owned

    patch.setattr(virtual_machine, "_fact", lambda *given: replace(fact(*given), fresh=True))
    patch.setattr(virtual_machine, "ownership", believed)


def a_deletion_forgets_the_record(patch: pytest.MonkeyPatch) -> None:
    discard = provision.discard

    async def forgetful(disk: Any, host: Any, *rest: Any) -> Any:
        class Forgetful:
            def __getattr__(self, name: str) -> Any:
                return getattr(host, name)

            async def delete_volume(self, pool: str, name: str) -> None:
                if not name.endswith(".json"):
                    await host.delete_volume(pool, name)

        return await discard(disk, Forgetful(), *rest)

    patch.setattr(provision, "discard", forgetful)


def a_finalizer_goes_before_the_volume(patch: pytest.MonkeyPatch) -> None:
    discard = removal._discard

    async def late(ctx: Any, disk: Any, *rest: Any) -> Any:
        await let_go(ctx, disk)
        return await discard(ctx, disk, *rest)

    patch.setattr(removal, "_discard", late)


def a_missing_volume_is_made_again(patch: pytest.MonkeyPatch) -> None:
    creating = decide.progressing("Creating", "", 120.0)
    patch.setattr(decide, "_missing", lambda _: decide.Plan(decide.Step.CREATE, creating, decide.DiskPhase.CREATING))


def a_blank_volume_in_the_way_is_replaced(patch: pytest.MonkeyPatch) -> None:
    create = provision.create_blank

    async def by_force(disk: Any, host: Any, pool: str, seen: Any) -> None:
        # Found by the simulator: a controller that was stopped before its call deleted the disk of a running VM.
        await host.delete_volume(pool, disk.status.volume.name)
        await create(disk, host, pool, seen)

    patch.setattr(provision, "create_blank", by_force)


def another_host_is_tried_when_no_answer_comes(patch: pytest.MonkeyPatch) -> None:
    create = start._create

    async def impatient(ctx: Any, vm: Any, *rest: Any) -> Any:
        outcome = await create(ctx, vm, *rest)
        if outcome.verdict is not None and outcome.verdict.reason == "Starting":
            place = vm.status.placement.model_copy(update={"host": None, "candidates": []})
            await ctx.compare_and_set(vm, {"placement": place, "uuid": vm.status.uuid})
        return outcome

    patch.setattr(start, "_create", impatient)
    patch.setattr(virtual_machine, "_candidates", lambda *_: frozenset())


def media_are_what_the_stamp_says(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(devices, "sections_of", lambda domain, _: domain.sections)


def a_taken_over_volume_is_anybodys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(place, "rival", lambda *_: None)
    patch.setattr(record.Record, "same_disk", lambda *_: True)


def a_purge_is_not_written_down(patch: pytest.MonkeyPatch) -> None:
    async def silent(ctx: Any, domain: Any, due: Any, here: Any) -> Any:
        keep = trash._kept(ctx, domain, here)
        return [entry for entry in due if entry.volume not in keep]

    patch.setattr(trash, "_decide", silent)


def a_growth_is_not_written_down(patch: pytest.MonkeyPatch) -> None:
    async def silent(ctx: Any, disk: Any, host: Any) -> Any:
        return disk

    patch.setattr(growing, "_write_down", silent)


def an_import_goes_on_with_the_file_of_another_controller(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(begun, "turn", lambda *_: begun.Turn.MINE)


def a_status_is_applied_whatever_has_changed(patch: pytest.MonkeyPatch) -> None:
    apply_status = KubeClient.apply_status

    async def blind(self: KubeClient, resource: Any, obj: Any, **known: Any) -> Any:
        metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
        return await apply_status(self, resource, {**obj, "metadata": metadata}, **known)

    patch.setattr(KubeClient, "apply_status", blind)


def critical_facts_are_set_whatever_has_changed(patch: pytest.MonkeyPatch) -> None:
    async def blind(self: KubeClient, resource: Any, key: Any, fields: Any, *, manager: str, **_: Any) -> Any:
        return await self._transport.request(
            "PATCH",
            resource.path_of(key, "status"),
            kind=resource.kind,
            verb="patch-status",
            query={"fieldManager": manager},
            body={"status": fields},
            content_type="application/merge-patch+json",
        )

    patch.setattr(KubeClient, "patch_status", blind)


def finalizers_are_changed_whatever_has_changed(patch: pytest.MonkeyPatch) -> None:
    async def blind(self: KubeClient, resource: Any, key: Any, ops: Any, *, manager: str, **_: Any) -> Any:
        return await self._transport.request(
            "PATCH",
            resource.path_of(key),
            kind=resource.kind,
            verb="patch",
            query={"fieldManager": manager},
            body=[{"op": "test", "path": "/kind", "value": resource.kind}, *ops],
            content_type="application/json-patch+json",
        )

    patch.setattr(KubeClient, "patch_metadata", blind)


def a_download_is_forgotten_when_its_volume_is_whole(patch: pytest.MonkeyPatch) -> None:
    finish = provision.finish

    async def forgetful(ctx: Any, disk: Any, *rest: Any) -> None:
        blank = disk.spec.model_copy(update={"source": None})
        await finish(ctx, disk.model_copy(update={"spec": blank}), *rest)

    patch.setattr(provision, "finish", forgetful)


def a_download_is_forgotten_when_its_disk_goes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(provision, "discard", without_imports(provision.discard))
    patch.setattr(provision, "abandon", without_imports(provision.abandon))


def without_imports(function: Any) -> Any:
    """The function on a host that keeps what imports leave."""

    class Keeping:
        def __init__(self, host: Any) -> None:
            self.host = host

        def __getattr__(self, name: str) -> Any:
            return getattr(self.host, name)

        async def delete_volume(self, pool: str, name: str) -> None:
            if ".import" not in name:
                await self.host.delete_volume(pool, name)

    async def called(*given: Any, **options: Any) -> Any:
        return await function(*(Keeping(a) if hasattr(a, "delete_volume") else a for a in given), **options)

    return called


def uefi_variables_go_with_the_definition(patch: pytest.MonkeyPatch) -> None:
    undefine = act.undefine

    async def thorough(ctx: Any, hosts: Any, facts: Any, *, nvram: bool = False) -> None:
        await undefine(ctx, hosts, facts, nvram=True)

    patch.setattr(act, "undefine", thorough)


def a_definition_is_left_when_off(patch: pytest.MonkeyPatch) -> None:
    stopped = vm_decide._stopped
    patch.setattr(vm_decide, "_stopped", lambda *given: replace(stopped(*given), step=Nothing()))


def a_seed_of_an_earlier_object_is_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(act, "opened_by", lambda *_: [])


def a_reconciler_goes_round_and_round(patch: pytest.MonkeyPatch) -> None:
    reconcile = virtual_machine.reconcile

    async def restless(ctx: Any, key: Key) -> Result:
        await reconcile(ctx, key)
        return RequeueAfter(0.0, "again")

    patch.setitem(RECONCILERS, "VirtualMachine", restless)


BY_CAMPAIGN: tuple[tuple[Patch, str], ...] = (
    (candidates_written_after_the_send, "start"),
    (record_written_before_the_volume_is_whole, "import"),
    (a_deletion_forgets_the_record, "delete"),
    (a_finalizer_goes_before_the_volume, "delete"),
    (media_are_what_the_stamp_says, "medium"),
    (a_definition_is_left_when_off, "stop"),
    (uefi_variables_go_with_the_definition, "stop"),
    (a_status_is_applied_whatever_has_changed, "grow"),
    (finalizers_are_changed_whatever_has_changed, "create"),
    (a_download_is_forgotten_when_its_volume_is_whole, "import"),
    (a_download_is_forgotten_when_its_disk_goes, "import"),
)
BY_STORY: tuple[tuple[Patch, Story], ...] = (
    (absence_from_a_stale_list_counts_as_gone, stories.host_cut_off_while_starting),
    (a_missing_volume_is_made_again, stories.volume_gone),
    (a_blank_volume_in_the_way_is_replaced, frozen_stories.stopped_before("create_volume")),
    (another_host_is_tried_when_no_answer_comes, stories.host_cut_off_while_starting),
    (critical_facts_are_set_whatever_has_changed, frozen_stories.purge_stopped_before_it_is_written_down),
    (a_taken_over_volume_is_anybodys, stories.taken_over_from_another),
    (a_purge_is_not_written_down, frozen_stories.purge_stopped_before_the_volume_goes),
    (a_growth_is_not_written_down, frozen_stories.growth_stopped_before_a_vm_starts),
    (
        an_import_goes_on_with_the_file_of_another_controller,
        frozen_stories.import_stopped_before("upload:volume"),
    ),
    (a_seed_of_an_earlier_object_is_left, stories.recreated),
)


@pytest.mark.parametrize(("bug", "flow"), BY_CAMPAIGN, ids=lambda given: getattr(given, "__name__", given))
def test_a_campaign_finds(bug: Patch, flow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    campaign = Campaign(flow)
    for seed in SEEDS:
        find(FLOWS[flow], seed, campaign, every_death=True, one_is_enough=True)
        if campaign.failures:
            return
    pytest.fail(f"{campaign.killed} kills, and nothing was found")


@pytest.mark.parametrize(("bug", "story"), BY_STORY, ids=lambda given: getattr(given, "__name__", given))
def test_a_story_finds(bug: Patch, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    assert any(problems_of(story, seed) for seed in SEEDS), "nothing was found"


def test_a_livelock_is_told_from_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    a_reconciler_goes_round_and_round(monkeypatch)
    assert problems_of(stories.three_vms, 0)[0].startswith("Livelock: time stands still")
