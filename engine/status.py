"""Writing status: only what changed, and the critical part never by chance.

Two ways, never mixed. Descriptive status is applied as a whole by server-side apply, when it differs. Critical
fields (who may run what where) are set one decision at a time with the resourceVersion that the decision was made
on; the API server refuses when the object has changed since.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from engine import errors
from engine.cache import Cache
from engine.keys import Key, Object
from engine.kube import KubeClient, Resource


class StatusWriter:
    """`critical`: per kind, the top-level status fields that only `compare_and_set` may write."""

    def __init__(
        self, client: KubeClient, cache: Cache, *, manager: str, critical: Mapping[str, Collection[str]]
    ) -> None:
        self._client = client
        self._cache = cache
        self._manager = manager
        self._critical = {kind: frozenset(fields) for kind, fields in critical.items()}
        self._settled: dict[Key, tuple[str, str]] = {}
        cache.watch(self._forget_deleted)

    async def write(self, resource: Resource, obj: Object, status: Mapping[str, Any]) -> Object:
        """Makes the descriptive status what `status` says, if it is not so; the newest known object.

        `status` is the whole of it: what is left out, or None, goes away. Critical fields in it are left alone, and
        `observedGeneration` is that of `obj`. An object that is gone is no error. Conflict when the server has a
        newer version than the cache: what was computed from an outdated object, or for one that another has taken the
        name of, is never written. What the server answers goes into the cache.
        """
        key, uid = Key.of(obj), obj["metadata"]["uid"]
        known = self._cache.get(key) or obj
        if known["metadata"]["uid"] != uid:
            raise errors.Conflict(409, "Conflict", f"{key} was created anew")
        desired = self._descriptive(key.kind, status)
        desired["observedGeneration"] = obj["metadata"]["generation"]
        if self._is_settled(key, desired, known):
            return known
        metadata = {"name": key.name, "resourceVersion": known["metadata"]["resourceVersion"]}
        if key.namespace:
            metadata["namespace"] = key.namespace
        try:
            answer = await self._client.apply_status(
                resource, {"metadata": metadata, "status": desired}, manager=self._manager
            )
        except errors.NotFound:
            self._cache.delete(key, uid)
            return obj
        self._cache.upsert(answer)
        self._remember(key, desired, answer)
        return self._cache.get(key) or answer

    async def compare_and_set(self, resource: Resource, obj: Object, fields: Mapping[str, Any]) -> Object:
        """Sets critical fields, each to exactly the given value (None removes it), if `obj` is still the newest.

        Conflict when it is not: observe again and decide again. It is sent also when nothing would change, because
        the answer is what the caller relies on. The newest object comes back and is in the cache.
        """
        key = Key.of(obj)
        others = set(fields) - self._critical.get(key.kind, frozenset())
        if others:
            raise ValueError(f"not critical status fields of {key.kind}: {', '.join(sorted(others))}")
        current = obj.get("status") or {}
        patch = {name: merge_difference(current.get(name), value) for name, value in fields.items()}
        version = obj["metadata"]["resourceVersion"]
        answer = await self._client.patch_status(resource, key, patch, resource_version=version, manager=self._manager)
        self._cache.upsert(answer)
        return self._cache.get(key) or answer

    def _descriptive(self, kind: str, status: Mapping[str, Any]) -> Object:
        critical = self._critical.get(kind, frozenset())
        return {
            name: without_none(value) for name, value in status.items() if name not in critical and value is not None
        }

    def _is_settled(self, key: Key, desired: Object, known: Object) -> bool:
        held = self._descriptive(key.kind, known.get("status") or {})
        if desired == held:
            return True
        wanted, there = canonical(desired), canonical(held)
        return wanted == there or self._settled.get(key) == (wanted, there)

    def _remember(self, key: Key, desired: Object, answer: Object) -> None:
        """When the server keeps something else than was asked (another manager's field, a default, a field that its
        schema lacks), asking again changes nothing: the same wish upon the same state is not written twice.
        """
        held = self._descriptive(key.kind, answer.get("status") or {})
        self._settled.pop(key, None)
        if desired != held and (wanted := canonical(desired)) != (there := canonical(held)):
            self._settled[key] = (wanted, there)

    def _forget_deleted(self, key: Key, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._settled.pop(key, None)


def without_none(value: Any) -> Any:
    """The value with every None inside a mapping left out, as the API server stores it."""
    if isinstance(value, dict):
        return {name: without_none(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [without_none(inner) for inner in value]
    return value


def canonical(value: Any) -> str:
    """JSON that is equal for equal status: order of keys does not count, nor that of conditions (keyed by type)."""
    return json.dumps(_sorted_conditions(value), sort_keys=True, separators=(",", ":"))


def _sorted_conditions(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted_conditions(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        items = [_sorted_conditions(inner) for inner in value]
        if all(isinstance(item, dict) and {"type", "status"} <= item.keys() for item in items):
            return sorted(items, key=lambda item: str(item["type"]))
        return items
    return value


def merge_difference(old: Any, new: Any) -> Any:
    """The JSON merge patch (RFC 7386) that turns `old` into exactly `new`, removals included."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return without_none(new)
    removed = {name: None for name in old if new.get(name) is None}
    changed = {
        name: merge_difference(old.get(name), value)
        for name, value in new.items()
        if value is not None and old.get(name) != value
    }
    return removed | changed
