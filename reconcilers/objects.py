"""Typed reads from the cache: the newest object of a kind, as its model.

A model is parsed once per resourceVersion, since one pass over a VM reads hosts, pools and disks that seldom change.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from crds import KINDS
from crds.base import GROUP, VERSION, Kind, Resource
from engine.cache import Cache
from engine.keys import Key
from engine.kube import Resource as ApiResource

log = logging.getLogger(__name__)

KEPT = 1024
"""Parsed models that are kept: a pass over a VM reads the same few hosts, pools and disks again and again."""

R = TypeVar("R", bound=Resource[Any, Any])

BY_MODEL: Mapping[type[Resource[Any, Any]], Kind] = {kind.model: kind for kind in KINDS}
API: Mapping[str, ApiResource] = {
    kind.kind: ApiResource(group=GROUP, version=VERSION, kind=kind.kind, plural=kind.plural, namespaced=kind.namespaced)
    for kind in KINDS
}
NAMESPACE = ApiResource(group="", version="v1", kind="Namespace", plural="namespaces", namespaced=False)
SECRET = ApiResource(group="", version="v1", kind="Secret", plural="secrets", namespaced=True)


def key_of(obj: Resource[Any, Any]) -> Key:
    """The key of a parsed object."""
    return Key(obj.kind, obj.metadata.namespace, obj.metadata.name)


class Objects:
    """Reads models out of the cache; the models used last are kept parsed, `KEPT` at most."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._parsed: OrderedDict[Key, tuple[str, Resource[Any, Any]]] = OrderedDict()

    def get(self, model: type[R], name: str, namespace: str = "") -> R | None:
        """The newest object, or None when there is none (or it cannot be read, which is logged)."""
        return self._read(model, Key(BY_MODEL[model].kind, namespace, name))

    def all(self, model: type[R], namespace: str | None = None) -> list[R]:
        """All objects of a kind, of one namespace or of all; prefer an index for kinds of which there are thousands."""
        return self._models(model, self._cache.keys(BY_MODEL[model].kind, namespace))

    def by_index(self, model: type[R], index: str, value: str) -> list[R]:
        """The objects that an index of the cache names."""
        return self._models(model, self._cache.keys_by_index(BY_MODEL[model].kind, index, value))

    def namespace_labels(self, namespace: str) -> dict[str, str] | None:
        """The labels of a namespace, or None when it is not known."""
        obj = self._cache.get(Key("Namespace", "", namespace))
        return None if obj is None else dict(obj["metadata"].get("labels") or {})

    def _models(self, model: type[R], keys: Iterable[Key]) -> list[R]:
        found = (self._read(model, key) for key in keys)
        return [obj for obj in found if obj is not None]

    def _read(self, model: type[R], key: Key) -> R | None:
        version = self._cache.version(key)
        known = self._parsed.get(key)
        if known is not None and known[0] == version and isinstance(known[1], model):
            self._parsed.move_to_end(key)
            return known[1]
        obj = self._cache.get(key)
        if obj is None or version is None:
            self._parsed.pop(key, None)
            return None
        try:
            parsed: R = model.parse(obj)
        except ValidationError as error:
            log.warning("%s cannot be read: %s", key, error)
            return None
        self._parsed[key] = (version, parsed)
        while len(self._parsed) > KEPT:
            self._parsed.popitem(last=False)
        return parsed
