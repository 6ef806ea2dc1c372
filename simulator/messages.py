"""What goes to and fro between an API server and those who use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.keys import Key
from engine.kube import Resource
from simulator.schema import Cause, copied

Object = dict[str, Any]
Answer = tuple[int, Object]
"""(HTTP status, body)"""


@dataclass(frozen=True)
class Request:
    """One request as it arrives."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    accept: str = "application/json"


@dataclass(frozen=True)
class Write:
    """A write that was asked for, for those who count."""

    at: float
    who: str
    verb: str
    key: Key
    subresource: str
    code: int
    changed: bool


@dataclass(frozen=True)
class Change:
    """What a watch is told: ADDED, MODIFIED or DELETED."""

    type: str
    resource: Resource
    obj: Object


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str, message: str, causes: list[Cause] | None = None) -> None:
        """The parts of a metav1.Status."""
        super().__init__(message)
        self.status = status
        self.body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reason,
            "message": message,
            "code": status,
        }
        if causes is not None:
            listed = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
            self.body["details"] = {"causes": listed}


def merge_patch(old: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copied(patch)
    new = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = merge_patch(new.get(name), value)
    return new


def outdated(resource: Resource, name: str) -> Refusal:
    message = f'Operation cannot be fulfilled on {resource.plural} "{name}": the object has been modified'
    return Refusal(409, "Conflict", message)
