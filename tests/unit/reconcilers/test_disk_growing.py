"""Growing a volume: never by two programs at once, never a guest's word for what the volume is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crds.disk import Disk
from drivers.errors import HostTimeout, Refused
from drivers.model import Volume
from reconcilers.disk import growing, reconcile
from reconcilers.objects import key_of
from reconcilers.relations import leaving_vms
from reconcilers.storage_domain.marker import Marker
from reconcilers.virtual_machine.needs import resolve
from reconcilers.virtual_machine.plan import Plan, Start
from reconcilers.virtual_machine.start import start
from tests.unit.reconcilers.fakes import GIB, FakeHypervisor, World, domain
from tests.unit.reconcilers.test_vm_disk_race import PATH, VOLUME, machine, read, world

FILE = f"{PATH}/{VOLUME}"
SEEN = Volume(VOLUME, FILE, "qcow2", GIB // 2, 0)


def data(w: World) -> Disk:
    found = w.context.objects.get(Disk, "data", "default")
    assert found is not None
    return found


@pytest.fixture
def resized(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(host, by) of each call that made something larger."""
    calls: list[tuple[str, str]] = []

    async def resize_volume(self: FakeHypervisor, pool: str, name: str, size: int) -> None:
        calls.append((self.name, "pool"))
        if "resize_volume" in self.fail:
            raise self.fail["resize_volume"]

    async def resize_block(self: FakeHypervisor, uuid: str, path: str, size: int) -> None:
        calls.append((self.name, uuid))

    monkeypatch.setattr(FakeHypervisor, "resize_volume", resize_volume, raising=False)
    monkeypatch.setattr(FakeHypervisor, "resize_block", resize_block, raising=False)
    return calls


async def grow(w: World, host: str = "kvm2", seen: Volume = SEEN) -> str | None:
    waits = await growing.grow(w.context, data(w), w.hosts.hosts[host], PATH, seen)  # type: ignore[arg-type]
    return None if waits is None else waits.reason


async def test_a_disk_that_nobody_uses_grows_through_the_pool(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    machine(w, "a")
    assert await grow(w) is None
    assert resized == [("kvm2", "pool")]
    assert grows_on(w) is None
    assert w.context.growing == set()


@pytest.mark.parametrize("heard", [True, False])
async def test_a_vm_that_may_run_is_not_resized_under(resized: list[Any], *, heard: bool) -> None:
    w = world("kvm1", "kvm2")
    machine(w, "a", placed="kvm1")
    if not heard:
        w.hosts.hosts["kvm1"].never_connected()
    assert await grow(w) == "Resizing"
    assert resized == []


async def test_a_disk_in_use_grows_through_its_vm(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    machine(w, "a", placed="kvm1")
    w.hosts.hosts["kvm1"].domains = [domain("default.a", uid="u", images=(FILE,))]
    assert await grow(w) is None
    assert resized == [("kvm1", "u")]


async def test_a_domain_that_is_not_ours_is_left_alone(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    w.hosts.hosts["kvm1"].domains = [domain("theirs", uid="u", ours=False, images=(FILE,))]
    assert await grow(w) == "InUse"
    assert resized == []


async def test_nothing_is_resized_on_a_host_that_is_only_observed(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    w.host("kvm1", spec={"management": "Observe"})
    w.hosts.hosts["kvm1"].domains = [domain("default.a", uid="u", images=(FILE,))]
    with pytest.raises(Refused):
        await grow(w)
    assert resized == []


async def test_while_it_grows_no_vm_starts_and_no_other_host_is_asked(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    machine(w, "a")
    w.hosts.hosts["kvm2"].fail["resize_volume"] = HostTimeout("no answer; it may still take effect")
    with pytest.raises(HostTimeout):
        await grow(w)
    verdict = resolve(w.context, read(w, "a")).verdict
    assert verdict is not None
    assert verdict.reason == "DisksNotReady"
    assert await grow(w, "kvm1") == "Resizing"
    assert resized == [("kvm2", "pool")]
    del w.hosts.hosts["kvm2"].fail["resize_volume"]
    assert await grow(w) is None
    assert resolve(w.context, read(w, "a")).verdict is None


async def test_what_a_guest_wrote_into_its_raw_disk_is_not_believed(resized: list[Any]) -> None:
    w = world("kvm1")
    raw = {"name": "data.raw", "path": f"{PATH}/data.raw", "provisionedAt": "2026-11-20T12:00:00Z"}
    status = {"phase": "Ready", "path": f"{PATH}/data.raw", "volume": raw, "virtualSize": "1Gi"}
    spec = {"size": "1Gi", "storageDomain": "fast", "format": "raw"}
    key = w.add("Disk", "data", spec, namespace="default", status=status)
    host = w.hosts.hosts["kvm1"]
    host.directories[PATH].files["data.raw"] = b""
    described = host.volume

    async def probed(pool: str, name: str) -> Volume | None:
        found = await described(pool, name)
        return None if found is None else replace(found, format="qcow2", capacity=512)

    host.volume = probed  # type: ignore[method-assign]
    await reconcile_initialized(w, key)
    assert resized == []
    assert w.status(key)["virtualSize"] == "1Gi"
    crafted = Volume("data.raw", f"{PATH}/data.raw", "qcow2", 512, 0)
    assert await grow(w, "kvm1", crafted) == "FormatMismatch"
    assert resized == []


async def reconcile_initialized(w: World, key: Any) -> None:
    marker = Marker(
        "11111111-1111-4111-8111-111111111111", w.context.installation, "fast", "Shared", None, "n", "2026-11-20"
    )
    w.hosts.hosts["kvm1"].directories[PATH].files["hostler-domain.json"] = marker.encode()
    obj = w.cache.get(type(key)("StorageDomain", "", "fast"))
    assert obj is not None
    w.client.put({**obj, "status": {**obj["status"], "id": marker.id}})
    await reconcile(w.context, key)


# A disk that was taken out of a VM's spec ----------------------------------------------------------------------------


def taken_out(w: World) -> None:
    machine(w, "a", placed="kvm1", disks=False)
    obj = w.cache.get(type(machine(w, "b"))("Disk", "default", "data"))
    assert obj is not None
    w.client.put({**obj, "status": {**obj["status"], "usedBy": ["a"]}})


@pytest.mark.parametrize("how", ["open", "silent", "unheard"])
async def test_a_vm_that_may_have_it_open_still_holds_it(how: str) -> None:
    w = world("kvm1", "kvm2")
    taken_out(w)
    host = w.hosts.hosts["kvm1"]
    if how == "open":
        host.domains = [domain("default.a", uid="uid-VirtualMachine-a", images=(FILE,))]
    elif how == "silent":
        host.disconnect()
    else:
        host.never_connected()
    assert [vm.metadata.name for vm in leaving_vms(w.context, data(w))] == ["a"]
    verdict = resolve(w.context, read(w, "b")).verdict
    assert verdict is not None
    assert verdict.reason == "DiskInUse"


async def test_a_vm_that_is_seen_without_it_has_given_it_up() -> None:
    w = world("kvm1", "kvm2")
    taken_out(w)
    mine = domain("default.a", uid="uid-VirtualMachine-a", images=())
    w.hosts.hosts["kvm1"].domains = [mine, domain("default.b", uid="uid-VirtualMachine-b", images=(FILE,))]
    assert leaving_vms(w.context, data(w)) == []
    assert resolve(w.context, read(w, "b")).verdict is None


# Two controllers -----------------------------------------------------------------------------------------------------


def grows_on(w: World) -> str | None:
    volume = data(w).status.volume
    assert volume is not None
    return volume.grows_on


def placed_unseen(w: World, name: str) -> None:
    """Another controller has just given a VM a place."""
    key = machine(w, name, placed="kvm1")
    obj = w.cache.get(key)
    assert obj is not None
    w.client.unseen[key] = obj
    w.client.put({**obj, "status": {}})


async def test_who_grows_finds_the_place_that_another_controller_has_just_given(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    placed_unseen(w, "a")
    assert await grow(w) == "Resizing"
    assert resized == []
    assert grows_on(w) is None


def begun(w: World, *, alone: bool) -> None:
    """A controller that is dead now has written down that kvm2 is to make the disk larger."""
    found = data(w)
    assert found.status.volume is not None
    volume = found.status.volume.model_copy(update={"grows_on": "kvm2", "grows_alone": alone})
    obj = w.cache.get(key_of(found))
    assert obj is not None
    w.client.put({**obj, "status": {**obj["status"], "volume": volume.to_dict()}})


async def test_where_the_dead_wrote_down_both_growth_gives_way_to_the_start(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    machine(w, "a", placed="kvm1")
    begun(w, alone=False)
    assert await grow(w) == "Resizing"
    assert resized == []
    assert grows_on(w) is None


async def test_growth_that_was_alone_is_ended_before_a_vm_placed_since_starts(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    machine(w, "a", placed="kvm1")
    begun(w, alone=True)
    assert await grow(w) is None
    assert resized == [("kvm2", "pool")]
    assert grows_on(w) is None


async def test_a_refusal_frees_the_disk_only_for_who_has_written_down_that_it_grows(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    w.hosts.hosts["kvm2"].fail["resize_volume"] = Refused("no", reason="OperationFailed")
    with pytest.raises(Refused):
        await grow(w)
    assert grows_on(w) is None
    w.hosts.hosts["kvm2"].fail["resize_volume"] = HostTimeout("no answer")
    with pytest.raises(HostTimeout):
        await grow(w)
    w.context.growing.clear()  # another process
    w.hosts.hosts["kvm2"].fail["resize_volume"] = Refused("no", reason="OperationFailed")
    with pytest.raises(Refused):
        await grow(w)
    assert grows_on(w) == "kvm2"
    del w.hosts.hosts["kvm2"].fail["resize_volume"]
    assert await grow(w) is None
    assert grows_on(w) is None


async def test_a_host_that_was_deleted_is_not_waited_for(resized: list[Any]) -> None:
    w = world("kvm1", "kvm2")
    w.hosts.hosts["kvm2"].fail["resize_volume"] = HostTimeout("no answer")
    with pytest.raises(HostTimeout):
        await grow(w)
    assert await grow(w, "kvm1") == "Resizing"
    host = next(key for key in w.cache.keys("Host") if key.name == "kvm2")
    w.cache.delete(host)
    assert await grow(w, "kvm1") is None
    assert resized == [("kvm2", "pool"), ("kvm1", "pool")]


async def test_a_vm_gives_its_place_up_when_another_controller_makes_its_disk_larger() -> None:
    w = world("kvm1", "kvm2")
    key = machine(w, "a")
    obj = w.cache.get(type(key)("Disk", "default", "data"))
    assert obj is not None
    known = {**obj, "spec": {**obj["spec"], "size": "2Gi"}, "status": {**obj["status"], "virtualSize": "1Gi"}}
    w.client.put(known)
    growing_now = {**known["status"], "volume": {**known["status"]["volume"], "growsOn": "kvm2"}}
    w.client.unseen[type(key)("Disk", "default", "data")] = {**known, "status": growing_now}
    outcome = await start(w.context, read(w, "a"), Plan(Start(None), None, None), None, 0)
    assert outcome.verdict is not None
    assert outcome.verdict.reason == "DisksNotReady"
    placement = w.status(key)["placement"]
    assert (placement.get("host"), placement["candidates"]) == (None, [])
    assert not [call for host in w.hosts.hosts.values() for call in host.calls if call[0] in ("define", "start")]


async def test_of_two_vms_with_one_disk_the_later_gives_its_place_up() -> None:
    w = world("kvm1", "kvm2")
    key = machine(w, "a")
    other = machine(w, "b")
    obj = w.cache.get(other)
    assert obj is not None
    placement = {"host": "kvm2", "epoch": 1, "since": "2026-01-01T00:00:00Z", "candidates": ["kvm2"]}
    w.client.unseen[other] = {**obj, "status": {**obj["status"], "placement": placement}}
    outcome = await start(w.context, read(w, "a"), Plan(Start(None), None, None), None, 0)
    assert outcome.verdict is not None
    assert outcome.verdict.reason == "DiskInUse"
    placement = w.status(key)["placement"]
    assert (placement.get("host"), placement["candidates"]) == (None, [])
    assert not [call for host in w.hosts.hosts.values() for call in host.calls if call[0] in ("define", "start")]
