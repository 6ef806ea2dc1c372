"""What an Operation's metadata and spec say: what is asked for. Written once, then only `mode` changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.keys import Key, Object
from engine.kube import Resource
from engine.locks import Lockable
from engine.locks.record import Mode, Wanted

OPERATIONS = Resource("hostler.dev", "v1alpha1", "Operation", "operations", namespaced=True)
KIND = OPERATIONS.kind
FINALIZER = "hostler.dev/cleanup"
OWNED_LABEL = "hostler.dev/operation-uid"
"""On whatever an operation makes: which operation that was."""
PAUSED = "hostler.dev/paused"
LOCK_RANK = 1000
"""Of an operation that locks nothing but itself."""

_MODES = {Mode.EXCLUSIVE: "Exclusive", Mode.SHARED: "Shared"}


class LockUse(StrEnum):
    """Under whose locks it works."""

    OWN = "Own"
    INHERIT = "Inherit"
    NONE = "None"


class Compensation(StrEnum):
    """What becomes of it when its parent rolls back."""

    INHERIT = "Inherit"
    """It is undone too, also after it has succeeded."""
    OWN = "Own"
    """It is cancelled while it runs; once it has succeeded it stays."""
    DETACHED = "Detached"
    """It is left alone; nor does the parent wait for it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The object that an operation is about; `namespace` "" for a cluster-scoped one."""

    kind: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.kind} " + "/".join(part for part in (self.namespace, self.name) if part)

    def to_dict(self) -> Object:
        namespace = {"namespace": self.namespace} if self.namespace else {}
        return {"kind": self.kind, **namespace, "name": self.name, "uid": self.uid}


@dataclass(frozen=True, slots=True)
class Ref:
    """Another operation."""

    namespace: str
    name: str
    uid: str

    @property
    def key(self) -> Key:
        return Key(KIND, self.namespace, self.name)

    def to_dict(self) -> Object:
        return {"namespace": self.namespace, "name": self.name, "uid": self.uid}


@dataclass(frozen=True, slots=True)
class Context:
    """In what connection it is done."""

    correlation_id: str
    requested_by: str
    lock: LockUse = LockUse.OWN
    compensation: Compensation = Compensation.OWN

    def to_dict(self) -> Object:
        told = {"correlationId": self.correlation_id, "requestedBy": self.requested_by}
        return told | {"lock": self.lock.value, "compensation": self.compensation.value}


@dataclass(frozen=True, slots=True)
class Order:
    """One operation, as it was asked for.

    `rollback`: it takes back what `undoes` has done. `cancelled`: nobody wants it any more, or it is being deleted.
    `since`: RFC 3339, its creation. `uid` "": it does not exist yet.
    """

    key: Key
    uid: str
    type: str
    target: Target
    context: Context
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wanted: tuple[Wanted, ...] = ()
    priority: int = 0
    since: str = ""
    rollback: bool = False
    cancelled: bool = False
    deleting: bool = False
    paused_by: str | None = None
    parent: Ref | None = None
    undoes: Ref | None = None
    generation: int = 0
    finalizers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As locks know it."""
        return f"{self.key.namespace}/{self.key.name}"

    @property
    def ref(self) -> Ref:
        return Ref(self.key.namespace, self.key.name, self.uid)

    @property
    def awaited(self) -> bool:
        """Whether a parent waits for it."""
        return self.parent is not None and self.context.compensation is not Compensation.DETACHED

    @property
    def itself(self) -> Lockable:
        """What it locks when it needs no other lock: so that only one process works on it."""
        return Lockable(KIND, self.key.namespace, self.key.name, self.uid, LOCK_RANK)


def parse(obj: Object) -> Order:
    """The order in an Operation object. KeyError, ValueError or TypeError for what no request of ours has written."""
    metadata, spec = obj["metadata"], obj["spec"]
    context = spec["context"]
    deleting = bool(metadata.get("deletionTimestamp"))
    return Order(
        key=Key.of(obj),
        uid=metadata["uid"],
        type=spec["type"],
        target=_target(spec["target"]),
        context=Context(
            context["correlationId"],
            context["requestedBy"],
            LockUse(context["lock"]),
            Compensation(context["compensation"]),
        ),
        parameters=json.loads(spec["parameters"]),
        wanted=tuple(_wanted(lock) for lock in spec["locks"]),
        priority=spec["priority"],
        since=metadata.get("creationTimestamp") or "",
        rollback=spec["executionReason"] == "Rollback",
        cancelled=deleting or spec["mode"] == "Cancel",
        deleting=deleting,
        paused_by=(metadata.get("annotations") or {}).get(PAUSED),
        parent=Ref(**spec["parent"]) if "parent" in spec else None,
        undoes=Ref(**spec["undoes"]) if "undoes" in spec else None,
        generation=metadata["generation"],
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


def render_spec(order: Order) -> Object:
    """The spec of the object that says so."""
    refs = {"parent": order.parent, "undoes": order.undoes}
    return {
        "type": order.type,
        "target": order.target.to_dict(),
        "parameters": dumped(order.parameters),
        "executionReason": "Rollback" if order.rollback else "Regular",
        "mode": "Cancel" if order.cancelled else "Run",
        "priority": order.priority,
        "locks": [_told(lockable, mode) for lockable, mode in order.wanted],
        "context": order.context.to_dict(),
    } | {name: ref.to_dict() for name, ref in refs.items() if ref is not None}


def dumped(parameters: Mapping[str, Any]) -> str:
    """JSON, the same for the same content. TypeError for what is no JSON."""
    return json.dumps(parameters, sort_keys=True, separators=(",", ":"))


def lock_mode(mode: Mode) -> str:
    """As the API says it."""
    return _MODES[mode]


def _target(told: Object) -> Target:
    return Target(told["kind"], told.get("namespace", ""), told["name"], told["uid"])


def _wanted(told: Object) -> Wanted:
    of = _target(told)
    mode = Mode.EXCLUSIVE if told["mode"] == _MODES[Mode.EXCLUSIVE] else Mode.SHARED
    return Lockable(of.kind, of.namespace, of.name, of.uid, told["rank"], told["floor"]), mode


def _told(lockable: Lockable, mode: Mode) -> Object:
    of = Target(lockable.kind, lockable.namespace, lockable.name, lockable.uid)
    return of.to_dict() | {"mode": _MODES[mode], "rank": lockable.rank, "floor": lockable.floor}
