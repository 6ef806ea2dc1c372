"""The trash: only what is due, only what is ours, and in an order that a crash cannot spoil."""

import json
from typing import Any

import pytest

from drivers.errors import HostTimeout
from reconcilers.storage_domain import reconcile
from reconcilers.storage_domain.trash import deleted, may_purge
from tests.unit.reconcilers.fakes import EPOCH, INSTALLATION, Directory, World, domain
from xmlgen.names import MARKER, record_name, trash_name, volume_name

PATH = "/srv/vms"
VOLUME = volume_name("default", "a", "uid-a", "qcow2")
NOW = int(EPOCH.timestamp())


async def trashed(since: int, *, volume: str = VOLUME, owner: str | None = INSTALLATION, **spec: Any):
    w = World()
    w.pool()
    directory = Directory()
    w.host("kvm1").directories[PATH] = directory
    spec = {"type": "directory", "directory": {"path": PATH}, "pools": ["default"], "trashSeconds": 1000, **spec}
    key = w.add("StorageDomain", "fast", spec)
    await reconcile(w.context, key)
    directory.files[volume] = b"data"
    if owner is not None:
        directory.files[record_name(volume)] = json.dumps({"installation": owner}).encode()
    directory.files[trash_name(volume, since)] = b""
    w.clock.move(61)
    return w, key, directory


async def test_what_is_due_is_purged_with_its_record_and_its_mark():
    w, key, directory = await trashed(NOW - 2000)
    await reconcile(w.context, key)
    assert set(directory.files) == {MARKER}


async def test_what_is_not_due_stays_and_is_looked_at_when_it_is():
    w, key, directory = await trashed(NOW)
    result = await reconcile(w.context, key)
    assert VOLUME in directory.files
    assert result.seconds <= 300
    w.clock.move(940)
    await reconcile(w.context, key)
    assert set(directory.files) == {MARKER}


@pytest.mark.parametrize("existing", [True, False])
async def test_a_volume_that_a_disk_takes_back_stays(existing):
    w, key, directory = await trashed(NOW - 2000)
    source = {"source": {"existing": {"path": VOLUME}}} if existing else {}
    status = {} if existing else {"volume": {"name": VOLUME}}
    w.add("Disk", "b", {"size": "1Gi", "storageDomain": "fast", **source}, namespace="default", status=status)
    await reconcile(w.context, key)
    assert VOLUME in directory.files


async def test_a_volume_that_a_domain_has_open_stays():
    w, key, directory = await trashed(NOW - 2000)
    w.hosts.hosts["kvm1"].domains = [domain(images=(f"{PATH}/{VOLUME}",))]
    await reconcile(w.context, key)
    assert VOLUME in directory.files


@pytest.mark.parametrize(("volume", "owner"), [(VOLUME, "another"), ("theirs.qcow2", None)])
async def test_what_is_not_ours_for_certain_stays(volume, owner):
    w, key, directory = await trashed(NOW - 2000, volume=volume, owner=owner)
    await reconcile(w.context, key)
    assert volume in directory.files


async def test_a_volume_that_was_taken_over_is_ours_by_its_record():
    w, key, directory = await trashed(NOW - 2000, volume="golden.qcow2")
    await reconcile(w.context, key)
    assert set(directory.files) == {MARKER}


@pytest.mark.parametrize("crash_at", [0, 1, 2])
async def test_a_purge_that_was_cut_off_is_finished(crash_at):
    w, key, directory = await trashed(NOW - 2000, volume="golden.qcow2")
    host = w.hosts.hosts["kvm1"]
    delete, done = host.delete_volume, 0

    async def dying(pool: str, name: str) -> None:
        nonlocal done
        if done == crash_at:
            raise HostTimeout("cut off")
        done += 1
        await delete(pool, name)

    host.delete_volume = dying  # type: ignore[method-assign]
    await reconcile(w.context, key)
    assert trash_name("golden.qcow2", NOW - 2000) in directory.files
    host.delete_volume = delete  # type: ignore[method-assign]
    w.clock.move(61)
    await reconcile(w.context, key)
    assert set(directory.files) == {MARKER}


async def test_nothing_is_purged_where_the_storage_is_not_there():
    w, key, directory = await trashed(NOW - 2000)
    other = Directory({k: v for k, v in directory.files.items() if k != MARKER})
    w.hosts.hosts["kvm1"].directories[PATH] = other
    await reconcile(w.context, key)
    assert VOLUME in other.files


async def test_nothing_is_purged_in_maintenance():
    w, key, directory = await trashed(NOW - 2000, mode="Maintenance")
    await reconcile(w.context, key)
    assert VOLUME in directory.files


def test_only_marks_with_a_time_count():
    files = ["a.trash-5", "b.trash-3", "c.trash-x", "e"]
    assert [(d.volume, d.since) for d in deleted(files)] == [("b", 3), ("a", 5)]
    assert deleted([f"{MARKER}.trash-1"]) == []


async def test_a_mark_that_holds_something_is_none():
    w, key, directory = await trashed(NOW - 2000)
    directory.files[trash_name(VOLUME, NOW - 2000)] = b"somebody's data"
    await reconcile(w.context, key)
    assert VOLUME in directory.files


def test_what_is_ours_to_purge():
    assert may_purge(VOLUME, present=True, owner=None, installation="i")
    assert not may_purge(VOLUME, present=True, owner="j", installation="i")
    assert not may_purge("x", present=True, owner=None, installation="i")
    assert may_purge("x", present=False, owner=None, installation="i")
