"""Who is woken by what: every relation wakes whom it must, and what we write ourselves wakes nobody for nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from engine.cache import Cache
from engine.keys import Key
from reconcilers.wiring import counted_by, install_indexes, vm_disks, vm_hosts, vm_macs, woken_by, woken_by_host
from tests.unit.reconcilers.builders import disk, storage, vm

MAC = "52:54:00:00:00:01"
Json = dict[str, Any]


def cluster(kind: str, name: str, spec: Json, **status: Any) -> Json:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec, "status": status}


WEB = (
    vm("web")
    .spec(
        disks=[
            {"name": "root", "diskRef": {"name": "root"}},
            {"name": "data", "template": {"size": "1Gi"}},
            {"name": "cd"},
        ],
        nics=[{"name": "lan", "network": "lan", "mac": MAC}],
    )
    .running_on("kvm1")
    .raw()
)
TWIN = (
    vm("twin")
    .spec(disks=[{"name": "root", "diskRef": {"name": "root"}}], nics=[{"name": "n", "network": "dmz", "mac": MAC}])
    .status(phase="Pending")
    .raw()
)
ELSEWHERE = vm("elsewhere", pool="other", namespace="prod").status(phase="Scheduling").raw()
ROOT = disk("root").volume("root.qcow2").raw()
FAST = storage().reached_by("kvm1").raw()
LAN = cluster("Network", "lan", {"type": "bridge", "bridge": {"name": "lan"}, "pools": ["default"]}, hosts=[])
POOL = cluster("HostPool", "default", {}, baseline={"cpu": {}})
KVM1 = cluster("Host", "kvm1", {"pool": "default", "credentialsSecret": "kvm1-tls"}, phase="Up")
KVM2 = cluster("Host", "kvm2", {"pool": "default"}, phase="Up")
SPACE = {
    "kind": "Namespace",
    "metadata": {"name": "default", "labels": {"a": "b"}, "uid": "uid-default", "resourceVersion": "1"},
}
SECRET = {
    "kind": "Secret",
    "metadata": {"name": "kvm1-tls", "namespace": "hostler-system", "uid": "uid-tls", "resourceVersion": "1"},
    "data": {"ca.crt": "YQ=="},
}
EVERYTHING = (WEB, TWIN, ELSEWHERE, ROOT, FAST, LAN, POOL, KVM1, KVM2, SPACE, SECRET)


def woken(change: Callable[[Json], None] | None, obj: Json, *, gone: bool = False, new: bool = False) -> set[str]:
    """Names of who is woken by a change of an object of the world above (by it coming or going)."""
    cache = Cache()
    install_indexes(cache)
    for entry in EVERYTHING:
        cache.upsert(copy.deepcopy(entry))
    after = copy.deepcopy(obj)
    if change is not None:
        change(after)
    after["metadata"]["resourceVersion"] = "2"
    key = Key.of(obj)
    if gone:
        cache.delete(key, obj["metadata"].get("uid"))
    else:
        cache.upsert(after)
    found = woken_by(cache, key, None if new else obj, None if gone else after)
    return {str(k).replace("default/", "") for k in found}


def edit(path: str, value: Any) -> Callable[[Json], None]:
    def change(obj: Json) -> None:
        *parents, last = path.split(".")
        for name in parents:
            obj = obj.setdefault(name, {})
        obj[last] = value

    return change


VM, TWIN_VM, DISK, DATA = "VirtualMachine/web", "VirtualMachine/twin", "Disk/root", "Disk/web-data"


# A status of our own -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", [WEB, ROOT, FAST, LAN, POOL, KVM1])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("phase", "Failed"),
        ("conditions", []),
        ("placement", {"host": "kvm2"}),
        ("power", {"state": "Off"}),
        ("volume", {"name": "x"}),
        ("hosts", []),
        ("id", "another"),
        ("baseline", {}),
        ("devices", [{"name": "ua-nic-a", "mac": "52:54:00:00:00:09"}]),
        ("observedGeneration", 7),
    ],
)
def test_a_status_does_not_wake_its_own_object(obj, path, value):
    assert f"{obj['kind']}/{obj['metadata']['name']}" not in woken(edit(f"status.{path}", value), obj)


@pytest.mark.parametrize("path", ["printableStatus", "guest", "power", "startFailure", "powerRequest", "conditions"])
def test_a_settled_vm_wakes_nobody(path):
    assert woken(edit(f"status.{path}", {"a": "b"}), WEB) == set()


@pytest.mark.parametrize("obj", [WEB, ROOT, FAST, LAN, POOL, KVM1])
def test_nothing_new_wakes_nobody(obj):
    assert woken(None, obj) == set()


@pytest.mark.parametrize("obj", [WEB, ROOT, FAST, LAN, POOL, KVM1])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generation", 2),
        ("annotations", {"hostler.dev/paused": "me"}),
        ("deletionTimestamp", "2026-11-20T12:00:00Z"),
        ("uid", "another"),
        ("finalizers", ["example.org/theirs"]),
        ("labels", {"a": "b"}),
    ],
)
def test_what_others_write_wakes_the_object(obj, name, value):
    own = f"{obj['kind']}/{obj['metadata']['name']}"
    assert own in woken(lambda o: o["metadata"].update({name: value}), obj)


@pytest.mark.parametrize("obj", [WEB, ROOT, FAST, LAN, POOL, KVM1])
def test_what_comes_or_goes_is_looked_at(obj):
    own = f"{obj['kind']}/{obj['metadata']['name']}"
    assert own in woken(None, obj, new=True)
    assert own in woken(None, obj, gone=True)


# Relations -----------------------------------------------------------------------------------------------------------


def test_a_vm_that_moves_or_stops_wakes_its_disks_its_hosts_and_who_waits():
    moved = woken(edit("status.placement", {"host": None, "candidates": ["kvm2"], "epoch": 2}), WEB)
    assert moved == {DISK, DATA, TWIN_VM, "Host/kvm1", "Host/kvm2"}


def test_only_room_that_is_left_wakes_who_waits_for_room():
    """A fleet that is declared at once waits for room as a whole: each start may not wake all the others."""
    bare = copy.deepcopy(WEB)
    bare["spec"]["disks"] = []
    unplaced = copy.deepcopy(bare)
    del unplaced["status"]["placement"]
    assert woken(edit("status.placement", {"host": "kvm1", "candidates": ["kvm1"], "epoch": 1}), unplaced) == {
        "Host/kvm1"
    }
    assert woken(edit("status.placement", {"candidates": [], "epoch": 1}), bare) == {"Host/kvm1", TWIN_VM}


def test_a_vm_whose_finalizer_is_off_lets_its_disks_go():
    assert {DISK, DATA} <= woken(lambda o: o["metadata"].update(finalizers=[]), WEB)


def test_a_vm_that_comes_or_goes_wakes_what_it_refers_to():
    both = {VM, DISK, DATA, TWIN_VM, "Host/kvm1", "HostPool/default", "Network/lan"}
    assert woken(None, WEB, gone=True) == both
    assert woken(None, WEB, new=True) == both


def test_other_disks_wake_the_old_and_the_new_ones():
    assert woken(edit("spec.disks", [{"name": "a", "diskRef": {"name": "new"}}]), WEB) >= {DISK, DATA, "Disk/new"}


def test_an_address_that_is_given_up_wakes_who_waits_for_it():
    assert TWIN_VM in woken(edit("spec.nics", []), WEB)


def test_a_vm_that_leaves_a_network_or_a_pool_wakes_it():
    """It may wait with its own deletion for exactly this."""
    assert "Network/lan" in woken(edit("spec.nics", []), WEB)
    assert {"HostPool/default", "HostPool/other"} <= woken(edit("spec.pool", "other"), WEB)


@pytest.mark.parametrize(
    "change",
    [
        edit("status.phase", "Failed"),
        edit("status.path", "/elsewhere"),
        edit("status.volume", {"name": "x"}),
        edit("status.conditions", [{"type": "Ready", "status": "False"}]),
        edit("spec.size", "2Gi"),
        edit("metadata.deletionTimestamp", "2026-11-20T12:00:00Z"),
        edit("metadata.ownerReferences", []),
    ],
)
def test_a_disk_wakes_its_vms(change):
    obj = copy.deepcopy(ROOT)
    obj["metadata"]["ownerReferences"] = [{"uid": "x"}]
    assert {VM, TWIN_VM} <= woken(change, obj)


def test_a_disk_that_reports_progress_wakes_nobody():
    assert woken(edit("status.progress", "40%"), ROOT) == set()


def test_a_disk_that_goes_wakes_its_vms():
    assert woken(None, ROOT, gone=True) == {DISK, VM, TWIN_VM}


def test_a_disk_that_comes_or_goes_is_counted_by_its_domain():
    assert counted_by(Key.of(ROOT), None, ROOT) == {Key("StorageDomain", "", "fast")}
    assert counted_by(Key.of(ROOT), ROOT, None) == {Key("StorageDomain", "", "fast")}
    assert counted_by(Key.of(ROOT), ROOT, ROOT) == set()


@pytest.mark.parametrize(
    "change",
    [
        edit("spec.mode", "Maintenance"),
        edit("status.hosts", []),
        edit("status.phase", "Inactive"),
        edit("status.id", "id-2"),
    ],
)
def test_a_storage_domain_wakes_its_disks_its_hosts_and_who_waits(change):
    assert woken(change, FAST) >= {DISK, "Host/kvm1", "Host/kvm2", TWIN_VM}


def test_free_space_wakes_nobody():
    assert woken(edit("status.available", "1Gi"), FAST) == set()


@pytest.mark.parametrize("change", [edit("spec.mtu", 9000), edit("status.hosts", [{"name": "kvm1"}])])
def test_a_network_wakes_its_vms_its_hosts_and_who_waits(change):
    assert woken(change, LAN) >= {VM, TWIN_VM, "Host/kvm1", "Host/kvm2"}


@pytest.mark.parametrize("change", [edit("spec.cpu", {"model": "x"}), edit("status.baseline", {})])
def test_a_pool_wakes_its_hosts_and_vms(change):
    assert woken(change, POOL) == {"Host/kvm1", "Host/kvm2", VM, TWIN_VM}


@pytest.mark.parametrize(
    "change",
    [
        edit("status.phase", "NonResponsive"),
        edit("status.conditions", [{"type": "Schedulable"}]),
        edit("spec.mode", "Cordoned"),
        edit("metadata.labels", {"rack": "r1"}),
        edit("metadata.deletionTimestamp", "2026-11-20T12:00:00Z"),
    ],
)
def test_a_host_wakes_its_pool_its_vms_its_storage_and_who_waits(change):
    around = {VM, TWIN_VM, "HostPool/default", "StorageDomain/fast", "Network/lan"}
    assert woken(change, KVM1) - {"Host/kvm1"} == around
    assert VM not in woken(change, KVM2), "it cannot be there"


def test_counts_of_a_host_wake_nobody():
    assert woken(edit("status.vmCount", 3), KVM1) == set()
    assert woken(edit("status.allocated", {"cpus": 3}), KVM1) == set()


def test_labels_of_a_namespace_wake_what_is_in_it():
    assert woken(edit("metadata.labels", {}), SPACE) == {VM, TWIN_VM, DISK}
    assert woken(edit("metadata.annotations", {"a": "b"}), SPACE) == set()


def test_credentials_wake_the_hosts_that_use_them():
    assert woken(edit("data", {}), SECRET) == {"Host/kvm1"}


def test_an_operation_that_comes_further_wakes_what_it_is_about():
    def operation(kind: str, phase: str) -> Json:
        target = {"kind": kind, "namespace": "default", "name": "web", "uid": "u"}
        return cluster("Operation", "op", {"target": target}, phase=phase)

    key = Key("Operation", "default", "op")
    web = Key("VirtualMachine", "default", "web")
    before = operation("VirtualMachine", "Running")
    assert woken_by(Cache(), key, before, operation("VirtualMachine", "Succeeded")) == {web}
    assert woken_by(Cache(), key, None, before) == woken_by(Cache(), key, before, None) == {web}
    assert woken_by(Cache(), key, before, {**before, "metadata": {}}) == set()
    assert woken_by(Cache(), key, None, operation("Toy", "Running")) == set()


def test_a_kind_that_nobody_knows_wakes_nobody():
    cache = Cache()
    assert woken_by(cache, Key("Pod", "default", "a"), None, {"kind": "Pod", "metadata": {"name": "a"}}) == set()


# Hosts ---------------------------------------------------------------------------------------------------------------


def filled() -> Cache:
    cache = Cache()
    install_indexes(cache)
    for entry in EVERYTHING:
        cache.upsert(copy.deepcopy(entry))
    return cache


def test_what_is_seen_of_a_domain_wakes_its_vm():
    assert woken_by_host(filled(), "kvm2", "uid-web") == {Key("VirtualMachine", "default", "web")}
    assert woken_by_host(filled(), "kvm2", "uid-twin") == {Key("VirtualMachine", "default", "twin")}
    assert woken_by_host(filled(), "kvm2", "foreign") == set()


def test_a_host_that_is_heard_wakes_the_vms_whose_domains_it_has_left():
    # After a crash between the write that gave the place up and the undefine, nothing else leads to the VM.
    without = woken_by_host(filled(), "kvm3", None)
    vm = Key("VirtualMachine", "default", "web")
    assert vm not in without
    assert woken_by_host(filled(), "kvm3", None, ["uid-web", "foreign"]) == without | {vm}


def test_what_is_seen_of_a_host_wakes_it_and_its_vms():
    cache = filled()
    cache.upsert(READY_ROOT)
    assert woken_by_host(cache, "kvm1", None) == {Key("Host", "", "kvm1"), Key("VirtualMachine", "default", "web")}
    assert woken_by_host(cache, "kvm2", None) == {Key("Host", "", "kvm2")}


@pytest.mark.parametrize("disk", ["not made", "deleted"])
def test_a_host_that_connects_wakes_the_disks_that_wait_for_one(disk: str):
    cache = filled()
    obj = copy.deepcopy(READY_ROOT if disk == "deleted" else ROOT)
    obj["metadata"]["resourceVersion"] = "3"
    if disk == "deleted":
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cache.upsert(obj)
    assert Key("Disk", "default", "root") in woken_by_host(cache, "kvm2", None)
    assert Key("Disk", "default", "root") not in woken_by_host(cache, "unknown", None)


READY_ROOT = copy.deepcopy(ROOT)
READY_ROOT["metadata"]["resourceVersion"] = "2"
READY_ROOT["status"]["conditions"] = [{"type": "Ready", "status": "True"}]


# What is looked up ---------------------------------------------------------------------------------------------------


def test_the_disks_of_a_vm():
    assert vm_disks(WEB) == ["root", "web-data"]
    assert vm_disks(vm().raw()) == []


def test_the_addresses_of_a_vm():
    given = vm().status(devices=[{"name": "ua-nic-a", "mac": "52:54:00:00:00:02"}, {"name": "ua-disk-a"}])
    given.spec(nics=[{"name": "a", "network": "lan"}, {"name": "b", "network": "lan", "mac": MAC}])
    assert vm_macs(given.raw()) == [MAC, "52:54:00:00:00:02"]


def test_the_hosts_that_may_hold_a_vm():
    assert vm_hosts(vm().raw()) == []
    assert vm_hosts(vm().placed("kvm1", "kvm2").raw()) == ["kvm2", "kvm1"]
    assert vm_hosts(vm().placed("kvm1").raw()) == ["kvm1"]


def test_the_indexes_follow_the_objects():
    cache = filled()
    found = {
        ("uuid", "uid-web"): ["web"],
        ("disk", "default/web-data"): ["web"],
        ("disk", "default/root"): ["twin", "web"],
        ("mac", MAC): ["twin", "web"],
        ("pool", "other"): ["elsewhere"],
        ("host", "kvm1"): ["web"],
        ("network", "dmz"): ["twin"],
        ("namespace", "prod"): ["elsewhere"],
        ("unscheduled", "default"): ["twin"],
        ("unscheduled", "other"): ["elsewhere"],
    }
    for (index, value), names in found.items():
        assert sorted(k.name for k in cache.keys_by_index("VirtualMachine", index, value)) == names
    stopped = copy.deepcopy(WEB)
    stopped["status"]["placement"] = {"epoch": 1, "candidates": []}
    stopped["metadata"]["resourceVersion"] = "2"
    cache.upsert(stopped)
    assert cache.keys_by_index("VirtualMachine", "host", "kvm1") == []
