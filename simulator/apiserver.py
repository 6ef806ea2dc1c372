"""An API server in memory: what the real one does with the requests that a controller and its users send.

It answers requests as HTTP does, (status, body), so that the client, its errors and its parsing run as they are. In it:
resourceVersion, uid, generation, creation and deletion times, the status subresource, finalizers, preconditions, merge
patch, JSON patch, replacement, server-side apply of status, garbage collection, namespaces that end, pages, changes for
watches, and the generated schemas (unknown fields, defaults, types and bounds). Not in it: CEL rules, admission,
authorisation.
`tests/integration/api/test_simulated_api.py` tells both the same story and compares.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine.clock import Clock, timestamp
from engine.keys import Key
from engine.kube import EVENTS, LEASES, Resource
from reconcilers.objects import API, NAMESPACE, SECRET
from simulator import schema as schemas
from simulator.garbage import EMPTIED, FOREGROUND, collect
from simulator.messages import Answer, Change, Object, Refusal, Request, Write, merge_patch, outdated
from simulator.ownership import FieldConflict, Managed
from simulator.schema import copied
from simulator.validity import allowed, checked, has_status, json_patched, owned, schema_of, strict

CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True)
SERVED: tuple[Resource, ...] = (*API.values(), NAMESPACE, SECRET, CONFIG_MAP, EVENTS, LEASES)
_GENERATED = frozenset({"name", "namespace", "labels", "annotations", "finalizers", "ownerReferences"})


@dataclass
class Stored:
    """One object, and who owns which of its fields."""

    obj: Object
    managed: Managed = field(default_factory=Managed)


@dataclass(frozen=True)
class Snapshot:
    """The whole store at one moment (a backup of etcd)."""

    objects: dict[Key, Stored]
    version: int


class ApiServer:
    """The store and its rules. Every request is carried out at once, as a whole; delays are the transport's."""

    def __init__(
        self, clock: Clock, call_later: Callable[[float, Callable[[], None]], Any], rng: random.Random
    ) -> None:
        """`call_later`: how the garbage collector is given time."""
        self._clock = clock
        self._call_later = call_later
        self._rng = rng
        self._objects: dict[Key, Stored] = {}
        self._version = 1000
        self._pages: dict[str, tuple[list[Object], int]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self._by_path = {r.path().strip("/"): r for r in SERVED}
        self.writes: list[Write] = []

    # What the world looks at and does

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object as it is stored, or None."""
        found = self._objects.get(Key(kind, namespace, name))
        return None if found is None else copied(found.obj)

    def all(self, kind: str) -> list[Object]:
        """Every object of a kind."""
        return [copied(s.obj) for key, s in sorted(self._objects.items()) if key.kind == kind]

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Hear of every change, in order."""
        self._listeners.append(listener)

    def snapshot(self) -> Snapshot:
        """A backup of the store."""
        return Snapshot(copy.deepcopy(self._objects), self._version)

    def restore(self, snapshot: Snapshot) -> None:
        """Put the store back to an older state, resourceVersions included. Watches are not told, as in a restore."""
        self._objects = copy.deepcopy(snapshot.objects)
        self._version = snapshot.version
        self._pages.clear()

    def recreate_all(self, kinds: tuple[str, ...]) -> None:
        """As a new cluster filled from Git: every object of these kinds anew, with a new uid and without a status."""
        old = {key: stored.obj for key, stored in self._objects.items() if key.kind in kinds}
        for key in old:
            del self._objects[key]
        owners: dict[str, str] = {}
        for obj in old.values():
            owners[obj["metadata"]["uid"]] = self._uid()
        for key, obj in sorted(old.items()):
            meta = {name: value for name, value in obj["metadata"].items() if name in ("name", "namespace", "labels")}
            refs = [
                {**ref, "uid": owners.get(ref["uid"], ref["uid"])}
                for ref in obj["metadata"].get("ownerReferences") or []
            ]
            made = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta, "spec": obj["spec"]}
            if refs:
                # What a controller has made is not in Git; its owner makes it anew.
                continue
            self._insert(self._resource(key), made, uid=owners[obj["metadata"]["uid"]])

    def handle(self, request: Request, who: str = "user") -> Answer:
        """Carry a request out: (HTTP status, body)."""
        try:
            return self._dispatch(request, who)
        except Refusal as refusal:
            self._count(request, who, refusal.status, changed=False)
            return refusal.status, copied(refusal.body)

    # Routing

    def _dispatch(self, request: Request, who: str) -> Answer:
        if request.path == "/version":
            return 200, {"gitVersion": "v1.36.0-simulated"}
        resource, namespace, name, sub = self._route(request.path)
        before = self._version
        match request.method:
            case "GET" if name is None:
                return 200, self._list(resource, namespace, request)
            case "GET" if name is not None:
                return 200, copied(self._find(resource, namespace, name).obj)
            case "POST":
                answer = 201, self._create(resource, namespace, request, who)
            case "PUT" if name is not None:
                answer = 200, self._replace(resource, namespace, name, sub, request, who)
            case "PATCH" if name is not None:
                answer = 200, self._patch(resource, namespace, name, sub, request, who)
            case "DELETE" if name is not None:
                answer = 200, self._delete(resource, namespace, name, request.body or {})
            case _:
                raise Refusal(405, "MethodNotAllowed", f"{request.method} {request.path}")
        self._count(request, who, answer[0], changed=self._version != before)
        return answer[0], copied(answer[1])

    def _route(self, path: str) -> tuple[Resource, str, str | None, str]:
        parts = path.strip("/").split("/")
        prefix = 2 if parts[0] == "api" else 3
        root, rest = parts[:prefix], parts[prefix:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and "/".join([*root, rest[2]]) in self._by_path:
            namespace, rest = rest[1], rest[2:]
        resource = self._by_path.get("/".join([*root, rest[0]])) if rest else None
        if resource is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return resource, namespace, rest[1] if len(rest) > 1 else None, rest[2] if len(rest) > 2 else ""

    def _count(self, request: Request, who: str, code: int, *, changed: bool) -> None:
        if request.method == "GET":
            return
        resource, namespace, name, sub = self._route(request.path)
        if name is None:
            name = str(((request.body or {}).get("metadata") or {}).get("name"))
        now = self._clock.monotonic()
        self.writes.append(Write(now, who, request.method, Key(resource.kind, namespace, name), sub, code, changed))

    # Reading

    def _find(self, resource: Resource, namespace: str, name: str) -> Stored:
        found = self._objects.get(Key(resource.kind, namespace, name))
        if found is None:
            raise Refusal(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found

    def _list(self, resource: Resource, namespace: str, request: Request) -> Object:
        token = request.query.get("continue")
        if token is not None:
            if token not in self._pages:
                raise Refusal(410, "Expired", "the provided continue parameter is too old")
            left, version = self._pages.pop(token)
        else:
            left = [
                copied(stored.obj)
                for key, stored in sorted(self._objects.items())
                if key.kind == resource.kind and namespace in ("", key.namespace)
            ]
            version = self._version
        limit = int(request.query.get("limit", "0")) or len(left)
        items, left = left[:limit], left[limit:]
        if "PartialObjectMetadata" in request.accept:
            items = [{"metadata": item["metadata"]} for item in items]
        metadata: Object = {"resourceVersion": str(version)}
        if left:
            metadata["continue"] = self._uid()
            self._pages[metadata["continue"]] = (left, version)
        return {"kind": f"{resource.kind}List", "metadata": metadata, "items": items}

    # Writing

    def _create(self, resource: Resource, namespace: str, request: Request, who: str) -> Object:
        obj = copied(request.body)
        meta = obj.setdefault("metadata", {})
        if resource.namespaced:
            meta["namespace"] = namespace
            self._namespace_takes(resource, namespace, str(meta.get("name")))
        if Key(resource.kind, namespace, meta["name"]) in self._objects:
            raise Refusal(409, "AlreadyExists", f'{resource.plural} "{meta["name"]}" already exists')
        obj = {**obj, "metadata": {name: value for name, value in meta.items() if name in _GENERATED}}
        if has_status(resource):
            obj.pop("status", None)
        strict(resource, obj, request)
        stored = self._insert(resource, obj)
        stored.managed.updated(request.query.get("fieldManager", who), schema_of(resource), {}, owned(stored.obj))
        return stored.obj

    def _insert(self, resource: Resource, obj: Object, *, uid: str | None = None) -> Stored:
        meta = obj["metadata"]
        meta.update(uid=uid or self._uid(), generation=1, creationTimestamp=timestamp(self._clock.now()))
        if resource.kind == NAMESPACE.kind:
            obj["status"] = {"phase": "Active"}
        obj = checked(resource, obj, {})
        key = Key(resource.kind, meta.get("namespace", ""), meta["name"])
        stored = self._objects[key] = Stored(obj)
        self._stamp(stored)
        self._tell("ADDED", resource, stored.obj)
        return stored

    def _namespace_takes(self, resource: Resource, namespace: str, name: str) -> None:
        found = self._objects.get(Key(NAMESPACE.kind, "", namespace))
        if found is None and namespace != "default":
            raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        if found is not None and found.obj["metadata"].get("deletionTimestamp"):
            message = f'{resource.plural} "{name}" is forbidden: unable to create new content in namespace {namespace} '
            raise Refusal(403, "Forbidden", message + "because it is being terminated")

    def _patch(self, resource: Resource, namespace: str, name: str, sub: str, request: Request, who: str) -> Object:
        stored = self._find(resource, namespace, name)
        old = stored.obj
        manager = request.query.get("fieldManager", who)
        if request.content_type.startswith("application/apply-patch"):
            return self._apply(resource, stored, sub, request, manager)
        if request.content_type.startswith("application/json-patch"):
            new = json_patched(old, request.body)
        else:
            new = merge_patch(old, request.body)
        return self._change(resource, stored, new, sub, request, manager)

    def _replace(self, resource: Resource, namespace: str, name: str, sub: str, request: Request, who: str) -> Object:
        if Key(resource.kind, namespace, name) not in self._objects and request.body["metadata"].get("uid"):
            raise outdated(resource, name)  # the uid is a precondition, also where a replacement may create
        stored = self._find(resource, namespace, name)
        return self._change(
            resource, stored, copied(request.body), sub, request, request.query.get("fieldManager", who)
        )

    def _change(
        self, resource: Resource, stored: Stored, new: Object, sub: str, request: Request, manager: str
    ) -> Object:
        """Take a changed object in, if it was made from the one that is stored."""
        old = stored.obj
        version = new["metadata"].get("resourceVersion")
        if version is not None and version != old["metadata"]["resourceVersion"]:
            raise outdated(resource, old["metadata"]["name"])
        uid = new["metadata"].get("uid")
        if uid is not None and uid != old["metadata"]["uid"]:
            raise outdated(resource, old["metadata"]["name"])
        new = allowed(resource, old, new, sub)
        strict(resource, new, request)
        managed = stored.managed.copied()
        managed.updated(manager, schema_of(resource), owned(old), owned(new))
        return self._store(resource, stored, new, managed)

    def _apply(self, resource: Resource, stored: Stored, sub: str, request: Request, manager: str) -> Object:
        if sub != "status":
            raise Refusal(415, "UnsupportedMediaType", "only status is applied to in this simulation")
        body, old = request.body, stored.obj
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version is not None and version != old["metadata"]["resourceVersion"]:
            raise outdated(resource, old["metadata"]["name"])
        wanted = {"status": body.get("status") or {}}
        unknown = next(schemas.unknown_fields(schema_of(resource), wanted), None)
        if unknown is not None:
            message = f"failed to create typed patch object: .{unknown}: field not declared in schema"
            raise Refusal(500, "InternalError", message)
        managed = stored.managed.copied()
        live = {"status": old.get("status") or {}}
        try:
            force = request.query.get("force") == "true"
            after = managed.applied(manager, schema_of(resource), live, wanted, force=force)
        except FieldConflict as conflict:
            raise Refusal(409, "Conflict", f"Apply failed: {conflict}") from conflict
        return self._store(resource, stored, {**old, "status": after.get("status") or {}}, managed)

    def _store(self, resource: Resource, stored: Stored, new: Object, managed: Managed) -> Object:
        old = stored.obj
        new = checked(resource, new, old)
        stored.managed = managed
        if new == old:
            return old
        if any(new.get(name) != old.get(name) for name in {*new, *old} - {"metadata", "status"}):
            new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
        stored.obj = new
        self._stamp(stored)
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self._remove(resource, stored)
        else:
            self._tell("MODIFIED", resource, stored.obj)
        return stored.obj

    def _delete(self, resource: Resource, namespace: str, name: str, options: Object) -> Object:
        stored = self._find(resource, namespace, name)
        meta = stored.obj["metadata"]
        for field_name, value in (options.get("preconditions") or {}).items():
            if meta.get(field_name) != value:
                raise outdated(resource, name)
        finalizers = list(meta.get("finalizers") or [])
        policy = options.get("propagationPolicy", "Background")
        if policy == "Orphan":
            raise Refusal(400, "BadRequest", "orphaning is not simulated")
        wanted = FOREGROUND if policy == "Foreground" else None
        if resource.kind == NAMESPACE.kind:
            wanted = EMPTIED
        if wanted is not None and wanted not in finalizers and not meta.get("deletionTimestamp"):
            finalizers.append(wanted)
        if not finalizers:
            self._stamp(stored)
            self._remove(resource, stored)
            return {"kind": "Status", "status": "Success"}
        if not meta.get("deletionTimestamp"):
            changed = {
                **meta,
                "finalizers": finalizers,
                "deletionTimestamp": timestamp(self._clock.now()),
                "deletionGracePeriodSeconds": 0,
                "generation": meta["generation"] + 1,
            }
            stored.obj = {**stored.obj, "metadata": changed}
            self._stamp(stored)
            self._tell("MODIFIED", resource, stored.obj)
            self._collect_soon()
        return stored.obj

    def _stamp(self, stored: Stored) -> None:
        self._version += 1
        metadata = {**stored.obj["metadata"], "resourceVersion": str(self._version)}
        stored.obj = {**stored.obj, "metadata": metadata}

    def _remove(self, resource: Resource, stored: Stored) -> None:
        del self._objects[Key.of({**stored.obj, "kind": resource.kind})]
        self._tell("DELETED", resource, stored.obj)
        self._collect_soon()

    def _tell(self, type_: str, resource: Resource, obj: Object) -> None:
        change = Change(type_, resource, copied({**obj, "apiVersion": resource.api_version, "kind": resource.kind}))
        for listener in self._listeners:
            listener(change)

    def _resource(self, key: Key) -> Resource:
        return next(resource for resource in SERVED if resource.kind == key.kind)

    def _uid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    # What the garbage collector and the namespace controller do

    def stored(self) -> list[tuple[Key, Object]]:
        """Everything there is, by key; not to be changed."""
        return [(key, stored.obj) for key, stored in sorted(self._objects.items())]

    def erase(self, key: Key) -> None:
        """Delete an object, if it is there and nobody has asked for it yet."""
        found = self._objects.get(key)
        if found is not None and not found.obj["metadata"].get("deletionTimestamp"):
            self._delete(self._resource(key), key.namespace, key.name, {})

    def take_finalizer(self, key: Key, name: str) -> None:
        """Take a finalizer off an object; the last one lets it go."""
        stored = self._objects[key]
        left = [f for f in stored.obj["metadata"].get("finalizers") or [] if f != name]
        metadata = {k: v for k, v in stored.obj["metadata"].items() if k != "finalizers"}
        new = {**stored.obj, "metadata": {**metadata, **({"finalizers": left} if left else {})}}
        self._store(self._resource(key), stored, new, stored.managed)

    def _collect_soon(self) -> None:
        self._call_later(self._rng.uniform(0.02, 0.5), partial(collect, self))
