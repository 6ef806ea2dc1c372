"""StorageDomain: the marker is written once, read everywhere, and never written where storage went missing."""

import asyncio
import json
from typing import Any

import pytest

from crds.storage_domain import StorageDomain
from drivers.errors import Refused
from reconcilers.storage_domain import reconcile
from reconcilers.storage_domain.marker import DomainNotReachable, Marker, verify
from tests.unit.reconcilers.fakes import GIB, Directory, World
from xmlgen.names import MARKER

PATH = "/srv/vms"
SPEC: dict[str, Any] = {"type": "directory", "directory": {"path": PATH}, "pools": ["default"]}
LOCAL = {**SPEC, "directory": {"path": PATH, "scope": "HostLocal"}}
ID = "22222222-2222-4222-8222-222222222222"


def world(*hosts: str, spec: dict[str, Any] = SPEC, shared: bool = True, **extra: Any):
    w = World()
    w.pool()
    directory = Directory()
    for name in hosts:
        w.host(name).directories[PATH] = directory if shared else Directory()
    return w, w.add("StorageDomain", "fast", spec, **extra), directory


def marker(**changes: Any) -> bytes:
    fields = {
        "id": ID,
        "installation": "11111111-1111-4111-8111-111111111111",
        "name": "fast",
        "scope": "Shared",
        "host": None,
        "nonce": "n",
        "created": "2026-11-20T12:00:00Z",
    }
    return Marker(**{**fields, **changes}).encode()


def written(directory: Directory) -> dict[str, Any]:
    return json.loads(directory.files[MARKER])


def marker_writes(w: World) -> int:
    return sum(call[0] == "upload" and call[2] == MARKER for h in w.hosts.hosts.values() for call in h.calls)


async def test_first_use_marks_the_storage_and_records_its_id():
    w, key, directory = world("kvm1", "kvm2")
    await reconcile(w.context, key)
    assert w.status(key)["id"] == written(directory)["id"]
    assert w.status(key)["phase"] == "Active"
    assert w.standing(key) == ("True", "False", "False", "Active")
    assert [h["reachable"] for h in w.status(key)["hosts"]] == [True, True]
    assert (w.status(key)["capacity"], w.status(key)["available"]) == ("100Gi", "60Gi")
    assert marker_writes(w) == 1


async def test_a_settled_domain_writes_nothing():
    w, key, _ = world("kvm1", "kvm2")
    await reconcile(w.context, key)
    w.client.writes.clear()
    for _ in range(3):
        w.clock.move(400)
        await reconcile(w.context, key)
    assert w.client.writes == []
    assert marker_writes(w) == 1


async def test_directories_that_are_not_shared_are_found_and_left_as_they_were():
    w, key, _ = world("kvm1", "kvm2", shared=False)
    await reconcile(w.context, key)
    assert "id" not in w.status(key)
    assert w.standing(key)[1] == "True"
    w.clock.move(80)
    await reconcile(w.context, key)
    assert w.standing(key) == ("False", "False", "True", "NotShared")
    assert "kvm2" in w.condition(key, "Ready")[2]
    assert all(MARKER not in h.directories[PATH].files for h in w.hosts.hosts.values())


async def test_not_shared_heals_when_the_share_is_mounted():
    w, key, _ = world("kvm1", "kvm2", shared=False)
    await reconcile(w.context, key)
    w.clock.move(80)
    await reconcile(w.context, key)
    w.hosts.hosts["kvm2"].directories = w.hosts.hosts["kvm1"].directories
    w.clock.move(61)
    await reconcile(w.context, key)
    assert w.standing(key)[0] == "True"


async def test_first_use_waits_for_the_other_hosts_but_not_for_ever():
    w, key, directory = world("kvm1", "kvm2")
    w.hosts.hosts["kvm2"].never_connected()
    await reconcile(w.context, key)
    assert directory.files == {}
    assert w.standing(key) == ("False", "True", "False", "WaitingForHosts")
    w.clock.move(31)
    await reconcile(w.context, key)
    assert w.status(key)["id"] == written(directory)["id"]
    assert w.status(key)["phase"] == "Degraded"
    assert w.standing(key)[0] == "True"


async def test_a_host_without_the_path_holds_up_the_first_use_and_is_named():
    w, key, directory = world("kvm1", "kvm2")
    del w.hosts.hosts["kvm2"].directories[PATH]
    await reconcile(w.context, key)
    assert directory.files == {}
    assert w.standing(key) == ("False", "False", "True", "PathMissing")
    assert "kvm2" in w.condition(key, "Ready")[2]


async def test_a_marker_of_ours_is_adopted_when_the_id_was_lost():
    w, key, directory = world("kvm1", "kvm2")
    directory.files[MARKER] = marker()
    await reconcile(w.context, key)
    assert w.status(key)["id"] == ID
    assert marker_writes(w) == 0


async def test_a_crash_between_writing_and_recording_rebinds():
    w, key, directory = world("kvm1", "kvm2")
    directory.files[MARKER] = marker(nonce="of-the-process-that-died")
    await reconcile(w.context, key)
    assert w.standing(key)[0] == "True"
    assert written(directory)["nonce"] == "of-the-process-that-died"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"installation": "another"}, "OwnedByOther"),
        ({"name": "slow"}, "OtherDomain"),
        ({"scope": "HostLocal", "host": "kvm1"}, "OtherDomain"),
    ],
)
async def test_storage_of_somebody_else_is_never_taken(changes, reason):
    w, key, directory = world("kvm1")
    directory.files[MARKER] = marker(**changes)
    before = dict(directory.files)
    for _ in range(3):
        await reconcile(w.context, key)
        w.clock.move(100)
    assert directory.files == before
    assert w.standing(key) == ("False", "False", "True", reason)


async def test_an_unmounted_share_is_found_and_never_marked_anew():
    w, key, directory = world("kvm1", "kvm2")
    await reconcile(w.context, key)
    kvm2 = w.hosts.hosts["kvm2"]
    kvm2.directories[PATH] = Directory()
    w.clock.move(20)
    await reconcile(w.context, key)
    assert kvm2.directories[PATH].files == {}
    assert w.status(key)["phase"] == "Degraded"
    assert w.standing(key) == ("False", "False", "True", "MarkerMissing")
    assert [e[0] for e in w.recorder.events] == ["Initialized", "Unreachable", "MarkerMissing"]
    kvm2.directories[PATH] = directory
    w.clock.move(20)
    await reconcile(w.context, key)
    assert w.standing(key)[0] == "True"


async def test_another_storage_under_the_path_is_found():
    w, key, _ = world("kvm1", "kvm2")
    await reconcile(w.context, key)
    other = Directory({MARKER: marker()})
    w.hosts.hosts["kvm2"].directories[PATH] = other
    w.clock.move(20)
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "OtherDomain"


async def test_disks_without_a_marker_anywhere_forbid_a_first_use():
    w, key, directory = world("kvm1")
    volume = {"name": "default.a-00000000.qcow2", "provisionedAt": "2026-11-20T12:00:00Z"}
    w.add("Disk", "a", {"size": "1Gi", "storageDomain": "fast"}, namespace="default", status={"volume": volume})
    await reconcile(w.context, key)
    assert directory.files == {}
    assert w.standing(key)[3] == "MarkerMissing"


async def test_a_marker_whose_writing_was_cut_off_is_completed_after_a_while():
    w, key, directory = world("kvm1")
    directory.files[MARKER] = bytes(1024)
    await reconcile(w.context, key)
    assert directory.files[MARKER] == bytes(1024)
    assert w.standing(key)[1] == "True"
    w.clock.move(31)
    await reconcile(w.context, key)
    assert w.status(key)["id"] == written(directory)["id"]


async def test_a_marker_that_cannot_be_read_stops_everything():
    w, key, directory = world("kvm1")
    directory.files[MARKER] = b"hello"
    await reconcile(w.context, key)
    assert directory.files[MARKER] == b"hello"
    assert w.standing(key)[3] == "MarkerUnreadable"


async def test_a_storage_that_refuses_the_marker_is_said():
    w, key, _ = world("kvm1")
    w.hosts.hosts["kvm1"].fail["create_volume"] = Refused("read-only file system", reason="OperationFailed")
    await reconcile(w.context, key)
    ready, _, stalled, reason = w.standing(key)
    assert (ready, stalled, reason) == ("False", "True", "OperationFailed")
    assert "read-only" in w.condition(key, "Ready")[2]


async def test_host_local_directories_are_marked_each_for_its_host():
    w, key, _ = world("kvm1", "kvm2", spec=LOCAL, shared=False)
    await reconcile(w.context, key)
    await reconcile(w.context, key)
    markers = {n: json.loads(h.directories[PATH].files[MARKER]) for n, h in w.hosts.hosts.items()}
    assert {n: m["host"] for n, m in markers.items()} == {"kvm1": "kvm1", "kvm2": "kvm2"}
    assert len({m["id"] for m in markers.values()} | {w.status(key)["id"]}) == 1
    assert w.standing(key)[0] == "True"
    assert w.status(key)["capacity"] == "200Gi"
    w.hosts.hosts["kvm2"].directories[PATH] = Directory()
    w.clock.move(20)
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "MarkerMissing"
    assert w.hosts.hosts["kvm2"].directories[PATH].files == {}


async def test_one_directory_for_two_hosts_is_not_host_local():
    w, key, _ = world("kvm1", "kvm2", spec=LOCAL, shared=True)
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "OtherDomain"
    assert "kvm1" in w.condition(key, "Ready")[2]


async def test_a_paused_or_maintained_domain_is_not_marked():
    w, key, directory = world("kvm1", annotations={"hostler.dev/paused": "anna"})
    await reconcile(w.context, key)
    w2, key2, directory2 = world("kvm1", spec={**SPEC, "mode": "Maintenance"})
    await reconcile(w2.context, key2)
    assert directory.files == directory2.files == {}
    assert w.condition(key, "Paused")[0] == "True"
    assert w2.status(key2)["phase"] == "Maintenance"


async def test_deletion_waits_for_disks_and_leaves_the_storage_alone():
    w, key, directory = world("kvm1", deletionTimestamp="2026-11-20T12:00:00Z", status={"id": ID})
    directory.files[MARKER] = marker()
    disk = w.add("Disk", "a", {"size": "1Gi", "storageDomain": "fast"}, namespace="default")
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "InUse"
    assert "default/a" in w.condition(key, "Ready")[2]
    assert w.status(key)["diskCount"] == 1
    w.cache.delete(disk)
    await reconcile(w.context, key)
    assert w.cache.get(key) is None
    assert MARKER in directory.files


async def test_unknown_pool_is_said_and_heals():
    w = World()
    key = w.add("StorageDomain", "fast", SPEC)
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "PoolNotFound"
    w.pool()
    w.host("kvm1").directories[PATH] = Directory()
    await reconcile(w.context, key)
    assert w.standing(key)[0] == "True"


async def test_verify_looks_once_for_many_and_sees_what_went_missing():
    w, key, _ = world("kvm1")
    await reconcile(w.context, key)
    domain = w.context.objects.get(StorageDomain, "fast")
    assert domain is not None
    host = w.hosts.hosts["kvm1"]
    host.calls.clear()
    w.clock.move(10)
    await asyncio.gather(*(verify(w.context, domain, host) for _ in range(10)))
    assert sum(call[0] == "download" for call in host.calls) == 1
    host.directories[PATH] = Directory()
    await verify(w.context, domain, host)
    w.clock.move(6)
    with pytest.raises(DomainNotReachable) as caught:
        await verify(w.context, domain, host)
    assert caught.value.reason == "MarkerMissing"


async def test_verify_refuses_a_domain_that_is_not_in_use():
    w, _, _ = world("kvm1")
    domain = w.context.objects.get(StorageDomain, "fast")
    assert domain is not None
    with pytest.raises(DomainNotReachable) as caught:
        await verify(w.context, domain, w.hosts.hosts["kvm1"])
    assert caught.value.reason == "NotInitialized"


async def test_free_space_is_shown_seldom_and_a_shortage_is_said():
    w, key, directory = world("kvm1")
    await reconcile(w.context, key)
    directory.available = 59 * GIB + GIB // 2
    w.clock.move(400)
    await reconcile(w.context, key)
    assert w.status(key)["available"] == "60Gi"
    directory.available = 5 * GIB
    w.clock.move(10)
    await reconcile(w.context, key)
    assert w.condition(key, "SpaceLow")[0] == "True"
    assert w.status(key)["available"] == "5Gi"
    directory.available = 10 * GIB + GIB // 2
    w.clock.move(10)
    await reconcile(w.context, key)
    assert w.condition(key, "SpaceLow")[0] == "True"
    assert w.status(key)["available"] == "5Gi"


async def test_a_host_that_is_not_operational_says_nothing_of_the_storage():
    w, key, directory = world("kvm1")
    twin = w.host("twin", status={"phase": "NonOperational"})
    twin.directories[PATH] = directory
    await reconcile(w.context, key)
    assert w.standing(key)[0] == "True"
    assert twin.calls == []
    assert w.status(key)["hosts"][1]["reason"] == "HostNonOperational"
