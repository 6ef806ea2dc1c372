"""What a controller and its users say to an API server, step by step, and what it answers: one story for two servers.

Told to the real API server and to the simulated one, its outcome must be the same, but for what differs in every run
(uids, versions, times).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from engine import errors
from engine.keys import Key
from engine.kube import LEASES, KubeClient, Resource
from engine.transport import Transport
from reconcilers.objects import API, NAMESPACE

DISKS, VMS, DOMAINS = API["Disk"], API["VirtualMachine"], API["StorageDomain"]
FINALIZER = "hostler.dev/cleanup"
Object = dict[str, Any]
Outcome = tuple[str, Any]
_DIFFERS = {"uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields", "selfLink"}


def condition(type_: str, status: str, reason: str) -> Object:
    moment = "2026-11-20T12:00:00Z"
    return {"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": moment}


class Story:
    """Sends, and takes down what comes back."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self.transport = transport
        self.client = KubeClient(transport)
        self.namespace = namespace
        self.outcomes: list[Outcome] = []

    async def tell(self) -> list[Outcome]:
        """All of it."""
        await self.client.create(NAMESPACES, {"apiVersion": "v1", **named("Namespace", self.namespace)})
        for chapter in (
            self.objects,
            self.status,
            self.ownership,
            self.finalizers,
            self.pages,
            self.leases,
            self.garbage,
            self.foreground,
            self.the_end_of_a_namespace,
        ):
            await chapter()
        return self.outcomes

    async def objects(self) -> None:
        await self.step("create", self.create(DISKS, self.disk("a")))
        await self.step("create again", self.create(DISKS, self.disk("a")))
        await self.step("unknown field", self.create(DISKS, self.disk("b", colour="red")))
        await self.step("wrong type", self.create(DISKS, self.disk("b", format=7)))
        await self.step("wrong value", self.create(DISKS, self.disk("b", format="vmdk")))
        await self.step("required", self.create(DISKS, self.disk("b", storageDomain=None)))
        await self.step(
            "no namespace", self.create(DISKS, {**self.disk("b"), "metadata": {"name": "b", "namespace": "x0"}})
        )
        await self.step("no such object", self.client.get(DISKS, self.namespace, "none"))
        await self.step("edit", self.merge(DISKS, "a", {"spec": {"size": "2Gi"}}))
        await self.step("edit nothing", self.merge(DISKS, "a", {"spec": {"size": "2Gi"}}))
        await self.step("label", self.merge(DISKS, "a", {"metadata": {"labels": {"x": "y"}}}))
        await self.step("status is not edited here", self.merge(DISKS, "a", {"status": {"phase": "Ready"}}))
        await self.step("edit by an old version", self.merge(DISKS, "a", {"metadata": {"resourceVersion": "1"}}))
        version = await self.version(DISKS, "a")
        await self.merge(DISKS, "a", {"spec": {"size": "2Gi"}})
        self.outcomes.append(("what changes nothing keeps the version", await self.version(DISKS, "a") == version))

    async def status(self) -> None:
        old = await self.version(DISKS, "a")
        await self.step("apply", self.apply("a", {"phase": "Pending", "path": "/p", "usedBy": ["b", "c"]}))
        await self.step("apply by an old version", self.apply("a", {"phase": "Ready"}, version=old))
        await self.step("apply less", self.apply("a", {"phase": "Ready", "usedBy": ["c"]}))
        await self.step("apply what is unknown", self.apply("a", {"phase": "Ready", "nonsense": 1}))
        await self.step("apply what is invalid", self.apply("a", {"phase": "Nonsense"}))
        both = [condition("Ready", "True", "A"), condition("Stalled", "False", "A")]
        await self.step("conditions", self.apply("a", {"phase": "Ready", "conditions": both}))
        one = [condition("Ready", "False", "B")]
        await self.step("fewer conditions", self.apply("a", {"phase": "Ready", "conditions": one}))
        volume = {"name": "v", "path": "/p/v", "host": "h"}
        await self.step("compare and set", self.set("a", {"volume": volume}))
        await self.step("a conflict", self.set("a", {"volume": volume}, version=old))
        await self.step("apply leaves it", self.apply("a", {"phase": "Ready"}))
        await self.step("remove a part", self.set("a", {"volume": {"host": None}}))
        await self.step("apply of nothing", self.apply("a", {}))

    async def ownership(self) -> None:
        await self.step("mine", self.apply("a", {"phase": "Ready", "path": "/mine"}))
        await self.step("theirs", self.apply("a", {"path": "/theirs"}, manager="other", force=False))
        await self.step("theirs, by force", self.apply("a", {"path": "/theirs"}, manager="other"))
        await self.step("no longer mine to remove", self.apply("a", {"phase": "Ready"}))
        await self.step("shared", self.apply("a", {"phase": "Ready", "path": "/theirs"}))
        await self.step("left by one", self.apply("a", {}, manager="other"))
        await self.step("left by both", self.apply("a", {"phase": "Ready"}))

    async def finalizers(self) -> None:
        await self.step("add", self.json("a", [{"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}]))
        old = await self.version(DISKS, "a")
        await self.merge(DISKS, "a", {"metadata": {"labels": {"x": "z"}}})
        gone = [{"op": "remove", "path": "/metadata/finalizers/0"}]
        await self.step("by an old version", self.json("a", gone, version=old))
        await self.step("what is not there", self.json("a", [{"op": "remove", "path": "/metadata/finalizers/7"}]))
        await self.step("another uid", self.delete("a", uid="00000000-0000-4000-8000-000000000000"))
        await self.step("delete", self.delete("a"))
        await self.step("delete again", self.delete("a"))
        await self.step("it stays", self.client.get(DISKS, self.namespace, "a"))
        more = [{"op": "add", "path": "/metadata/finalizers/-", "value": "hostler.dev/more"}]
        await self.step("no more finalizers", self.json("a", more))
        await self.step("its status is still written", self.apply("a", {"phase": "Failed"}))
        await self.step("the last one goes", self.json("a", gone))
        await self.step("and so does it", self.client.get(DISKS, self.namespace, "a"))
        await self.step("a write to what is gone", self.apply("a", {"phase": "Ready"}))

    async def pages(self) -> None:
        for number in range(5):
            await self.create(DISKS, self.disk(f"p{number}"))
        items, _ = await self.client.list(DISKS, self.namespace, limit=2)
        self.outcomes.append(("pages", [item["metadata"]["name"] for item in items]))
        items, _ = await self.client.list(DISKS, self.namespace, metadata_only=True)
        self.outcomes.append(("metadata only", [sorted(item) for item in items]))

    async def leases(self) -> None:
        spec = {"holderIdentity": "me", "leaseTransitions": 1, "leaseDurationSeconds": 10}
        obj = {"apiVersion": LEASES.api_version, **named("Lease", "l", self.namespace), "spec": spec}
        first = await self.client.create(LEASES, obj)
        version = first["metadata"]["resourceVersion"]
        free = {**first, "spec": {"leaseTransitions": 2}}
        self.outcomes.append(("replaced", (await self.client.replace(LEASES, free))["spec"]))
        await self.step("replace by an old version", self.client.replace(LEASES, first))
        key = Key("Lease", self.namespace, "l")
        await self.step("delete by an old version", self.client.delete(LEASES, key, resource_version=version))
        await self.step("delete the lease", self.client.delete(LEASES, key, uid=first["metadata"]["uid"]))
        await self.step("replace what is gone", self.client.replace(LEASES, free))

    async def garbage(self) -> None:
        owner = await self.create(DISKS, self.disk("owner"))
        child = self.disk("child")
        child["metadata"]["ownerReferences"] = [reference(owner)]
        await self.create(DISKS, child)
        await self.step("delete the owner", self.delete("owner"))
        await self.until_gone("child")

    async def foreground(self) -> None:
        owner = await self.create(DISKS, self.disk("front"))
        child = self.disk("behind")
        child["metadata"] |= {"ownerReferences": [reference(owner)], "finalizers": [FINALIZER]}
        await self.create(DISKS, child)
        await self.step("foreground", self.delete("front", propagation="Foreground"))
        await self.until(
            "the child is told", "behind", lambda obj: obj["metadata"].get("deletionTimestamp") is not None
        )
        await self.step("the owner waits", self.client.get(DISKS, self.namespace, "front"))
        await self.json("behind", [{"op": "remove", "path": "/metadata/finalizers"}])
        await self.until_gone("front")

    async def the_end_of_a_namespace(self) -> None:
        held = self.disk("held")
        held["metadata"]["finalizers"] = [FINALIZER]
        await self.create(DISKS, held)
        await self.client.delete(NAMESPACES, Key("Namespace", "", self.namespace))
        await self.step("nothing new", self.create(DISKS, self.disk("new")))
        await self.until(
            "what is in it is told", "held", lambda obj: obj["metadata"].get("deletionTimestamp") is not None
        )
        await self.json("held", [{"op": "remove", "path": "/metadata/finalizers"}])
        await self.until_gone("held")

    # Words

    async def step(self, name: str, work: Awaitable[Any]) -> None:
        """Do it, and take down what came of it."""
        try:
            self.outcomes.append((name, told(await work)))
        except errors.ApiError as error:
            # What is no use to CEL any more is a cause of its own on the real server, under a name that is no field.
            fields = sorted({cause.field for cause in getattr(error, "causes", ())} - {"<nil>"})
            self.outcomes.append((name, [type(error).__name__, error.status, *fields]))

    async def until_gone(self, name: str) -> None:
        """Wait until there is no such disk."""
        for _ in range(600):
            try:
                await self.client.get(DISKS, self.namespace, name)
            except errors.NotFound:
                self.outcomes.append((f"{name} is gone", True))
                return
            await asyncio.sleep(0.1)
        self.outcomes.append((f"{name} is gone", False))

    async def until(self, what: str, name: str, holds: Callable[[Object], bool]) -> None:
        """Wait until that holds for a disk."""
        for _ in range(600):
            if holds(await self.client.get(DISKS, self.namespace, name)):
                self.outcomes.append((what, True))
                return
            await asyncio.sleep(0.1)
        self.outcomes.append((what, False))

    def disk(self, name: str, **spec: Any) -> Object:
        spec = {k: v for k, v in {"size": "1Gi", "storageDomain": "shared", **spec}.items() if v is not None}
        return {"apiVersion": DISKS.api_version, **named("Disk", name, self.namespace), "spec": spec}

    async def create(self, resource: Resource, obj: Object) -> Object:
        return await self.client.create(resource, obj)

    async def merge(self, resource: Resource, name: str, patch: Object) -> Object:
        return await self.transport.request(
            "PATCH",
            resource.path(self.namespace, name),
            kind=resource.kind,
            verb="patch",
            query={"fieldManager": "user", "fieldValidation": "Strict"},
            body=patch,
            content_type="application/merge-patch+json",
        )

    async def apply(
        self, name: str, status: Object, *, manager: str = "hostler", force: bool = True, version: str | None = None
    ) -> Object:
        metadata = {"name": name, "namespace": self.namespace} | ({"resourceVersion": version} if version else {})
        body = {"metadata": metadata, "status": status}
        return await self.client.apply_status(DISKS, body, manager=manager, force=force)

    async def set(self, name: str, fields: Object, *, version: str | None = None) -> Object:
        key = Key("Disk", self.namespace, name)
        version = version or await self.version(DISKS, name)
        return await self.client.patch_status(DISKS, key, fields, resource_version=version, manager="hostler")

    async def json(self, name: str, ops: list[Object], *, version: str | None = None) -> Object:
        key = Key("Disk", self.namespace, name)
        version = version or await self.version(DISKS, name)
        return await self.client.patch_metadata(DISKS, key, ops, resource_version=version, manager="hostler")

    async def delete(self, name: str, **options: Any) -> None:
        await self.client.delete(DISKS, Key("Disk", self.namespace, name), **options)

    async def version(self, resource: Resource, name: str) -> str:
        return str((await self.client.get(resource, self.namespace, name))["metadata"]["resourceVersion"])


NAMESPACES = NAMESPACE


def named(kind: str, name: str, namespace: str = "") -> Object:
    return {"kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}}


def reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": True,
        "controller": True,
    }


def told(answer: Any) -> Any:
    """An answer without what differs in every run, lists of items with keys in one order."""
    if not isinstance(answer, dict) or "metadata" not in answer:
        return None if answer is None else "done"
    metadata = {k: v for k, v in answer["metadata"].items() if k not in _DIFFERS | {"namespace"}}
    metadata["deleted"] = "deletionTimestamp" in answer["metadata"]
    status = dict(answer.get("status") or {})
    for name in ("conditions", "usedBy"):
        if name in status:
            status[name] = sorted(status[name], key=lambda item: json.dumps(item, sort_keys=True))
    return {"metadata": metadata, "spec": answer.get("spec"), "status": status}
