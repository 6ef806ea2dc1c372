"""Records, places and removal: what is on the storage, over hosts in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crds.disk import Disk
from crds.virtual_machine import VirtualMachine
from drivers.errors import HostTimeout
from drivers.model import ConnectionState, FileNames
from engine.errors import Conflict
from engine.keys import Key
from reconcilers.disk import begun, place, record, removal
from reconcilers.disk import reconcile as reconcile_disk
from reconcilers.disk.record import Record
from reconcilers.storage_domain import reconcile
from reconcilers.virtual_machine.act import release
from reconcilers.virtual_machine.plan import Release
from tests.unit.reconcilers.builders import DiskBuilder, disk, storage, vm
from tests.unit.reconcilers.fakes import INSTALLATION, Directory, World, domain
from xmlgen.names import MARKER, import_name, record_name, trash_name, volume_name

PATH = "/srv/vms"
NAME = volume_name("default", "root", "uid-root", "qcow2")
MINE = Record(INSTALLATION, "default", "root", "uid-root", NAME, "qcow2")


class Storage(World):
    """A world with one storage domain, in use, on one host."""

    async def begin(self, **spec: Any) -> Storage:
        self.pool()
        self.directory = Directory()
        self.kvm1 = self.host("kvm1")
        self.kvm1.directories[PATH] = self.directory
        key = self.add(
            "StorageDomain", "fast", {"type": "directory", "directory": {"path": PATH}, "pools": ["default"], **spec}
        )
        await reconcile(self.context, key)
        return self

    def disk(self, built: DiskBuilder) -> Disk:
        self.client.put(built.raw())
        found = self.context.objects.get(Disk, "root", "default")
        assert found is not None
        return found

    def files(self) -> set[str]:
        return set(self.directory.files) - {MARKER}

    def owned(self, volume: str, owner: Record) -> None:
        self.directory.files[volume] = b"data"
        self.directory.files[record_name(volume)] = json.dumps(vars(owner)).encode()


# Records -------------------------------------------------------------------------------------------------------------


async def test_a_record_is_read_as_it_was_written():
    w = await Storage().begin()
    await record.write(w.kvm1, PATH, MINE)
    assert await record.read(w.kvm1, PATH, NAME) == MINE
    w.kvm1.calls.clear()
    await record.write(w.kvm1, PATH, MINE)
    assert [c[0] for c in w.kvm1.calls] == ["download"], "written again it changes nothing"


@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"{", b"[]", b'{"installation": "x"}', b'"text"', b"\xff\xfe"])
async def test_what_is_no_whole_record_is_none(content):
    w = await Storage().begin()
    w.directory.files[record_name(NAME)] = content
    assert await record.read(w.kvm1, PATH, NAME) is None
    await record.write(w.kvm1, PATH, MINE)
    assert await record.read(w.kvm1, PATH, NAME) == MINE


async def test_a_host_that_cannot_be_asked_is_no_missing_record():
    w = await Storage().begin()
    w.kvm1.fail["download"] = HostTimeout("no answer")
    with pytest.raises(HostTimeout):
        await record.read(w.kvm1, PATH, NAME)


def test_whose_a_record_is():
    assert MINE.same_disk(Record(INSTALLATION, "default", "root", "dead", "x", "raw"))
    assert not MINE.same_disk(Record("another", "default", "root", "uid-root", NAME, "qcow2"))
    assert not MINE.same_disk(Record(INSTALLATION, "prod", "root", "uid-root", NAME, "qcow2"))


# Places --------------------------------------------------------------------------------------------------------------


async def test_a_new_disk_gets_a_name_of_its_own():
    w = await Storage().begin()
    claimed = await place.claim(w.context, w.disk(disk()), storage().build(), w.kvm1)
    assert (claimed.name, claimed.path, claimed.host, claimed.taken_over) == (NAME, f"{PATH}/{NAME}", None, False)
    local = await place.claim(w.context, w.disk(disk()), storage(scope="HostLocal").build(), w.kvm1)
    assert local.host == "kvm1"


async def test_a_disk_that_was_made_again_finds_its_volume():
    w = await Storage().begin()
    past = volume_name("default", "root", "dead", "qcow2")
    w.owned(past, Record(INSTALLATION, "default", "root", "dead", past, "qcow2"))
    claimed = await place.claim(w.context, w.disk(disk()), storage().build(), w.kvm1)
    assert (claimed.name, claimed.taken_over) == (past, True)


@pytest.mark.parametrize("what", ["trashed", "foreign", "no record", "other format"])
async def test_what_is_not_its_past_is_left(what):
    w = await Storage().begin()
    past = volume_name("default", "root", "dead", "raw" if what == "other format" else "qcow2")
    owner = "another" if what == "foreign" else INSTALLATION
    w.owned(past, Record(owner, "default", "root", "dead", past, "qcow2"))
    if what == "trashed":
        w.directory.files[f"{past}.trash-1"] = b""
    if what == "no record":
        del w.directory.files[record_name(past)]
    claimed = await place.claim(w.context, w.disk(disk()), storage().build(), w.kvm1)
    assert (claimed.name, claimed.taken_over) == (NAME, False)


def existing(path: str) -> dict[str, Any]:
    return {"source": {"existing": {"path": path}}}


def image(path: str) -> dict[str, Any]:
    return {"source": {"file": {"path": path, "checksum": "sha256:" + "0" * 64}}}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (existing("a.qcow2"), None),
        (existing(f"{PATH}/a.qcow2"), None),
        (image("a.img"), None),
        (existing("/etc/passwd"), "PathOutside"),
        (existing("old.raw.trash-1"), "OwnedByOther"),
        (existing("/srv/vms-other/a"), "PathOutside"),
        (existing(f"{PATH}/sub/a"), "PathOutside"),
        (existing("sub/a"), "PathOutside"),
        (image("/srv/a"), "PathOutside"),
        (existing(".."), "PathOutside"),
        (image(f"{PATH}/.."), "PathOutside"),
        (existing(MARKER), "OwnedByOther"),
        (existing(record_name(NAME)), "OwnedByOther"),
        (image(NAME), "OwnedByOther"),
        (image(import_name(NAME)), "OwnedByOther"),
        (existing(NAME), None),
    ],
)
def test_only_files_of_the_directory_itself_are_taken(source, reason):
    found = place.file_problem(disk(**source).build(), storage().build())
    assert (found.reason if found is not None else None) == reason


# Removal -------------------------------------------------------------------------------------------------------------


async def removed(w: Storage, built: DiskBuilder) -> str | None:
    """Reason that the deletion waits for, or None when the object was let go."""
    found = await removal.remove(w.context, w.disk(built.deleting()))
    assert (w.cache.get(Key("Disk", "default", "root")) is None) is (found is None)
    return found.reason if found is not None else None


async def test_a_whole_volume_goes_to_the_trash():
    w = await Storage().begin()
    w.owned(NAME, MINE)
    assert await removed(w, disk().volume(NAME)) is None
    assert place.is_trashed(NAME, FileNames(w.files()))
    assert w.recorder.events[-1][0] == "Trashed"
    assert NAME in w.recorder.events[-1][1]
    assert {NAME, record_name(NAME)} <= w.files()


async def test_a_late_mark_beside_a_volume_that_is_in_use_is_removed():
    """Its writer stood still while the volume was taken back: with Retain it would be purged one day."""
    w = await Storage().begin()
    w.owned(NAME, MINE)
    w.directory.files |= {trash_name(NAME, 5): b"", f"{NAME}.trash-notes": b"a person's", trash_name(NAME, 7): b"data"}
    w.disk(disk().volume(NAME))
    w.add("Namespace", "default", {})
    await reconcile_disk(w.context, Key("Disk", "default", "root"))
    assert {name for name in w.files() if ".trash-" in name} == {f"{NAME}.trash-notes", trash_name(NAME, 7)}


async def test_without_trash_it_goes_for_good():
    w = await Storage().begin(trashSeconds=0)
    w.owned(NAME, MINE)
    assert await removed(w, disk().volume(NAME)) is None
    assert w.files() == set()


async def test_what_was_never_whole_goes_for_good():
    w = await Storage().begin()
    found = disk().volume(NAME, whole=False)
    begun.chosen(w.context, w.disk(found), w.kvm1, PATH, NAME)
    w.directory.files.update({NAME: b"half", import_name(NAME): b"half"})
    assert await removed(w, found) is None
    assert w.files() == set()


async def test_what_another_controller_had_begun_is_marked_too_as_its_calls_may_come_late():
    w = await Storage().begin()
    w.directory.files.update({NAME: b"half", import_name(NAME): b"half"})
    assert await removed(w, disk().volume(NAME, whole=False)) is None
    (mark,) = w.files()
    assert mark.startswith(f"{NAME}.trash-")
    # The sweep removes whatever comes until then.
    w.directory.files.update({NAME: b"late", import_name(NAME): b"late", record_name(NAME): b"late"})
    w.clock.move(2 * 86400)
    key = Key("StorageDomain", "", "fast")
    await reconcile(w.context, key)
    assert w.files() == set()


async def test_retained_volumes_stay():
    w = await Storage().begin(trashSeconds=0)
    w.owned(NAME, MINE)
    assert await removed(w, disk(deletionPolicy="Retain").volume(NAME)) is None
    assert w.files() == {NAME, record_name(NAME)}


@pytest.mark.parametrize("trash", [0, 1000])
@pytest.mark.parametrize("owner", ["other", "foreign", "nobody"])
async def test_a_volume_that_was_named_and_never_taken_over_stays(owner, trash):
    """It may be another Disk's: naming it in a Disk of one's own must not delete it."""
    w = await Storage().begin(trashSeconds=trash)
    theirs = volume_name("prod", "database", "uid-db", "qcow2")
    installation = "another" if owner == "foreign" else INSTALLATION
    w.owned(theirs, Record(installation, "prod", "database", "uid-db", theirs, "qcow2"))
    if owner == "nobody":
        del w.directory.files[record_name(theirs)]
    before = dict(w.directory.files)
    mine = disk(deletionPolicy="Delete", **existing(theirs)).volume(theirs, whole=False, taken_over=True)
    assert await removed(w, mine) is None
    assert w.directory.files == before


async def test_an_own_volume_of_the_past_goes_to_the_trash_and_not_for_good():
    w = await Storage().begin()
    past = volume_name("default", "root", "dead", "qcow2")
    w.owned(past, Record(INSTALLATION, "default", "root", "dead", past, "qcow2"))
    assert await removed(w, disk().volume(past, whole=False, taken_over=True)) is None
    assert past in w.files()
    assert place.is_trashed(past, FileNames(w.files()))


async def test_a_crash_before_the_end_is_carried_on(monkeypatch):
    w = await Storage().begin()
    w.owned(NAME, MINE)

    async def crashes(*_: Any, **__: Any) -> None:
        raise Conflict(409, "Conflict", "somebody was faster")

    with monkeypatch.context() as patched:
        patched.setattr(w.client, "patch_metadata", crashes)
        with pytest.raises(Conflict):
            await removed(w, disk().volume(NAME))
    assert await removed(w, disk().volume(NAME)) is None
    assert len([name for name in w.files() if ".trash-" in name]) == 1


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [("delete.check.hostler.dev/backup", "DeletionHeld"), ("hostler.dev/paused", "Paused")],
)
async def test_who_holds_it_up(annotation, reason):
    w = await Storage().begin()
    w.owned(NAME, MINE)
    assert await removed(w, disk().volume(NAME).annotated(annotation)) == reason
    assert not place.is_trashed(NAME, FileNames(w.files()))


async def test_it_waits_for_a_vm_that_refers_to_it_and_for_a_domain_that_has_it_open():
    w = await Storage().begin()
    w.owned(NAME, MINE)
    refers = vm("web").spec(disks=[{"name": "root", "diskRef": {"name": "root"}}])
    w.client.put(refers.raw())
    assert await removed(w, disk().volume(NAME)) == "InUse"
    w.client.put(refers.deleting().raw())
    assert await removed(w, disk().volume(NAME)) == "InUse", "its domain may still run"
    w.client.put(refers.meta(finalizers=[]).raw())
    w.kvm1.domains = [domain("prod.other", ours=False, images=(f"{PATH}/{NAME}",))]
    assert await removed(w, disk().volume(NAME)) == "InUse"
    w.kvm1.domains = []
    assert await removed(w, disk().volume(NAME)) is None


async def test_it_waits_for_a_host_that_reaches_the_volume():
    w = await Storage().begin()
    w.kvm1.disconnect()
    assert await removed(w, disk().volume(NAME)) == "StorageNotReachable"


async def test_a_domain_that_is_gone_takes_the_knowledge_with_it():
    w = await Storage().begin()
    w.cache.delete(Key("StorageDomain", "", "fast"), "uid-StorageDomain-fast")
    assert await removed(w, disk().volume(NAME)) is None
    assert [reason for reason, _ in w.recorder.events] == ["Initialized", "VolumeLeft"]


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_what_was_not_always_this_disks_is_not_deleted_while_a_host_is_silent(policy):
    w = await Storage().begin()
    w.owned(NAME, MINE)
    built = disk(deletionPolicy=policy).volume(NAME, taken_over=True).deleting()
    silent = w.host("kvm2")
    silent.disconnect()
    waits = await removal.remove(w.context, w.disk(built))
    if policy == "Retain":
        assert waits is None
        return
    assert waits is not None and waits.reason == "HostUnreachable" and "kvm2" in waits.message
    assert w.files() == {NAME, record_name(NAME)}
    silent.state = ConnectionState.CONNECTED
    current = w.context.objects.get(Disk, "root", "default")
    assert current is not None
    assert await removal.remove(w.context, current) is None
    assert any(".trash-" in name for name in w.files())


async def test_a_domain_that_is_given_back_leaves_its_disks_with_an_unknown_history():
    w = await Storage().begin()
    given = w.disk(disk().volume(NAME))
    assert given.status.volume is not None and not given.status.volume.taken_over
    leaving = vm("web").spec(disks=[{"name": "root", "diskRef": {"name": "root"}}]).running_on("kvm1")
    w.client.put(leaving.raw())
    found = w.context.objects.get(VirtualMachine, "web", "default")
    assert found is not None
    assert await release(w.context, found, Release(orphan=True), ()) is None
    kept = w.context.objects.get(Disk, "root", "default")
    assert kept is not None and kept.status.volume is not None and kept.status.volume.taken_over


async def test_a_disk_that_was_never_given_a_volume_goes_though_a_vm_names_it():
    w = await Storage().begin()
    w.client.put(vm("web").spec(disks=[{"name": "root", "diskRef": {"name": "root"}}]).running_on("kvm1").raw())
    assert await removal.remove(w.context, w.disk(disk().deleting())) is None
    assert w.files() == set()
