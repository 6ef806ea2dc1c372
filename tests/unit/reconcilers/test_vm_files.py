"""A VM's own files and the Disks of its templates; and the reads and writes that all reconcilers stand on."""

from __future__ import annotations

from typing import Any

import pytest

from crds.disk import Disk
from crds.host import Host
from crds.virtual_machine import VirtualMachine
from drivers.model import DeviceObservation, DomainObservation, DomainState
from engine.errors import AlreadyExists, Conflict
from engine.keys import Key
from reconcilers.storage_domain import reconcile
from reconcilers.virtual_machine import disks
from reconcilers.virtual_machine.files import ensure_seed, opened_by, remove_files
from reconcilers.virtual_machine.needs import resolve
from tests.unit.reconcilers.builders import Builder, after, disk, vm
from tests.unit.reconcilers.fakes import Directory, World
from xmlgen import names
from xmlgen.metadata import Identity
from xmlgen.names import MARKER
from xmlgen.seed import SeedInput, seed_digest

PATH = "/srv/vms"
SEED = SeedInput(instance_id="uid-web", hostname="web", user_data="#cloud-config\n", network_data=None)
FILE = f"{PATH}/web.seed.iso"


async def world(*objects: Builder) -> tuple[World, Directory]:
    w = World()
    w.pool()
    directory = Directory()
    w.host("kvm1").directories[PATH] = directory
    spec = {"type": "directory", "directory": {"path": PATH}, "pools": ["default"]}
    await reconcile(w.context, w.add("StorageDomain", "fast", spec))
    for built in objects:
        w.client.put(built.raw())
    w.hosts.hosts["kvm1"].calls.clear()
    return w, directory


def web(w: World) -> VirtualMachine:
    found = w.context.objects.get(VirtualMachine, "web", "default")
    assert found is not None
    return found


# Seeds ---------------------------------------------------------------------------------------------------------------

WITH_DISK = vm().spec(disks=[{"name": "root", "diskRef": {"name": "root"}}])


async def seeded(w: World) -> list[str]:
    host = w.hosts.hosts["kvm1"]
    host.calls.clear()
    await ensure_seed(w.context, web(w), resolve(w.context, web(w)), host, FILE, SEED)  # type: ignore[arg-type]
    return [c[0] for c in host.calls]


async def test_a_seed_is_written_once():
    w, directory = await world(WITH_DISK, disk().volume("root.qcow2"))
    assert await seeded(w) == ["volume_names", "create_volume", "upload"]
    content = directory.files["web.seed.iso"]
    assert content[32769:32774] == b"CD001"
    assert seed_digest(SEED).encode() in content[-2048:]
    assert "upload" not in await seeded(w)
    assert directory.files["web.seed.iso"] == content


async def test_a_seed_that_a_crash_left_half_written_is_made_again():
    w, directory = await world(WITH_DISK, disk().volume("root.qcow2"))
    await seeded(w)
    whole = directory.files["web.seed.iso"]
    for half in (b"", whole[:-2048] + bytes(2048), bytes(len(whole))):
        directory.files["web.seed.iso"] = half
        await seeded(w)
        again = directory.files["web.seed.iso"]
        # The image carries the time of day, so its bytes are those of a second.
        assert (len(again), again[-2048:]) == (len(whole), whole[-2048:])
        assert b"#cloud-config" in again


async def test_seeds_of_an_earlier_object_of_the_name_go_when_the_vm_starts():
    old, recorded, other = (
        names.seed_name("default", name, uid, "0123456789abcdef")
        for name, uid in (("web", "dead"), ("web", "uid-web"), ("web-2", "dead"))
    )
    built = WITH_DISK.status(files=[{"name": recorded, "storageDomain": "fast"}])
    w, directory = await world(built, disk().volume("root.qcow2"))
    directory.files.update(dict.fromkeys((old, recorded, other, "web.nvram.fd"), b"x"))
    await seeded(w)
    assert old not in directory.files
    assert {recorded, other, "web.nvram.fd"} <= set(directory.files)


async def test_what_a_domain_was_given_under_another_uid_is_its_vms():
    w, _ = await world(vm())
    seed = names.seed_name("default", "web", "dead", "0123456789abcdef")
    nvram = names.nvram_name("default", "web", "dead")
    theirs = names.seed_name("default", "web-2", "dead", "0123456789abcdef")
    domain = DomainObservation(
        uuid="1",
        name="default.web",
        state=DomainState.RUNNING,
        stop_reason=None,
        persistent=True,
        sections=(),
        cpus=1,
        memory=2**30,
        identity=Identity("me", "default", "web", "dead", 1),
        devices=(
            DeviceObservation("ua-seed", None, source=f"{PATH}/{seed}"),
            DeviceObservation("ua-disk-cd", None, source=f"{PATH}/{theirs}"),
        ),
        images=(f"{PATH}/root.qcow2", f"{PATH}/{nvram}", f"/elsewhere/{nvram}"),
    )
    found = opened_by(w.context, web(w), domain, "kvm1")
    assert [(file.name, file.storage_domain, file.host) for file in found] == [
        (seed, "fast", None),
        (nvram, "fast", None),
    ]


FILES = [{"name": "web.seed.iso", "storageDomain": "fast"}, {"name": "web.nvram.fd", "storageDomain": "fast"}]


async def test_files_are_removed_and_absent_is_done():
    w, directory = await world(vm().status(files=FILES))
    directory.files.update({"web.seed.iso": b"x", "other": b"y"})
    assert await remove_files(w.context, web(w), web(w).status.files) is None
    assert set(directory.files) == {MARKER, "other"}


async def test_files_that_cannot_be_reached_are_waited_for():
    w, directory = await world(vm().status(files=FILES))
    directory.files["web.seed.iso"] = b"x"
    w.hosts.hosts["kvm1"].disconnect()
    why = await remove_files(w.context, web(w), web(w).status.files)
    assert why is not None
    assert "no host reaches storage domain fast" in why


async def test_nothing_is_removed_where_the_storage_is_not_mounted():
    w, directory = await world(vm().status(files=FILES))
    directory.files = {"web.seed.iso": b"x"}
    w.clock.move(60)
    assert await remove_files(w.context, web(w), web(w).status.files) is not None
    assert directory.files == {"web.seed.iso": b"x"}


async def test_files_of_a_domain_that_is_gone_are_left_and_named():
    gone = [{"name": "a.seed.iso", "storageDomain": "gone"}]
    w, _ = await world(vm().status(files=gone))
    assert await remove_files(w.context, web(w), web(w).status.files) is None
    assert w.recorder.events[-1][0] == "FileLeft"


# Disks of templates --------------------------------------------------------------------------------------------------


def template(**spec: Any) -> dict[str, Any]:
    return {"name": "data", "template": {"size": "1Gi", "storageDomain": "fast", **spec}}


class Creates:
    """Stands for the part of an API server that makes objects and patches specs."""

    def __init__(self, w: World, *, taken: bool = False) -> None:
        self.w, self.taken = w, taken
        self.made: list[Any] = []
        self.patched: list[Any] = []
        w.client.create = self.create  # type: ignore[attr-defined]
        w.client.patch_metadata = self.patch  # type: ignore[method-assign]

    async def create(self, _: Any, body: dict[str, Any], *, manager: str) -> dict[str, Any]:
        self.made.append(body)
        if self.taken:
            raise AlreadyExists(409, "AlreadyExists", "taken")
        return self.w.client.put({**body, "metadata": {**body["metadata"], "uid": "new", "generation": 1}})

    async def patch(self, _: Any, key: Key, ops: list[Any], **__: Any) -> dict[str, Any]:
        self.patched.append(ops)
        found = self.w.cache.get(key)
        assert found is not None
        return self.w.client.put(found)


async def test_a_disk_is_made_of_a_template_and_is_the_vm_s():
    w, _ = await world(vm().spec(disks=[template(discard="Ignore"), {"name": "x", "diskRef": {"name": "x"}}]))
    api = Creates(w)
    await disks.ensure(w.context, web(w))
    await disks.ensure(w.context, web(w))
    assert len(api.made) == 1
    made = w.context.objects.get(Disk, "web-data", "default")
    assert made is not None
    assert api.made[0]["spec"] == {"size": "1Gi", "storageDomain": "fast", "discard": "Ignore"}, "nothing is defaulted"
    owner = made.metadata.owner_references[0]
    assert (owner.kind, owner.uid, owner.controller) == ("VirtualMachine", "uid-web", True)
    assert made.metadata.finalizers == ["hostler.dev/cleanup"]


async def test_a_name_that_is_taken_meanwhile_is_no_error():
    w, _ = await world(vm().spec(disks=[template()]))
    Creates(w, taken=True)
    await disks.ensure(w.context, web(w))


@pytest.mark.parametrize(
    ("declared", "there", "ops"),
    [
        ({}, {}, []),
        ({"size": "2Gi"}, {}, [{"op": "replace", "path": "/spec/size", "value": "2Gi"}]),
        ({}, {"size": "2Gi"}, []),
        ({"discard": "Ignore"}, {}, [{"op": "add", "path": "/spec/discard", "value": "Ignore"}]),
        (
            {"deletionPolicy": "Retain"},
            {},
            [{"op": "add", "path": "/spec/deletionPolicy", "value": "Retain"}],
        ),
        ({}, {"deletionPolicy": "Retain"}, [{"op": "remove", "path": "/spec/deletionPolicy"}]),
    ],
)
async def test_what_may_change_follows_the_template(declared, there, ops):
    own = disk("web-data", **there).owned_by("web")
    w, _ = await world(vm().spec(disks=[template(**declared)]), own)
    api = Creates(w)
    await disks.ensure(w.context, web(w))
    assert api.patched == ([ops] if ops else [])


@pytest.mark.parametrize("theirs", [disk("web-data"), disk("web-data").owned_by("web").deleting()])
async def test_a_disk_that_is_not_the_vm_s_or_goes_is_left(theirs):
    w, _ = await world(vm().spec(disks=[template(size="2Gi")]), theirs)
    api = Creates(w)
    await disks.ensure(w.context, web(w))
    assert api.made == api.patched == []


# Reads and writes ----------------------------------------------------------------------------------------------------


async def test_a_model_is_parsed_once_a_version():
    w, _ = await world(vm())
    first = web(w)
    assert web(w) is first
    w.client.put(vm().status(phase="Running").raw())
    assert web(w) is not first
    assert web(w).status.phase == "Running"


async def test_an_object_that_cannot_be_read_is_none_and_is_said(caplog):
    w, _ = await world()
    w.client.put({**vm("odd").raw(), "spec": {"runPolicy": "Sometimes", "pool": "default"}})
    assert w.context.objects.get(VirtualMachine, "odd", "default") is None
    assert w.context.objects.all(VirtualMachine) == []
    assert "odd cannot be read" in caplog.text
    assert w.context.objects.get(Host, "none") is None


async def test_critical_fields_need_the_object_that_was_read():
    w, _ = await world(vm())
    read = web(w)
    w.client.put(vm().meta(labels={"a": "b"}).raw())
    with pytest.raises(Conflict):
        await w.context.compare_and_set(read, {"uuid": "u"})
    await w.context.compare_and_set(web(w), {"uuid": "u", "startFailure": None})
    assert web(w).status.uuid == "u"
    assert w.client.writes[-1][0] == "patch"


async def test_times_and_models_are_written_as_the_api_carries_them():
    w, _ = await world(vm())
    power = vm().power("On", since=5).build().status.power
    await w.context.compare_and_set(web(w), {"power": power, "uuid": after(1)})
    written = w.client.writes[-1][2]
    assert written["power"]["runPolicy"] == "Always"
    assert written["power"]["since"] == "2026-11-20T12:00:05Z"
    assert written["uuid"] == "2026-11-20T12:00:01Z"


async def test_the_status_of_an_object_that_was_replaced_is_not_written():
    w, _ = await world(vm())
    read = web(w)
    w.client.put(vm().meta(uid="another").raw())
    writes = len(w.client.writes)
    await w.context.write_status(read, {"phase": "Running"})
    assert len(w.client.writes) == writes
