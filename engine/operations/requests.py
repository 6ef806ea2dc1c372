"""Asking for operations: by a name that follows from what is asked for, so that asking twice makes one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from engine import errors
from engine.keys import Key, Object
from engine.operations import order as orders
from engine.operations.decide import Work
from engine.operations.definition import Locked, Operation, Run, Step, Subject, W
from engine.operations.order import (
    FINALIZER,
    KIND,
    OPERATIONS,
    OWNED_LABEL,
    Compensation,
    Context,
    LockUse,
    Order,
    Ref,
    Target,
    dumped,
)
from engine.operations.outcomes import Done, InProgress, NotDone, Observed, Permanent, Refusal

if TYPE_CHECKING:
    from engine.operations.manager import Operations

CALL_SECONDS = 30.0
"""Deadline of one request to the API server."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    `once`: what makes this request another one than the last of the same type, target and parameters (a generation, the
    uid of who asks); the same means the same operation, for as long as that one is kept. `correlation_id` "": its name.
    """

    type: str
    target: Target
    parameters: Mapping[str, Any] = field(default_factory=dict)
    once: str = ""
    priority: int = 0
    requested_by: str = ""
    correlation_id: str = ""
    lock: LockUse = LockUse.OWN
    compensation: Compensation = Compensation.OWN

    @property
    def name(self) -> str:
        """The same for the same request."""
        said = (self.type, self.target.uid, self.target.kind, dumped(self.parameters), self.once)
        readable = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", self.type).lower()
        return f"{readable}-{self.target.name[:100]}-{digest(*said)}"

    def to_dict(self) -> Object:
        """As JSON, for the parameters of an operation that asks for others."""
        own: Object = {"type": self.type, "target": self.target.to_dict(), "parameters": dict(self.parameters)}
        own |= {"once": self.once, "priority": self.priority, "requestedBy": self.requested_by}
        return own | {"lock": self.lock.value, "compensation": self.compensation.value}

    @classmethod
    def from_dict(cls, told: Object, correlation_id: str) -> Request:
        """What `to_dict` said."""
        of = told["target"]
        return cls(
            told["type"],
            Target(of["kind"], of.get("namespace", ""), of["name"], of["uid"]),
            told["parameters"],
            told["once"],
            told["priority"],
            told["requestedBy"],
            correlation_id,
            LockUse(told["lock"]),
            Compensation(told["compensation"]),
        )


def digest(*parts: str) -> str:
    """Ten characters that differ for different parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def child_name(maker: Ref, step: str) -> str:
    """The name of the operation that a step of `maker` begins."""
    return f"{maker.name[:200]}-{digest(maker.uid, step)}"


def ordered(home: Operations[W], request: Request, *, name: str = "", parent: Ref | None = None) -> Order:
    """The order that a request comes to, of an operation that does not exist yet. Permanent for what makes no sense."""
    definition = home.types.get(request.type)
    if definition is None:
        raise Permanent(f"there is no operation {request.type}")
    if request.lock is LockUse.INHERIT and (parent is None or request.compensation is Compensation.DETACHED):
        raise Permanent(f"{request.type} cannot work under the locks of one that does not wait for it")
    namespace = parent.namespace if parent is not None else request.target.namespace or home.namespace
    key = Key(KIND, namespace, name or request.name)
    context = Context(request.correlation_id or key.name, request.requested_by, request.lock, request.compensation)
    order = Order(
        key, "", request.type, request.target, context, request.parameters, priority=request.priority, parent=parent
    )
    return replace(order, wanted=definition.locks(Subject(home.world, order, home)).wanted())


async def create(home: Operations[W], order: Order) -> Object:
    """The Operation object, or the one that is there already. Permanent if that one says something else."""
    spec = orders.render_spec(order)
    metadata: Object = {"name": order.key.name, "namespace": order.key.namespace, "finalizers": [FINALIZER]}
    if order.parent is not None:
        metadata["labels"] = {OWNED_LABEL: order.parent.uid}
        if order.awaited and order.parent.namespace == order.key.namespace:
            metadata["ownerReferences"] = [_reference(order.parent)]
    body = {"apiVersion": OPERATIONS.api_version, "kind": KIND, "metadata": metadata, "spec": spec}
    found = home.cache.get(order.key)
    if found is None:
        try:
            found = await home.client.create(OPERATIONS, body)
        except errors.AlreadyExists:
            found = await home.client.get(OPERATIONS, order.key.namespace, order.key.name)
        home.cache.upsert(found)
    if any(found["spec"].get(name) != spec.get(name) for name in ("type", "target", "parameters", "parent", "undoes")):
        raise Permanent(f"the name {order.key.name} is another operation's")
    return found


async def cancel(home: Operations[W], obj: Object) -> None:
    """Nobody wants it any more. Conflict when it has changed."""
    if obj["spec"]["mode"] == "Cancel":
        return
    change = {"op": "replace", "path": "/spec/mode", "value": "Cancel"}
    version = obj["metadata"]["resourceVersion"]
    answer = await home.client.patch_metadata(
        OPERATIONS, Key.of(obj), [change], resource_version=version, manager="hostler"
    )
    home.cache.upsert(answer)


async def refusals(home: Operations[W], requests: Sequence[Request]) -> list[tuple[Request, Refusal]]:
    """What stands against these requests, as far as that can be said before anything is written."""
    found = []
    for request in requests:
        try:
            order = ordered(home, request)
            refusal = await home.types[request.type].check(Subject(home.world, order, home))
        except Permanent as error:
            refusal = Refusal("Refused", str(error))
        if refusal is not None:
            found.append((request, refusal))
    return found


class CreateAll(Step[Any]):
    """Creates every operation of a batch that is not there yet."""

    async def observe(self, run: Run[Any]) -> Observed:
        for order in self._orders(run):
            if run.operations.cache.get(order.key) is None:
                return NotDone()
        return Done(f"{len(self._orders(run))} operations, correlation id {run.order.context.correlation_id}")

    async def do(self, run: Run[Any]) -> Done | InProgress:
        for order in self._orders(run):
            run.check(CALL_SECONDS)
            await create(run.operations, order)
        return Done(f"{len(self._orders(run))} operations, correlation id {run.order.context.correlation_id}")

    @staticmethod
    def _orders(run: Run[Any]) -> list[Order]:
        return [
            replace(ordered(run.operations, request, name=child_name(run.order.ref, str(n))), parent=run.order.ref)
            for n, request in enumerate(_requests(run.order))
        ]


class Batch(Operation[Any]):
    """Several operations, all checked before the first of them is created; then all are. It waits for none of them."""

    type: ClassVar[str] = "Batch"
    kind_of_work: ClassVar[Work] = Work.RESUMABLE
    steps: ClassVar = (CreateAll,)

    def locks(self, subject: Subject[Any]) -> Locked:
        return Locked()

    async def check(self, subject: Subject[Any]) -> Refusal | None:
        against = await refusals(subject.operations, _requests(subject.order))
        if not against:
            return None
        said = "; ".join(f"{request.type} of {request.target}: {refusal.message}" for request, refusal in against)
        return Refusal("BatchRefused", f"{len(against)} of {len(_requests(subject.order))} cannot be done: {said}")

    async def plan(self, subject: Subject[Any]) -> Sequence[Step[Any]]:
        return [CreateAll("create")]


def batch(requests: Sequence[Request], target: Target, *, once: str, requested_by: str = "") -> Request:
    """The request for all of these: one object, so that there are all or none. `target`: what the batch is about."""
    told = [replace(request, compensation=Compensation.DETACHED).to_dict() for request in requests]
    return Request(Batch.type, target, {"requests": told}, once, requested_by=requested_by)


def _requests(order: Order) -> list[Request]:
    return [Request.from_dict(told, order.context.correlation_id) for told in order.parameters["requests"]]


def _reference(owner: Ref) -> Object:
    return {"apiVersion": OPERATIONS.api_version, "kind": KIND, "name": owner.name, "uid": owner.uid}
