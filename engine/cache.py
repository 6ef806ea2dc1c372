"""The newest known state of every watched object, for reading without asking the API server.

Two writers feed it: the watch (`upsert`, `delete`), and our own writes, whose answers go in at once so that the next
reconcile reads its own write. Both can be late, so an older `resourceVersion` never replaces a newer one, and a `uid`
once deleted never comes back. A list (`replace`) repairs what a watch lost; only a list of a store that went back in
time is believed against these rules: one older than what was seen before it was asked for, or one that is newer than
an object we hold and has it older (the store went back and has overtaken us since).

Objects are kept as compact JSON, without what nobody here reads (managedFields, kubectl's copy of the manifest):
a few KB each, against ten times that as dicts. Whatever is handed out is decoded for the caller: a private copy, and
work, so that what is asked for all the time deserves an index, and what is asked of thousands a projection.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from engine.keys import Key, Keys, Object, Objects

Listener = Callable[[Key, Object | None, Object | None], None]
IndexFunction = Callable[[Object], Iterable[str]]

T = TypeVar("T")

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_TOMBSTONES = 16384

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    uid: str
    version: int
    body: bytes

    def decode(self) -> Object:
        obj: Object = json.loads(self.body)
        obj["metadata"]["resourceVersion"] = str(self.version)
        return obj


@dataclass(slots=True)
class _Index:
    function: IndexFunction
    keys: dict[str, set[Key]] = field(default_factory=dict)
    values: dict[Key, frozenset[str]] = field(default_factory=dict)
    revisions: dict[str, int] | None = None
    """By value: how often its objects changed; None where nobody asks."""

    def put(self, key: Key, values: frozenset[str]) -> None:
        if self.revisions is not None:
            for value in values | self.values.get(key, frozenset()):
                self.revisions[value] = self.revisions.get(value, 0) + 1
        for gone in self.values.pop(key, frozenset()) - values:
            self.keys[gone].discard(key)
            if not self.keys[gone]:
                del self.keys[gone]
        for value in values:
            self.keys.setdefault(value, set()).add(key)
        if values:
            self.values[key] = values


@dataclass(frozen=True, eq=False)
class Projection(Generic[T]):
    """What a question over thousands of objects needs of each; kept beside them, so that none is decoded."""

    kind: str
    function: Callable[[Object], T | None]
    """None: nothing is kept of this one. It must not change the object."""


@dataclass(slots=True)
class _Kind:
    entries: dict[Key, _Entry] = field(default_factory=dict)
    indexes: dict[str, _Index] = field(default_factory=dict)
    projections: dict[Projection[Any], dict[Key, Any]] = field(default_factory=dict)
    newest: int = 0
    synced: bool = False


@dataclass(slots=True)
class Difference:
    """What a complete list says about the cache."""

    vanished: set[Key]
    """Keys that are here and no longer there."""
    outdated: set[Key]
    """Keys whose object here is older than there, or missing."""
    rewound: bool = False
    """The list is newer than something it does not know: the store went back in time, and has gone on since."""


class Cache:
    """Objects by key. One event loop only; nothing in it waits."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._buried: OrderedDict[str, int | None] = OrderedDict()
        self._listeners: list[Listener] = []

    # -- writing

    def upsert(self, obj: Object) -> bool:
        """Takes in an object from a watch event or a write's answer; True when something visible changed.

        Ignored: an older version than the cached one of that name, and a uid that was deleted. A higher version with
        the same content is remembered but is no change. ValueError when `resourceVersion` is no decimal integer.
        """
        key = Key.of(obj)
        entry = _encode(obj)
        kind = self._kind(key.kind)
        held = kind.entries.get(key)
        if entry.uid in self._buried or (held is not None and entry.version < held.version):
            return False
        return self._store(kind, key, held, entry, obj)

    def delete(self, key: Key, uid: str | None = None, version: str | None = None) -> bool:
        """The object is gone; True when it was here. With `uid`, another object of that name stays.

        `version`: the resourceVersion of the deletion, where it is known.
        """
        kind = self._kind(key.kind)
        held = kind.entries.get(key)
        if uid is not None:
            self._bury(uid, int(version) if version is not None else None)
        if held is None or (uid is not None and uid != held.uid):
            return False
        self._remove(kind, key, held)
        return True

    def mark(self, kind: str) -> int:
        """The newest resourceVersion seen of a kind; taken before a list is asked for, and given to `replace`."""
        return self._kind(kind).newest

    def replace(
        self,
        kind: str,
        objects: Iterable[Object],
        resource_version: str,
        *,
        namespace: str | None = None,
        mark: int = 0,
        rewound: bool = False,
    ) -> set[Key]:
        """Takes in a complete list of a kind (in one namespace, if named); the keys that changed or vanished.

        `resource_version` is the list's. What is newer than the list stays, and what was deleted since stays deleted.
        When the list is older than `mark`, or `compare` has found it, the store went back in time: then only the list
        counts.
        """
        state = self._kind(kind)
        version = int(resource_version)
        if version < mark or rewound:
            _log.warning("the API server went back in time; believing its list", extra={"kind": kind})
            return self._start_over(state, kind, objects, namespace)
        changed = set[Key]()
        listed = dict[Key, str]()
        for obj in objects:
            key = Key.of(obj)
            listed[key] = obj["metadata"]["uid"]
            if self.upsert(obj):
                changed.add(key)
        for key in self._vanished(state, listed, version, namespace):
            self._remove(state, key, state.entries[key])
            changed.add(key)
        return changed

    def compare(
        self, kind: str, listed: Iterable[Object], resource_version: str, *, namespace: str | None = None
    ) -> Difference:
        """Against a complete list of metadata only."""
        state, version = self._kind(kind), int(resource_version)
        seen = dict[Key, str]()
        difference = Difference(set(), set())
        for item in listed:
            metadata = item["metadata"]
            key, uid, listed_version = _key(kind, metadata), metadata["uid"], int(metadata["resourceVersion"])
            seen[key] = uid
            held = state.entries.get(key)
            died = self._buried.get(uid)
            if (held is not None and listed_version < held.version <= version) or (
                died is not None and died <= version
            ):
                difference.rewound = True
            elif (held is None or held.version < listed_version) and uid not in self._buried:
                difference.outdated.add(key)
        difference.vanished = set(self._vanished(state, seen, version, namespace))
        return difference

    # -- reading

    def get(self, key: Key) -> Object | None:
        """The object, as a private copy; None when it is not known."""
        held = self._kind(key.kind).entries.get(key)
        return None if held is None else held.decode()

    def version(self, key: Key) -> str | None:
        """The resourceVersion of the object, without decoding it; None when it is not known."""
        held = self._kind(key.kind).entries.get(key)
        return None if held is None else str(held.version)

    def keys(self, kind: str, namespace: str | None = None) -> Keys:
        """The keys of a kind, in all namespaces or in one; cheap, nothing is decoded."""
        return [key for key in self._kind(kind).entries if namespace is None or key.namespace == namespace]

    def list(self, kind: str, namespace: str | None = None) -> Objects:
        """The objects of a kind as private copies; each is decoded, so prefer an index where there are thousands."""
        entries = self._kind(kind).entries
        return [entries[key].decode() for key in self.keys(kind, namespace)]

    def add_index(self, kind: str, name: str, function: IndexFunction, *, counted: bool = False) -> None:
        """Keeps the objects of a kind findable by the values that `function` gives; covers what is here already.

        The function must not change the object: all of a kind are given the same one. `counted`: `revision` can be
        asked for.

        An exception of `function` reaches whoever puts the object in, and leaves the cache as it was.
        """
        state = self._kind(kind)
        index = _Index(function, revisions={} if counted else None)
        for key, entry in state.entries.items():
            index.put(key, frozenset(function(entry.decode())))
        state.indexes[name] = index

    def keys_by_index(self, kind: str, name: str, value: str) -> Keys:
        """The keys whose objects have that value, sorted. KeyError for an index that was never added."""
        return sorted(self._kind(kind).indexes[name].keys.get(value, ()))

    def revision(self, kind: str, name: str, value: str) -> int:
        """A number that rises with every change of an object that has that value, or had it before the change."""
        revisions = self._kind(kind).indexes[name].revisions
        assert revisions is not None, f"the index {name} of {kind} is not counted"
        return revisions.get(value, 0)

    def by_index(self, kind: str, name: str, value: str) -> Objects:
        """The objects that have that value, sorted by key, as private copies."""
        entries = self._kind(kind).entries
        return [entries[key].decode() for key in self.keys_by_index(kind, name, value)]

    def add_projection(self, projection: Projection[Any]) -> None:
        """Keeps a projection of the objects of its kind. Before the first of them is stored.

        An exception of its function reaches whoever puts the object in, and leaves the cache as it was.
        """
        self._kind(projection.kind).projections[projection] = {}

    def projected(self, projection: Projection[T], key: Key) -> T | None:
        """The projection of an object; None where there is none. KeyError for one that was never added."""
        return self._kind(projection.kind).projections[projection].get(key)

    def mark_synced(self, kind: str) -> None:
        """The first complete list of that kind is in."""
        self._kind(kind).synced = True

    def synced(self, kinds: Iterable[str]) -> bool:
        """Whether absence from the cache means absence, for all of these kinds."""
        return all(self._kind(kind).synced for kind in kinds)

    def watch(self, listener: Listener) -> None:
        """Calls `listener(key, old, new)` after every visible change; old or new is None at creation and deletion.

        It is called inside the write and must neither wait nor change them. What it raises is logged as a bug and
        disturbs nobody else.
        """
        self._listeners.append(listener)

    # -- inside

    def _kind(self, kind: str) -> _Kind:
        return self._kinds.setdefault(kind, _Kind())

    def _store(self, kind: _Kind, key: Key, held: _Entry | None, entry: _Entry, obj: Object) -> bool:
        same = held is not None and held.uid == entry.uid and held.body == entry.body
        if not same:
            values = {name: frozenset(index.function(obj)) for name, index in kind.indexes.items()}
            projected = {each: each.function(obj) for each in kind.projections}
            for name, index in kind.indexes.items():
                index.put(key, values[name])
            for each, kept in kind.projections.items():
                _put(kept, key, projected[each])
        kind.entries[key] = entry
        kind.newest = max(kind.newest, entry.version)
        if same:
            return False
        if held is not None and held.uid != entry.uid:
            self._bury(held.uid)
        self._tell(key, held, entry)
        return True

    def _remove(self, kind: _Kind, key: Key, held: _Entry) -> None:
        del kind.entries[key]
        for index in kind.indexes.values():
            index.put(key, frozenset())
        for kept in kind.projections.values():
            kept.pop(key, None)
        if held.uid not in self._buried:
            self._bury(held.uid)
        self._tell(key, held, None)

    def _start_over(self, state: _Kind, kind: str, objects: Iterable[Object], namespace: str | None) -> set[Key]:
        entries = {Key.of(obj): (_encode(obj), obj) for obj in objects}
        changed = set[Key]()
        for key in self.keys(kind, namespace):
            if key not in entries:
                self._remove(state, key, state.entries[key])
                changed.add(key)
        state.newest = 0
        for key, (entry, obj) in entries.items():
            self._buried.pop(entry.uid, None)
            if self._store(state, key, state.entries.get(key), entry, obj):
                changed.add(key)
        return changed

    def _vanished(self, state: _Kind, listed: dict[Key, str], version: int, namespace: str | None) -> Iterator[Key]:
        for key, entry in list(state.entries.items()):
            inside = namespace is None or key.namespace == namespace
            if inside and key not in listed and entry.version <= version:
                yield key

    def _bury(self, uid: str, version: int | None = None) -> None:
        self._buried[uid] = version
        self._buried.move_to_end(uid)
        # A late report of a deletion's object is seconds old; some thousand deletions later none can come any more.
        if len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)

    def _tell(self, key: Key, old: _Entry | None, new: _Entry | None) -> None:
        if not self._listeners:
            return
        before, after = old.decode() if old is not None else None, new.decode() if new is not None else None
        for listener in self._listeners:
            try:
                listener(key, before, after)
            except Exception:
                _log.exception("a cache listener failed", extra={"changed": str(key)})


def _put(kept: dict[Key, Any], key: Key, value: Any) -> None:
    if value is None:
        kept.pop(key, None)
    else:
        kept[key] = value


def _key(kind: str, metadata: Object) -> Key:
    return Key(kind, metadata.get("namespace") or "", metadata["name"])


def _encode(obj: Object) -> _Entry:
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    version = int(metadata.pop("resourceVersion"))
    if _LAST_APPLIED in (metadata.get("annotations") or {}):
        annotations = {name: value for name, value in metadata["annotations"].items() if name != _LAST_APPLIED}
        metadata["annotations"] = annotations
    body = json.dumps({**obj, "metadata": metadata}, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return _Entry(metadata["uid"], version, body.encode())
