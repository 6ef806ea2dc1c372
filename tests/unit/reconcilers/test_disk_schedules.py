"""Disks in unlucky schedules: storage that is unmounted in between, purges and take-overs at once, lost answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import pytest

from crds.storage_domain import StorageDomain
from drivers.errors import HostTimeout, NotFound
from drivers.model import ConnectionState
from engine.keys import Key
from engine.result import RequeueAfter
from reconcilers.disk import provision, reconcile, record
from reconcilers.jobs import Job
from reconcilers.storage_domain import reconcile as look_after_storage
from reconcilers.storage_domain import trash
from tests.unit.reconcilers.fakes import EPOCH, INSTALLATION, Directory, FakeHypervisor, World
from xmlgen.names import MARKER, record_name, trash_name, volume_name

PATH = "/srv/vms"
NOW = int(EPOCH.timestamp())
RAW = {"size": "1Mi", "storageDomain": "fast", "format": "raw"}


async def world() -> tuple[World, FakeHypervisor, Directory]:
    w = World()
    w.pool()
    directory = Directory()
    host = w.host("kvm1")
    host.directories[PATH] = directory
    spec = {"type": "directory", "directory": {"path": PATH}, "pools": ["default"], "trashSeconds": 1000}
    await look_after_storage(w.context, w.add("StorageDomain", "fast", spec))
    return w, host, directory


def storage(w: World) -> Key:
    return Key("StorageDomain", "", "fast")


def blank(w: World, **spec: Any) -> Key:
    return w.add("Disk", "data", {**RAW, **spec}, namespace="default")


async def test_a_blank_disk_is_made_once_and_found_whole() -> None:
    w, _, directory = await world()
    key = blank(w)
    await reconcile(w.context, key)
    assert w.standing(key) == ("True", "False", "False", "Ready")
    name = volume_name("default", "data", "uid-Disk-data", "raw")
    assert set(directory.files) == {MARKER, name, record_name(name)}


async def test_what_was_made_under_a_path_that_is_not_mounted_is_never_called_whole() -> None:
    w, host, mounted = await world()
    key, create = blank(w), host.create_volume

    async def unmounted_meanwhile(pool: str, xml: str) -> Any:
        host.directories[PATH] = Directory()
        w.clock.move(0.1)
        return await create(pool, xml)

    host.create_volume = unmounted_meanwhile  # type: ignore[method-assign]
    await reconcile(w.context, key)
    assert "provisionedAt" not in w.status(key)["volume"]
    assert w.standing(key)[3] == "MarkerMissing"
    host.create_volume = create  # type: ignore[method-assign]
    host.directories[PATH] = mounted
    w.clock.move(15)
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "Ready"
    assert w.status(key)["volume"]["name"] in mounted.files


async def test_a_pool_that_is_gone_says_nothing_of_a_record() -> None:
    _, host, _ = await world()
    host.fail["download"] = NotFound("no storage pool is over it", reason="NoPool")
    with pytest.raises(NotFound):
        await record.read(host, PATH, "a.raw")  # type: ignore[arg-type]


# The trash -----------------------------------------------------------------------------------------------------------


def throw_away(directory: Directory, *names: str) -> None:
    for name in names:
        directory.files[name] = bytes(2**20)
        owner = record.Record(INSTALLATION, "default", "gone", "uid-gone", name, "raw")
        directory.files[record_name(name)] = json.dumps(asdict(owner)).encode()
        directory.files[trash_name(name, NOW - 2000)] = b""


def take_back(w: World, name: str) -> Key:
    return blank(w, source={"existing": {"path": name}})


async def test_a_volume_that_is_asked_for_while_others_are_purged_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "BATCH", 1)
    w, host, directory = await world()
    throw_away(directory, "a.raw", "b.raw")
    delete = host.delete_volume

    async def slow(pool: str, name: str) -> None:
        if name == "a.raw":
            take_back(w, "b.raw")
        await delete(pool, name)

    host.delete_volume = slow  # type: ignore[method-assign]
    w.clock.move(61)
    await look_after_storage(w.context, storage(w))
    assert "a.raw" not in directory.files
    assert "b.raw" in directory.files
    assert "purging" not in w.status(storage(w)) or w.status(storage(w))["purging"] == []


async def test_a_volume_is_not_taken_back_once_its_purge_is_written_down() -> None:
    w, host, directory = await world()
    throw_away(directory, "a.raw")
    delete = host.delete_volume

    async def silent(pool: str, name: str) -> None:
        raise HostTimeout("no answer within 300 s; it may still take effect")

    host.delete_volume = silent  # type: ignore[method-assign]
    w.clock.move(61)
    await look_after_storage(w.context, storage(w))
    host.delete_volume = delete  # type: ignore[method-assign]
    assert w.status(storage(w))["purging"] == ["a.raw"]
    key = take_back(w, "a.raw")
    await reconcile(w.context, key)
    assert w.standing(key)[2:] == ("True", "VolumeNotFound")
    assert "provisionedAt" not in w.status(key)["volume"]
    assert "a.raw" in directory.files
    w.clock.move(61)
    await look_after_storage(w.context, storage(w))
    assert set(directory.files) == {MARKER}
    assert w.status(storage(w))["purging"] == []


async def test_a_volume_that_another_controller_takes_back_is_not_purged() -> None:
    w, _, directory = await world()
    throw_away(directory, "a.raw")
    key = take_back(w, "a.raw")
    unseen = w.cache.get(key)
    assert unseen is not None
    assert await trash.take_back(w.context, domain(w), "kvm1", "a.raw")
    w.cache.delete(key)
    w.client.unseen[key] = unseen
    w.clock.move(61)
    await look_after_storage(w.context, storage(w))
    assert "a.raw" in directory.files
    assert w.status(storage(w))["takingBack"] == ["a.raw"]
    # Its user gives it up.
    del w.client.unseen[key]
    for _ in range(2):
        w.clock.move(61)
        await look_after_storage(w.context, storage(w))
    assert set(directory.files) == {MARKER}
    assert w.status(storage(w))["takingBack"] == []


async def test_what_was_taken_back_is_struck_out() -> None:
    w, _, directory = await world()
    throw_away(directory, "a.raw")
    key = take_back(w, "a.raw")
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "Ready"
    assert w.status(storage(w))["takingBack"] == ["a.raw"]
    w.clock.move(61)
    await look_after_storage(w.context, storage(w))
    assert w.status(storage(w))["takingBack"] == []
    assert "a.raw" in directory.files


def domain(w: World) -> StorageDomain:
    found = w.context.objects.get(StorageDomain, "fast")
    assert found is not None
    return found


# Imports -------------------------------------------------------------------------------------------------------------


async def test_an_import_whose_result_is_not_there_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    w, _, _ = await world()
    key = blank(w, source={"http": {"url": "https://example.org/a", "checksum": "sha256:" + "0" * 64}})
    runs = 0

    async def nothing(_: Any, job: Job, **__: Any) -> None:
        nonlocal runs
        runs += 1

    monkeypatch.setattr(provision, "_import", nothing)
    for _ in range(4):
        result = await reconcile(w.context, key)
        assert isinstance(result, RequeueAfter)
        await asyncio.sleep(0)
    assert runs == 2


# What a person may name ----------------------------------------------------------------------------------------------

FILE = {"source": {"file": {"path": "golden", "checksum": "sha256:" + "0" * 64}}}


@pytest.mark.parametrize("how", ["object", "record"])
async def test_a_volume_of_another_namespace_is_not_copied(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w, _, directory = await world()
    directory.files["golden"] = b"secret"
    if how == "object":
        w.add("Disk", "theirs", RAW, namespace="bank", status={"volume": {"name": "golden", "takenOver": True}})
    else:
        owner = record.Record(INSTALLATION, "bank", "gone", "uid-gone", "golden", "raw")
        directory.files["golden.json"] = json.dumps(asdict(owner)).encode()
    runs: list[Job] = []

    async def copied(_: Any, job: Job, **__: Any) -> None:
        runs.append(job)

    monkeypatch.setattr(provision, "_import", copied)
    key = blank(w, **FILE)
    await reconcile(w.context, key)
    await asyncio.sleep(0)
    assert w.standing(key)[3] == "OwnedByOther"
    assert runs == []


async def test_the_record_of_a_volume_is_never_somebodys_disk() -> None:
    w, _, directory = await world()
    directory.files["golden.json"] = b"{}"
    key = take_back(w, "golden.json")
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "OwnedByOther"
    assert directory.files["golden.json"] == b"{}"


async def test_a_volume_that_was_begun_on_a_host_that_is_silent_now_is_begun_under_another_name() -> None:
    w, host, directory = await world()
    w.host("kvm2").directories[PATH] = directory
    w.clock.move(61)
    await look_after_storage(w.context, storage(w))
    key = blank(w)
    host.fail["upload"] = HostTimeout("no answer; it may still take effect")
    await reconcile(w.context, key)
    old = w.status(key)["volume"]["name"]
    host.disconnect()
    w.clock.move(15)
    await reconcile(w.context, key)
    new = w.status(key)["volume"]["name"]
    assert new != old
    assert w.standing(key)[3] == "Ready"
    assert any(name.startswith(f"{old}.trash-") for name in directory.files)
    # What the first host was told may happen now.
    directory.files.pop(old)
    assert new in directory.files


async def test_what_was_begun_on_a_host_goes_on_there_though_another_comes_first() -> None:
    w, second, directory = await world()
    first = w.host("kvm0")
    first.directories[PATH] = directory
    w.clock.move(61)
    await look_after_storage(w.context, storage(w))
    first.disconnect()
    key = blank(w)
    second.fail["create_volume"] = HostTimeout("no answer; it may still take effect")
    await reconcile(w.context, key)
    begun = w.status(key)["volume"]["name"]
    first.state = ConnectionState.CONNECTED
    del second.fail["create_volume"]
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "Ready"
    assert w.status(key)["volume"]["name"] == begun
    assert not [call for call in first.calls if call[0] == "create_volume"]
