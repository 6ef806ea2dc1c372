"""Objects of our kinds for tests, in a few words: `vm("web").running_on("kvm1").build()`."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any, Self

from crds.disk import Disk
from crds.storage_domain import StorageDomain
from crds.virtual_machine import VirtualMachine
from engine.clock import timestamp
from tests.unit.reconcilers.fakes import EPOCH

Json = dict[str, Any]


def at(seconds: float) -> str:
    """A time of the API, that many seconds after the fakes' clock began."""
    return timestamp(EPOCH + timedelta(seconds=seconds))


class Builder:
    """An object as the API server stores it, which is changed step by step."""

    model: type[Any]

    def __init__(self, kind: str, name: str, spec: Json, namespace: str) -> None:
        self.obj: Json = {
            "apiVersion": "hostler.dev/v1alpha1",
            "kind": kind,
            "metadata": {
                "name": name,
                "uid": f"uid-{name}",
                "generation": 1,
                "resourceVersion": "1",
                "creationTimestamp": at(0),
                "finalizers": ["hostler.dev/cleanup"],
                **({"namespace": namespace} if namespace else {}),
            },
            "spec": spec,
            "status": {"observedGeneration": 1},
        }

    def meta(self, **fields: Any) -> Self:
        self.obj["metadata"].update(fields)
        return self

    def spec(self, **fields: Any) -> Self:
        self.obj["spec"].update(fields)
        return self

    def status(self, **fields: Any) -> Self:
        self.obj["status"].update(fields)
        return self

    def annotated(self, *names: str, value: str = "someone") -> Self:
        self.obj["metadata"].setdefault("annotations", {}).update(dict.fromkeys(names, value))
        return self

    def paused(self) -> Self:
        return self.annotated("hostler.dev/paused")

    def deleting(self, since: float = 0) -> Self:
        return self.meta(deletionTimestamp=at(since))

    def condition(self, kind: str, status: str, reason: str, *, since: float = 0, message: str = "") -> Self:
        known = [c for c in self.obj["status"].get("conditions", []) if c["type"] != kind]
        new = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(since)}
        return self.status(conditions=[*known, {**new, "observedGeneration": 1}])

    def raw(self) -> Json:
        return copy.deepcopy(self.obj)

    def build(self) -> Any:
        return self.model.parse(self.raw())


class VmBuilder(Builder):
    """A VirtualMachine."""

    model = VirtualMachine

    def policy(self, policy: str) -> Self:
        return self.spec(runPolicy=policy)

    def power(self, state: str, reason: str = "RunPolicy", *, policy: str | None = None, since: float = 0) -> Self:
        decided = policy or self.obj["spec"]["runPolicy"]
        return self.status(power={"state": state, "reason": reason, "runPolicy": decided, "since": at(since)})

    def placed(self, host: str | None, *candidates: str, epoch: int = 1, since: float = 0) -> Self:
        held = list(candidates) or ([host] if host else [])
        placement = {"host": host, "epoch": epoch, "since": at(since), "candidates": held}
        return self.status(placement={k: v for k, v in placement.items() if v is not None})

    def running_on(self, host: str, *, epoch: int = 1) -> Self:
        name = self.obj["metadata"]["name"]
        return self.power("On").placed(host, epoch=epoch).status(phase="Running", uuid=f"uid-{name}")

    def requests(self, id: str, action: str, phase: str | None = None) -> Self:  # noqa: A002
        self.spec(powerRequest={"id": id, "action": action})
        return self if phase is None else self.status(powerRequest={"id": id, "phase": phase})

    def failed(self, count: int, *, last: float = 0, next_: float = 0) -> Self:
        failure = {"count": count, "lastAt": at(last), "nextAt": at(next_), "message": "QEMU died"}
        return self.status(startFailure=failure)

    def build(self) -> VirtualMachine:
        built: VirtualMachine = super().build()
        return built


class DiskBuilder(Builder):
    """A Disk."""

    model = Disk

    def volume(self, name: str, *, whole: bool = True, host: str | None = None, taken_over: bool = False) -> Self:
        path = f"/srv/vms/{name}"
        volume: Json = {"name": name, "path": path, "takenOver": taken_over}
        if host is not None:
            volume["host"] = host
            self.status(host=host)
        if whole:
            volume["provisionedAt"] = at(0)
            self.status(path=path, phase="Ready", virtualSize=self.obj["spec"]["size"])
        return self.status(volume=volume)

    def owned_by(self, vm: str) -> Self:
        owner = {"apiVersion": "hostler.dev/v1alpha1", "kind": "VirtualMachine", "name": vm, "uid": f"uid-{vm}"}
        return self.meta(ownerReferences=[owner])

    def build(self) -> Disk:
        built: Disk = super().build()
        return built


class DomainBuilder(Builder):
    """A StorageDomain."""

    model = StorageDomain

    def reached_by(self, *hosts: str) -> Self:
        reach = [{"name": h, "reachable": True, "reason": "Reachable", "initialized": True} for h in hosts]
        return self.status(id="id-1", hosts=reach)

    def build(self) -> StorageDomain:
        built: StorageDomain = super().build()
        return built


def vm(name: str = "web", *, policy: str = "Always", namespace: str = "default", **spec: Any) -> VmBuilder:
    declared = {"runPolicy": policy, "pool": "default", "memory": {"size": "1Gi"}, **spec}
    return VmBuilder("VirtualMachine", name, declared, namespace)


def disk(name: str = "root", *, size: str = "1Gi", namespace: str = "default", **spec: Any) -> DiskBuilder:
    return DiskBuilder("Disk", name, {"size": size, "storageDomain": "fast", **spec}, namespace)


def storage(name: str = "fast", *, scope: str = "Shared", **spec: Any) -> DomainBuilder:
    directory = {"path": "/srv/vms", "scope": scope}
    return DomainBuilder(
        "StorageDomain", name, {"type": "directory", "directory": directory, "pools": ["default"], **spec}, ""
    )


def after(seconds: float) -> datetime:
    """A point in time, that many seconds after the fakes' clock began."""
    return EPOCH + timedelta(seconds=seconds)


def written(obj: Any, **fields: Any) -> Any:
    """The object with these status fields written: by the names of the API (`powerRequest`), as models."""
    names = {info.alias or name: name for name, info in type(obj.status).model_fields.items()}
    update = {names.get(name, name): value for name, value in fields.items()}
    return obj.model_copy(update={"status": obj.status.model_copy(update=update)})
