"""What a VM needs from other objects: every problem in one pass, each with its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crds.virtual_machine import VirtualMachine
from drivers.model import DeviceObservation, DomainState, Identity, JobKind, Mirror
from reconcilers.context import Reservation
from reconcilers.standing import progressing, stalled
from reconcilers.virtual_machine.document import files_of, placement_request, seed_input
from reconcilers.virtual_machine.needs import Needs, disk_name, disk_names, resolve
from tests.unit.reconcilers.builders import Builder, VmBuilder, at, disk, storage, vm
from tests.unit.reconcilers.fakes import BASELINE, GIB, INSTALLATION, World, domain
from xmlgen.names import nvram_name

MAC = "52:54:00:00:00:01"
NOBODY = {"namespaceSelector": {"matchLabels": {"team": "x"}}}
DRIVE = {"name": "root", "diskRef": {"name": "root"}}


def world(*objects: Builder, pool: dict[str, Any] | None = None, lan: dict[str, Any] | None = None) -> World:
    w = World()
    w.pool(spec=pool, status={"baseline": BASELINE})
    w.add("Network", "lan", {"type": "bridge", "bridge": {"name": "lan"}, "pools": ["default"], **(lan or {})})
    w.cache.upsert(
        {
            "kind": "Namespace",
            "metadata": {"name": "default", "uid": "n", "labels": {"team": "a"}, "resourceVersion": "1"},
        }
    )
    for built in (storage().reached_by("kvm1"), *objects):
        w.client.put(built.raw())
    return w


def needs(w: World, built: VmBuilder) -> Needs:
    w.client.put(built.raw())
    found = w.context.objects.get(VirtualMachine, built.obj["metadata"]["name"], "default")
    assert found is not None
    return resolve(w.context, found)


def reasons(found: Needs) -> list[str]:
    return [v.reason for v in (*found.problems, *found.disk_problems)]


WHOLE = disk("root").volume("root.qcow2")


def full(**spec: Any) -> VmBuilder:
    return vm().spec(disks=[DRIVE], nics=[{"name": "lan", "network": "lan", "mac": MAC}], **spec)


def test_everything_is_there():
    found = needs(world(WHOLE), full())
    assert (reasons(found), found.verdict) == ([], None)
    assert found.storage_domains == {"fast"}
    assert (found.hosts, found.taken_over) == (None, False)
    assert set(found.networks) == {"lan"}
    assert [d.disk.metadata.name for d in found.drives if d.disk is not None] == ["root"]


def test_all_that_is_missing_is_found_at_once():
    lacks = vm(pool="none").spec(disks=[DRIVE], nics=[{"name": "a", "network": "none"}])
    found = needs(world(), lacks)
    assert reasons(found) == ["PoolNotFound", "NetworkNotFound", "DiskNotFound"]
    assert found.verdict is not None
    assert all(word in found.verdict.message for word in ("HostPool none", "Network none", "Disk root"))


def test_what_a_person_must_mend_comes_before_what_takes_time():
    soon, never = progressing("DisksNotReady", "soon", 60), stalled("DiskNotFound", "never")
    assert Needs(None, (), {}, (), (soon, never)).verdict == never
    assert Needs(None, (), {}, (), (soon,)).verdict == soon
    same = Needs(None, (), {}, (soon,), (soon,)).verdict
    assert same is not None
    assert same.message == "soon", "said once"


def test_a_pool_that_has_not_learnt_its_cpu():
    w = world(WHOLE)
    w.pool()
    assert reasons(needs(w, full())) == ["PoolNotReady"]


@pytest.mark.parametrize("kind", ["pool", "lan"])
def test_a_namespace_that_may_not_use_it(kind):
    found = needs(world(WHOLE, **{kind: {"consumers": NOBODY}}), full())
    assert reasons(found) == ["NotAllowed"]


@pytest.mark.parametrize(
    ("built", "reason"),
    [
        (disk("root"), "DisksNotReady"),
        (disk("root").volume("x", whole=False), "DisksNotReady"),
        (disk("root").volume("x").status(phase="Failed"), "DisksNotReady"),
        (WHOLE, None),
        (disk("root").volume("x").status(phase="Resizing"), None),
        (disk("root").volume("x").deleting(), "DiskDeleting"),
        (disk("root", storageDomain="gone").volume("x"), "StorageDomainNotFound"),
        (
            disk("root")
            .status(phase="Failed")
            .condition("Ready", "False", "ChecksumMismatch", message="it differs")
            .condition("Stalled", "True", "ChecksumMismatch"),
            "ChecksumMismatch",
        ),
    ],
)
def test_the_state_of_a_disk(built, reason):
    found = needs(world(built), full())
    assert reasons(found) == ([reason] if reason else [])
    if reason == "ChecksumMismatch":
        assert found.verdict is not None
        assert found.verdict.bound is None
        assert "it differs" in found.verdict.message


def test_a_domain_in_maintenance():
    w = world(WHOLE)
    w.client.put(storage(mode="Maintenance").reached_by("kvm1").raw())
    assert reasons(needs(w, full())) == ["StorageMaintenance"]


TEMPLATE = {"name": "data", "template": {"size": "1Gi", "storageDomain": "fast"}}


def test_a_disk_of_a_template_is_awaited_and_must_be_the_vm_s_own():
    wants = vm().spec(disks=[TEMPLATE])
    assert reasons(needs(world(), wants)) == ["DisksNotReady"]
    assert reasons(needs(world(disk("web-data").volume("x")), wants)) == ["DiskNameTaken"]
    assert reasons(needs(world(disk("web-data").volume("x").owned_by("web")), wants)) == []


def test_names_of_disks():
    built = vm().spec(disks=[DRIVE, TEMPLATE, {"name": "cd", "type": "cdrom"}]).build()
    assert [disk_name(built, d) for d in built.spec.disks] == ["root", "web-data", None]
    assert disk_names(built) == ("root", "web-data")


# Conflicts -----------------------------------------------------------------------------------------------------------


def other(**spec: Any) -> VmBuilder:
    return vm("other").spec(disks=[DRIVE], **spec)


@pytest.mark.parametrize(
    ("holder", "taken"),
    [
        (other(), False),
        (other().placed(None), False),
        (other().running_on("kvm1"), True),
        (other().placed(None, "kvm1"), True),
    ],
)
def test_a_disk_that_another_vm_holds(holder, taken):
    assert reasons(needs(world(WHOLE, holder), full())) == (["DiskInUse"] if taken else [])


def test_a_disk_that_another_vm_was_just_promised_a_host_for():
    w = world(WHOLE, other())
    w.context.reservations["uid-other"] = Reservation("kvm1", 1, 1)
    assert reasons(needs(w, full())) == ["DiskInUse"]


@pytest.mark.parametrize(
    ("content", "form", "drive", "reason"),
    [
        ("Other", "raw", {"type": "cdrom", "bootOrder": 1}, "NotAnISO"),
        ("Other", "qcow2", {"type": "cdrom", "bootOrder": 1}, "NotAnISO"),
        ("CDROM", "raw", {"type": "cdrom", "bootOrder": 1}, None),
        (None, "raw", {"type": "cdrom", "bootOrder": 1}, None),
        ("Other", "raw", {"type": "cdrom"}, None),
        ("Other", "qcow2", {"type": "cdrom"}, None),
        ("Other", "raw", {"bootOrder": 1}, None),
    ],
)
def test_what_is_booted_from_as_a_cd_is_one(content, form, drive, reason):
    """Any image can be in a drive that nobody boots from; what a volume of old holds is not known."""
    built = disk("root", format=form).volume("root.img")
    if content is not None:
        built.obj["status"]["volume"]["content"] = content
    found = needs(world(built), vm().spec(disks=[{**DRIVE, **drive}]))
    assert reasons(found) == ([reason] if reason else [])
    if reason is not None:
        assert found.verdict is not None
        assert found.verdict.bound is None, "a person must mend it"
        assert all(word in found.verdict.message for word in ("disk root", "drive root", "format raw"))


def test_shared_disks_and_cdroms_are_for_several():
    holder = other().running_on("kvm1")
    shared = disk("root", access="Shared", format="raw").volume("x")
    assert reasons(needs(world(shared, holder), full())) == []
    assert reasons(needs(world(WHOLE, holder), vm().spec(disks=[{**DRIVE, "type": "cdrom"}]))) == []


def stamp(installation: str = INSTALLATION, namespace: str = "default", name: str = "web") -> Identity:
    return Identity(installation, namespace, name, "u", 1)


@pytest.mark.parametrize(
    ("identity", "state", "taken"),
    [
        (stamp(), "running", False),
        (stamp(name="twin"), "running", True),
        (stamp(namespace="prod"), "running", True),
        (stamp("another"), "running", True),
        (None, "running", True),
        (None, "paused", True),
        (None, "shutoff", False),
    ],
)
def test_a_disk_that_some_domain_has_open(identity, state, taken):
    w = world(WHOLE)
    path = WHOLE.obj["status"]["path"]
    w.host("kvm1").domains = [domain("x", identity=identity, state=DomainState(state), images=(path,))]
    assert reasons(needs(w, full())) == (["DiskInUse"] if taken else [])


@pytest.mark.parametrize(
    ("source", "below", "taken"), [("top", True, True), ("top", False, True), ("cd", True, False), ("cd", False, False)]
)
def test_a_disk_below_what_some_domain_writes_or_copied_to_by_it(source, below, taken):
    w = world(WHOLE)
    path = WHOLE.obj["status"]["path"]
    theirs = DeviceObservation("ua-disk-root", None, source=f"/srv/vms/{source}")
    more = {"backing": (path,)} if below else {"mirror": Mirror(path, JobKind.COPY, ready=False)}
    devices = (replace(theirs, **more),)
    w.host("kvm1").domains = [domain("x", ours=False, images=("/srv/vms/top",), devices=devices)]
    assert reasons(needs(w, full())) == (["DiskInUse"] if taken else [])


def test_a_vm_that_has_its_disk_open_is_not_disturbed_by_one_that_asks_for_it():
    user = full().running_on("kvm1")
    late = vm("late").spec(disks=[DRIVE]).running_on("kvm1")
    w = world(WHOLE, user, late)
    open_here = domain("default.web", uid="uid-web", images=(WHOLE.obj["status"]["path"],))
    w.host("kvm1").domains = [open_here]
    assert reasons(needs(w, user)) == []
    assert reasons(needs(w, late)) == ["DiskInUse"]
    w.host("kvm1").domains = [open_here, domain("x", ours=False, images=open_here.images)]
    assert reasons(needs(w, user)) == ["DiskInUse"], "a second writer is said whoever came first"
    w.host("kvm1").domains = [domain("default.web", uid="uid-web")]
    assert reasons(needs(w, user)) == ["DiskInUse"], "without the disk it is one of two that ask"


def test_a_path_on_another_host_is_another_disk_where_disks_are_local():
    w = world(disk("root").volume("root.qcow2", host="kvm2"))
    w.host("kvm1").domains = [domain("x", ours=False, images=("/srv/vms/root.qcow2",))]
    assert reasons(needs(w, full())) == []


def nic(mac: str = MAC) -> list[dict[str, Any]]:
    return [{"name": "lan", "network": "lan", "mac": mac}]


def test_of_two_with_one_address_the_older_keeps_it():
    younger = vm("younger").spec(nics=nic()).meta(creationTimestamp=at(60))
    older = vm("older").spec(nics=nic()).meta(creationTimestamp=at(0))
    w = world(younger, older)
    assert reasons(needs(w, younger)) == ["DuplicateMAC"]
    assert reasons(needs(w, older)) == []
    twice = vm("twice").spec(nics=[*nic(), {**nic()[0], "name": "b"}]).meta(creationTimestamp=at(-1))
    assert reasons(needs(world(), twice)) == ["DuplicateMAC"]


# What follows of it --------------------------------------------------------------------------------------------------


def test_what_is_asked_of_a_host():
    w = world(disk("root").volume("root.qcow2", host="kvm2"))
    built = full(cpu={"sockets": 2, "cores": 2, "model": "EPYC"}, firmware={"type": "UEFI"}, placement={"host": "kvm2"})
    found = needs(w, built)
    request = placement_request(built.build(), found, only=None)
    assert (request.cpus, request.cpu_model, request.uefi, request.host) == (4, "EPYC", True, "kvm2")
    assert request.memory > GIB
    assert (request.storage_domains, request.networks, request.hosts) == ({"fast"}, {"lan"}, {"kvm2"})
    bound = placement_request(built.build(), found, only=frozenset({"kvm1"}))
    assert (bound.hosts, bound.only) == ({"kvm2"}, {"kvm1"})


def test_the_vm_s_own_files_lie_beside_its_first_disk():
    w = world(disk("root").volume("root.qcow2", host="kvm2"))
    built = full(firmware={"type": "UEFI"}, cloudInit={"userData": "#cloud-config\n"})
    found = needs(w, built)
    seed = seed_input(built.build(), None)
    assert seed is not None
    assert (seed.instance_id, seed.hostname, seed.user_data) == ("uid-web", "web", "#cloud-config\n")
    files = files_of(built.build(), found, seed)
    assert files.nvram == f"/srv/vms/{nvram_name('default', 'web', 'uid-web')}"
    assert files.seed is not None
    assert [(r.storage_domain, r.host) for r in files.records] == [("fast", "kvm2")] * 2
    other_seed = seed_input(built.spec(cloudInit={"userData": "other"}).build(), None)
    assert files_of(built.build(), found, other_seed).seed != files.seed
    assert files_of(vm().build(), needs(world(), vm()), None).records == ()
    assert seed_input(vm().build(), None) is None
