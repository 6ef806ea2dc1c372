"""Server-side apply: which manager owns which field, as far as reconcilers meet it.

A field is named by its path: names of fields, and for an item of a keyed list what tells it apart. A manager owns by
Apply what it applied last, and by Update what it changed otherwise; the two are held apart, as on the real server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from simulator.schema import Schema, copied, item_keys

Step = str | tuple[Any, ...]
Path = tuple[Step, ...]
Owner = tuple[str, str]
"""(manager, Apply or Update)"""


class FieldConflict(Exception):
    """Fields belong to another manager, and it was not said to take them."""


@dataclass
class Managed:
    """Who owns which leaves of one object."""

    fields: dict[Owner, set[Path]] = field(default_factory=dict)

    def copied(self) -> Managed:
        """One of its own."""
        return Managed({owner: set(paths) for owner, paths in self.fields.items()})

    def updated(self, manager: str, schema: Schema, old: Any, new: Any) -> None:
        """`manager` changed the object otherwise than by apply."""
        before, after = leaves(schema, old), leaves(schema, new)
        changed = {path for path, value in after.items() if path not in before or before[path] != value}
        gone = before.keys() - after.keys()
        for paths in self.fields.values():
            paths.difference_update(changed | gone)
        if changed:
            self.fields.setdefault((manager, "Update"), set()).update(changed)

    def applied(self, manager: str, schema: Schema, live: Any, wanted: Any, *, force: bool) -> Any:
        """The object after `manager` has applied `wanted`. Raises FieldConflict."""
        me = (manager, "Apply")
        there, asked = leaves(schema, live), leaves(schema, wanted)
        for owner, paths in self.fields.items():
            taken = {path for path in paths & asked.keys() if there.get(path) != asked[path]}
            if owner != me and taken and not force:
                raise FieldConflict(f"conflict with {owner[0]}: {', '.join('.'.join(map(str, p)) for p in taken)}")
            if owner != me:
                paths.difference_update(taken)
        before = self.fields.get(me, set())
        self.fields[me] = set(asked)
        merged = _merged(schema, live, wanted)
        kept = _closure(asked).union(*(_closure(paths) for paths in self.fields.values()))
        return _without(schema, merged, _closure(before) - kept)


def leaves(schema: Schema, value: Any, path: Path = ()) -> dict[Path, Any]:
    """Every leaf of the value; an empty object or list is one."""
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        found: dict[Path, Any] = {}
        for name, inner in value.items():
            found |= leaves(_field(schema, name), inner, (*path, name))
        return found
    if isinstance(value, list) and value and (keys := item_keys(schema, value)) is not None:
        found = {}
        for key, inner in zip(keys, value, strict=True):
            found |= leaves(schema.get("items") or {}, inner, (*path, _item(key)))
        return found
    return {path: value}


def _field(schema: Schema, name: str) -> Schema:
    found = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
    return found if isinstance(found, dict) else {}


def _item(key: Any) -> Step:
    return key if isinstance(key, tuple) else (key,)


def _closure(paths: Iterable[Path]) -> set[Path]:
    return {path[:length] for path in paths for length in range(1, len(path) + 1)}


def _merged(schema: Schema, live: Any, wanted: Any) -> Any:
    if isinstance(live, dict) and isinstance(wanted, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        out = dict(live)
        for name, inner in wanted.items():
            out[name] = _merged(_field(schema, name), live[name], inner) if name in live else copied(inner)
        return out
    if isinstance(live, list) and isinstance(wanted, list):
        old, new = item_keys(schema, live), item_keys(schema, wanted)
        if old is not None and new is not None:
            items = schema.get("items") or {}
            out_list = [
                _merged(items, item, wanted[new.index(key)]) if key in new else item
                for key, item in zip(old, live, strict=True)
            ]
            return out_list + [copied(item) for key, item in zip(new, wanted, strict=True) if key not in old]
    return copied(wanted)


def _without(schema: Schema, value: Any, gone: set[Path], path: Path = ()) -> Any:
    if isinstance(value, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        return {
            name: _without(_field(schema, name), inner, gone, (*path, name))
            for name, inner in value.items()
            if (*path, name) not in gone
        }
    if isinstance(value, list) and (keys := item_keys(schema, value)) is not None:
        return [
            _without(schema.get("items") or {}, inner, gone, (*path, _item(key)))
            for key, inner in zip(keys, value, strict=True)
            if (*path, _item(key)) not in gone
        ]
    return value
