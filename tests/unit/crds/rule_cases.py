"""For each CEL rule, what it refuses and what it lets pass: the table that the API server is asked about.

A case starts from `BASE[kind]`, an object that the server accepts and that fills in every field with a rule, and
changes it. `before` is the object that is there already, for rules that look at a change; without it the case is a
creation. The keys of changes are paths as the API server writes them; DROP takes a field away.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from crds import KINDS

DROP = object()
ZEROS = "sha256:" + "0" * 64
SELECTOR: dict[str, Any] = {
    "matchLabels": {"team": "web"},
    "matchExpressions": [{"key": "team", "operator": "In", "values": ["web"]}],
}
CONSUMERS: dict[str, Any] = {"namespaceSelector": SELECTOR}
DISK: dict[str, Any] = {"size": "1Gi", "storageDomain": "fast"}


def _source(kind: str) -> dict[str, Any]:
    return {
        "http": {"http": {"url": "http://images.example/a.qcow2", "checksum": ZEROS}},
        "file": {"file": {"path": "a.qcow2", "checksum": ZEROS}},
        "existing": {"existing": {"path": "a.qcow2"}},
    }[kind]


TOY: dict[str, Any] = {"kind": "VirtualMachine", "namespace": "default", "name": "web", "uid": "u-1"}
OPERATION: dict[str, Any] = {
    "type": "CopyDisk",
    "target": TOY,
    "parameters": "{}",
    "executionReason": "Regular",
    "mode": "Run",
    "priority": 0,
    "locks": [{**TOY, "mode": "Exclusive", "rank": 3, "floor": 0}],
    "context": {"correlationId": "c-1", "requestedBy": "anna", "lock": "Own", "compensation": "Own"},
}

BASE: dict[str, dict[str, Any]] = {
    "Host": {"pool": "default", "uri": "qemu+tls://kvm1.example/system", "credentialsSecret": "kvm1"},
    "HostPool": {
        "consumers": CONSUMERS,
        "cpu": {"model": "qemu64"},
        "placement": {"overcommit": {"memory": "100%", "cpu": "400%"}},
        "monitoring": {"heartbeatSeconds": 3},
        "fencing": {"failedAfterSeconds": 9},
    },
    "StorageDomain": {
        "type": "directory",
        "directory": {"path": "/srv/vms"},
        "pools": ["default"],
        "thresholds": {"warnFree": "10%", "blockFree": "5Gi"},
        "consumers": CONSUMERS,
    },
    "Network": {"type": "bridge", "bridge": {"name": "br0"}, "pools": ["default"], "consumers": CONSUMERS},
    "Disk": {**DISK, "source": _source("http")},
    "Operation": OPERATION,
    "VirtualMachine": {
        "runPolicy": "Always",
        "powerRequest": {"id": "1", "action": "Reboot"},
        "pool": "default",
        "cpu": {"sockets": 1, "model": "PoolBaseline"},
        "memory": {"size": "1Gi"},
        "disks": [
            {"name": "root", "bootOrder": 1, "template": {**DISK, "source": _source("http")}},
            {"name": "data", "diskRef": {"name": "data"}},
            {"name": "cd", "type": "cdrom", "bus": "scsi"},
        ],
        "nics": [{"name": "lan", "network": "lan", "bootOrder": 2, "mac": "52:54:00:12:34:56"}],
        "cloudInit": {"userDataSecretRef": {"name": "app"}, "networkData": "version: 2"},
        "placement": {"host": "kvm1", "hostSelector": SELECTOR},
    },
}

Changes = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One rule at one place."""

    kind: str
    path: str
    """The field that the refusal must name."""
    message: str
    """How the rule's message begins."""
    refused: Changes
    accepted: Changes
    before: Changes | None = None
    status: dict[str, Any] = field(default_factory=dict)
    """Status of the object that is there before."""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}: {self.message}"


def build(kind: str, name: str, changes: Changes) -> dict[str, Any]:
    """The base object of a kind with these changes."""
    namespaced = next(k.namespaced for k in KINDS if k.kind == kind)
    obj = {
        "apiVersion": "hostler.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": "default"} if namespaced else {})},
        "spec": deepcopy(BASE[kind]),
    }
    for path, value in changes.items():
        _change(obj, path, value)
    return obj


def _change(obj: Any, path: str, value: Any) -> None:
    *way, last = path.replace("[", ".[").split(".")
    for step in way:
        obj = obj[int(step[1:-1])] if step.startswith("[") else obj.setdefault(step, {})
    if value is DROP:
        obj.pop(last, None)
    elif last.startswith("["):
        obj[int(last[1:-1])] = value
    else:
        obj[last] = value


def _everywhere(kind: str, paths: list[str], message: str, bad: Any, good: Any) -> list[Case]:
    return [Case(kind, path, message, {path: bad}, {path: good}) for path in paths]


def _names(kind: str, *paths: str) -> list[Case]:
    return _everywhere(kind, list(paths), "must be the name of an object", "Not_A_Name", "a-name.of-2.parts")


def _sizes(kind: str, *paths: str) -> list[Case]:
    return [
        *_everywhere(kind, list(paths), "must be a size, for", "ten gigabytes", 10737418240),
        *_everywhere(kind, list(paths), "must be a size above zero", "0Gi", "0.5Gi"),
        *_everywhere(kind, list(paths), "must be a size above zero", 0, "1.5Ti"),
        *_everywhere(kind, list(paths), "must be a size above zero", "-5Gi", "500M"),
    ]


def _selectors(kind: str, path: str) -> list[Case]:
    first = f"{path}.matchExpressions[0]"
    values = "must hold at least one value for In"
    return [
        Case(kind, f"{path}.matchLabels", "must hold keys of labels", {f"{path}.matchLabels": {"a b": "c"}},
             {f"{path}.matchLabels": {"example.com/rack": "r1"}}),
        Case(kind, f"{path}.matchLabels[team]", "must be the value of a label", {f"{path}.matchLabels.team": "a b"},
             {f"{path}.matchLabels.team": ""}),
        Case(kind, f"{first}.key", "must be the key of a label", {f"{first}.key": "a b"}, {f"{first}.key": "x.y/z"}),
        Case(kind, f"{first}.values[0]", "must be the value of a label", {f"{first}.values": ["-"]},
             {f"{first}.values": ["", "a"]}),
        Case(kind, f"{first}.values", values, {f"{first}.values": DROP}, {f"{first}.operator": "NotIn"}),
        Case(kind, f"{first}.values", values, {f"{first}.operator": "Exists"},
             {f"{first}.operator": "DoesNotExist", f"{first}.values": []}),
    ]  # fmt: skip


def _disk(kind: str, at: str) -> list[Case]:
    """The rules of a disk's spec, wherever it stands."""
    source = f"{at}.source"
    grown = {f"{at}.size": "2Gi"}
    unchanged = "cannot be changed"
    plain = {source: DROP}
    return [
        *_names(kind, f"{at}.storageDomain"),
        *_sizes(kind, f"{at}.size"),
        Case(kind, source, "must have exactly one of blank", {f"{source}.blank": {}}, {source: {"blank": {}}}),
        Case(kind, source, "must have exactly one of blank", {source: {}}, {source: DROP}),
        Case(kind, f"{source}.http.url", "must be an http:// or", {f"{source}.http.url": "ftp://a.example/b"},
             {f"{source}.http.url": "https://a.example:8443/b?c=d"}),
        Case(kind, f"{source}.http.checksum", "must be sha256: or", {f"{source}.http.checksum": "md5:" + "0" * 32},
             {f"{source}.http.checksum": "sha512:" + "a" * 128}),
        Case(kind, f"{source}.file.checksum", "must be sha256: or",
             {source: {"file": {"path": "a", "checksum": ZEROS.upper()}}}, {source: _source("file")}),
        Case(kind, f"{source}.file.path", "must be a file name",
             {source: {"file": {"path": "../a", "checksum": ZEROS}}}, {source: _source("file")}),
        Case(kind, f"{source}.existing.path", "must be a file name", {source: {"existing": {"path": "a b"}}},
             {source: {"existing": {"path": "/srv/vms/x.trash-1"}}}),
        Case(kind, f"{at}.format", "must be raw where access", {f"{at}.access": "Shared"},
             {f"{at}.access": "Shared", f"{at}.format": "raw"}),
        Case(kind, f"{at}.storageDomain", unchanged, {f"{at}.storageDomain": "slow"}, grown, before={}),
        Case(kind, f"{at}.format", unchanged, {f"{at}.format": "raw"}, {f"{at}.format": "qcow2"}, before={}),
        Case(kind, f"{at}.format", unchanged, {f"{at}.format": DROP}, {f"{at}.discard": "Ignore"},
             before={f"{at}.format": "raw"}),
        Case(kind, f"{at}.access", unchanged, {f"{at}.access": "Shared", f"{at}.format": "raw"},
             {f"{at}.access": "Exclusive", f"{at}.format": "raw"}, before={f"{at}.format": "raw"}),
        Case(kind, f"{at}.logicalSectorSize", unchanged, {f"{at}.logicalSectorSize": 4096},
             {f"{at}.logicalSectorSize": 512}, before={}),
        Case(kind, source, unchanged, {source: DROP}, {f"{at}.discard": "Ignore"}, before={}),
        Case(kind, source, unchanged, {source: _source("http")}, {source: {"blank": {}}}, before=plain),
        Case(kind, source, unchanged, {f"{source}.http.checksum": ZEROS.replace("0", "1")}, grown, before={}),
        Case(kind, source, unchanged, {source: _source("file")}, plain, before={source: {"blank": {}}}),
    ]  # fmt: skip


_ORDERS = "must not give two drives the same bootOrder"
_CARD = "must not give a network card"
_RUNNING = {"placement": {"host": "kvm1", "epoch": 1, "since": "2026-01-01T00:00:00Z", "candidates": ["kvm1"]}}
_PERHAPS = {"placement": {"epoch": 1, "since": "2026-01-01T00:00:00Z", "candidates": ["kvm1"]}}
_STOPPED = {"placement": {"epoch": 1, "since": "2026-01-01T00:00:00Z", "candidates": []}}
_POOL = {"spec.pool": "other"}
_DRIVE = "must have exactly one of diskRef"
_DOCUMENT = "must have at most 65536 characters"
_CPU_MODEL = "must be the name of a CPU model"
_DRIVE_NAME = "must be lower-case letters, digits and '-'"
_VM = "VirtualMachine"

CASES: list[Case] = [
    *_names("Host", "spec.pool", "spec.credentialsSecret"),
    *(
        Case("Host", "spec.uri", "must be a libvirt URI", {"spec.uri": bad}, {"spec.uri": good})
        for bad, good in [
            ("kvm1.example", "qemu+ssh://root@kvm1.example:2222/system"),
            ("qemu+tls:///system", "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"),
            ("qemu+telnet://kvm1.example/system", "qemu+tcp://[2001:db8::1]:16509/system"),
            ("xen+tls://kvm1.example/system", "qemu+tls://10.0.0.1/system"),
            ("qemu+tcp://me:secret@kvm1.example/system", "qemu+tcp://kvm1.example/system"),
        ]
    ),
    Case("Host", "spec.pool", "cannot be changed", _POOL, {"spec.mode": "Cordoned"}, {}, {"vmCount": 1}),
    *_selectors("HostPool", "spec.consumers.namespaceSelector"),
    *_everywhere("HostPool", ["spec.placement.overcommit.memory", "spec.placement.overcommit.cpu"],
                 "must be a percentage of at least", "0%", "1000%"),
    Case("HostPool", "spec.fencing.failedAfterSeconds", "must be at least three times",
         {"spec.monitoring.heartbeatSeconds": 4}, {"spec.fencing": {}, "spec.monitoring.heartbeatSeconds": 10}),
    Case("HostPool", "spec.fencing.failedAfterSeconds", "must be at least three times",
         {"spec.fencing": DROP, "spec.monitoring.heartbeatSeconds": 11}, {"spec.monitoring": DROP}),
    *_names("StorageDomain", "spec.pools[0]"),
    *_sizes("StorageDomain", "spec.thresholds.blockFree"),
    *_everywhere("StorageDomain", ["spec.bandwidthPerSecond"], "must be a size a second", "fast", "50Mi"),
    *_everywhere("StorageDomain", ["spec.bandwidthPerSecond"], "must be a size a second", -1, 0),
    *_selectors("StorageDomain", "spec.consumers.namespaceSelector"),
    *_everywhere("StorageDomain", ["spec.thresholds.warnFree"], "must be a percentage", "100%", "0%"),
    *_everywhere("StorageDomain", ["spec.directory.path"], "must be an absolute path", "/srv/../etc", "/srv/a.b/c"),
    *_everywhere("StorageDomain", ["spec.directory.path"], "must be an absolute path", "srv/vms", "/s"),
    Case("StorageDomain", "spec.directory.path", "cannot be changed", {"spec.directory.path": "/srv/b"},
         {"spec.mode": "Maintenance"}, {}),
    Case("StorageDomain", "spec.directory.scope", "cannot be changed", {"spec.directory.scope": "HostLocal"},
         {"spec.directory.scope": "Shared"}, {}),
    *_names("Network", "spec.pools[0]"),
    *_selectors("Network", "spec.consumers.namespaceSelector"),
    *_everywhere("Network", ["spec.bridge.name"], "must be the name of a bridge", "a/b", "br-lan.10"),
    Case("Network", "spec.bridge.name", "cannot be changed", {"spec.bridge.name": "br1"},
         {"spec.pools": ["default", "other"]}, {}),
    *_disk("Disk", "spec"),
    Case("Disk", "spec.size", "cannot shrink", {"spec.size": "1023Mi"}, {"spec.size": "1.5Gi"}, {}),
    Case("Disk", "spec.size", "cannot shrink", {"spec.size": 2**30 - 1}, {"spec.size": 2**30}, {}),
    Case("Disk", "spec.size", "cannot shrink", {"spec.size": "1G"}, {"spec.size": "1024Mi"}, {"spec.size": 2**30}),
    *_disk(_VM, "spec.disks[0].template"),
    *_names(_VM, "spec.pool", "spec.placement.host", "spec.disks[1].diskRef.name", "spec.nics[0].network",
            "spec.cloudInit.userDataSecretRef.name"),
    *_sizes(_VM, "spec.memory.size"),
    *_selectors(_VM, "spec.placement.hostSelector"),
    *_everywhere(_VM, ["spec.cpu.model"], _CPU_MODEL, "a<b>\x01", "Skylake-Client-noTSX-IBRS"),
    *_everywhere("HostPool", ["spec.cpu.model"], _CPU_MODEL, "EPYC Rome", "EPYC-Rome"),
    *_everywhere(_VM, ["spec.memory.size"], "must be at least 1Mi", "2", "1Mi"),
    *_everywhere(_VM, ["spec.memory.size"], "must be at least 1Mi", 1048575, 1048576),
    *_everywhere(_VM, ["spec.disks[0].name", "spec.nics[0].name"], _DRIVE_NAME, "Root_1", "root-1"),
    *_everywhere(_VM, ["spec.nics[0].mac"], "must be a unicast MAC", "53:54:00:12:34:56", "02:00:00:00:00:01"),
    Case(_VM, "spec.powerRequest.id", "must be a new one", {"spec.powerRequest.action": "Reset"},
         {"spec.powerRequest": {"id": "2", "action": "Reset"}}, {}),
    Case(_VM, "spec.cpu", "must not have more than 255", {"spec.cpu": {"sockets": 64, "cores": 4}},
         {"spec.cpu": {"sockets": 51, "cores": 5}}),
    Case(_VM, "spec.disks[0]", _DRIVE, {"spec.disks[0].diskRef": {"name": "other"}}, {}),
    Case(_VM, "spec.disks[1]", _DRIVE, {"spec.disks[1].diskRef": DROP},
         {"spec.disks[1]": {"name": "data", "type": "cdrom"}}),
    Case(_VM, "spec.disks[2].bus", "must be scsi or sata", {"spec.disks[2].bus": "virtio"},
         {"spec.disks[2].bus": "sata"}),
    Case(_VM, "spec.disks", _ORDERS, {"spec.disks[1].bootOrder": 1}, {"spec.disks[1].bootOrder": 3}),
    Case(_VM, "spec.nics", _CARD, {"spec.nics[0].bootOrder": 1}, {"spec.nics[0].bootOrder": 3}),
    Case(_VM, "spec.nics", _CARD,
         {"spec.nics": [{"name": n, "network": "lan", "bootOrder": 5} for n in ("a", "b")]}, {"spec.nics": DROP}),
    Case(_VM, "spec.disks", "must not use one Disk",
         {"spec.disks[1].diskRef.name": "x", "spec.disks[2].diskRef": {"name": "x"}},
         {"spec.disks[2].diskRef": {"name": "x"}}),
    Case(_VM, "spec.cloudInit.userDataSecretRef", "must not stand beside userData",
         {"spec.cloudInit.userData": "#cloud-config"}, {"spec.cloudInit": {"userData": "#cloud-config"}}),
    Case(_VM, "spec.cloudInit.userData", _DOCUMENT, {"spec.cloudInit": {"userData": "ä" * 65537}},
         {"spec.cloudInit": {"userData": "ä" * 65536}}),
    Case(_VM, "spec.cloudInit.networkData", _DOCUMENT, {"spec.cloudInit.networkData": "x" * 65537},
         {"spec.cloudInit.networkData": "x" * 65536}),
    Case(_VM, "spec.pool", "cannot be changed while the VM runs", _POOL, {"spec.runPolicy": "Halted"}, {}, _RUNNING),
    Case(_VM, "spec.pool", "cannot be changed while the VM runs", _POOL, {"spec.runPolicy": "Halted"}, {}, _PERHAPS),
    *(Case("Operation", "spec", "cannot be changed", {path: value}, {"spec.mode": "Cancel"}, {}) for path, value in {
        "spec.type": "Fly", "spec.target.name": "db", "spec.parameters": "[]", "spec.executionReason": "Rollback",
        "spec.priority": 1, "spec.locks": [], "spec.locks[0].mode": "Shared", "spec.context.lock": "None",
        "spec.parent": {"namespace": "default", "name": "p", "uid": "u-2"},
        "spec.undoes": {"namespace": "default", "name": "p", "uid": "u-2"},
    }.items()),
    Case("Operation", "spec.mode", "cannot be taken back", {"spec.mode": "Run"}, {"metadata.labels": {"a": "b"}},
         {"spec.mode": "Cancel"}),
    Case(_VM, "spec.disks", "must leave room for the names", {"metadata.name": "v" * 249},
         {"metadata.name": "v" * 248}),
]  # fmt: skip

ALLOWED_CHANGES: list[tuple[str, Changes, dict[str, Any]]] = [
    ("Host", _POOL, {"vmCount": 0}),
    ("Host", _POOL, {}),
    (_VM, _POOL, _STOPPED),
    (_VM, _POOL, {}),
    (_VM, {"spec.powerRequest": DROP}, {}),
    (_VM, {"spec.disks[0].template.size": "2Gi"}, {}),
    (_VM, {"spec.disks": DROP}, {}),
]
"""Changes of the base object, with this status, that no rule may stand in the way of."""
