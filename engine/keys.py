"""The name by which everything in the engine knows an object.

A reconciler is told which object, never what happened to it, so a key is all that travels through the queue.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object as JSON gives it: `apiVersion`, `kind`, `metadata`, and what the kind adds."""

Objects = list[Object]


class Key(NamedTuple):
    """Kind, namespace ("" for a cluster-scoped object) and name."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> "Key":
        """The key of a Kubernetes object; KeyError when it carries no kind or no name."""
        metadata = obj["metadata"]
        return cls(obj["kind"], metadata.get("namespace") or "", metadata["name"])

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


Keys = list[Key]
