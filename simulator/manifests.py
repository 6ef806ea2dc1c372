"""What users of the simulation declare, as short as manifests get."""

from __future__ import annotations

from typing import Any

from crds.base import API_VERSION

Object = dict[str, Any]
SHARED, LOCAL = "/srv/shared", "/srv/local"


def obj(kind: str, name: str, spec: Object, namespace: str = "") -> Object:
    """An object of one of our kinds."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def namespace(name: str) -> Object:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def infrastructure(hosts: tuple[str, ...]) -> list[Object]:
    """A pool, its hosts, shared and host-local storage without a trash, a network."""
    pool = {"fencing": {"failedAfterSeconds": 12}, "monitoring": {"heartbeatSeconds": 2}}
    return [
        obj("HostPool", "default", pool),
        *(obj("Host", name, {"pool": "default", "uri": f"qemu+tcp://{name}/system"}) for name in hosts),
        storage("shared", SHARED, "Shared"),
        storage("local", LOCAL, "HostLocal"),
        obj("Network", "lan", {"type": "bridge", "bridge": {"name": "lan"}, "pools": ["default"]}),
    ]


def storage(name: str, path: str, scope: str) -> Object:
    """A directory StorageDomain."""
    directory = {"path": path, "scope": scope}
    spec = {"type": "directory", "directory": directory, "pools": ["default"], "trashSeconds": 0}
    return obj("StorageDomain", name, spec)


def disk(name: str, size: str = "1Gi", **spec: Any) -> Object:
    """A Disk on shared storage."""
    return obj("Disk", name, {"size": size, "storageDomain": "shared", **spec}, "default")


def drive(name: str, domain: str = "shared", size: str = "1Gi", **template: Any) -> Object:
    """A drive of a VM with a Disk of its own."""
    return {"name": name, "template": {"size": size, "storageDomain": domain, **template}}


def drive_of(name: str, disk_name: str) -> Object:
    """A drive of a VM that uses a Disk."""
    return {"name": name, "diskRef": {"name": disk_name}}


def cdrom(name: str, medium: str | None = None) -> Object:
    """A CD-ROM drive of a VM with a Disk in it, or empty."""
    return {"name": name, "type": "cdrom", **({} if medium is None else {"diskRef": {"name": medium}})}


def vm(name: str, *drives: Object, policy: str = "Always", **spec: Any) -> Object:
    """A VM with these drives."""
    base: Object = {
        "runPolicy": policy,
        "pool": "default",
        "memory": {"size": "1Gi"},
        "disks": list(drives),
        "lifecycle": {"shutdownTimeoutSeconds": 10},
    }
    return obj("VirtualMachine", name, {**base, **spec}, "default")
