"""What happens to what nobody owns any more, and to what is in a namespace that ends: the API's own controllers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.keys import Key

if TYPE_CHECKING:
    from simulator.apiserver import ApiServer

FOREGROUND = "foregroundDeletion"
EMPTIED = "kubernetes"
"""What holds a namespace until it is empty. (The real one is in its spec.)"""


def collect(server: ApiServer) -> None:
    """One round; each change that it makes asks the server for the next round."""
    objects = dict(server.stored())
    uids = {obj["metadata"]["uid"] for obj in objects.values()}
    for key, obj in objects.items():
        meta = obj["metadata"]
        owners = [ref["uid"] for ref in meta.get("ownerReferences") or []]
        if owners and not any(owner in uids for owner in owners):
            server.erase(key)
        elif meta.get("deletionTimestamp") and FOREGROUND in (meta.get("finalizers") or ()):
            _foreground(server, objects, key, meta["uid"])
        elif meta.get("deletionTimestamp") and EMPTIED in (meta.get("finalizers") or ()):
            _empty(server, objects, key)


def _foreground(server: ApiServer, objects: dict[Key, Any], owner: Key, uid: str) -> None:
    """What the object owns goes first; the object itself when nothing is left that blocks it."""
    blocked = False
    for key, obj in objects.items():
        refs = [ref for ref in obj["metadata"].get("ownerReferences") or [] if ref["uid"] == uid]
        if refs:
            blocked = blocked or any(ref.get("blockOwnerDeletion") for ref in refs)
            server.erase(key)
    if not blocked:
        server.take_finalizer(owner, FOREGROUND)


def _empty(server: ApiServer, objects: dict[Key, Any], namespace: Key) -> None:
    inside = [key for key in objects if key.namespace == namespace.name]
    for key in inside:
        server.erase(key)
    if not inside:
        server.take_finalizer(namespace, EMPTIED)
