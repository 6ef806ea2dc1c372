"""What an API server does with a structural schema: unknown fields, defaults, and whether a value is valid.

Rules in CEL are the real server's business; the tests against it cover them.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Schema = Mapping[str, Any]


def copied(value: Any) -> Any:
    """A copy of what JSON can say; of all ways to make one the fastest."""
    return marshal.loads(marshal.dumps(value))


@dataclass(frozen=True)
class Cause:
    """One reason why a value is refused, as in the details of a Status."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


def unknown_fields(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """Paths of fields that the schema lacks."""
    if isinstance(value, dict) and "properties" in schema:
        for name, inner in value.items():
            below = f"{path}.{name}" if path else name
            if name in schema["properties"]:
                yield from unknown_fields(schema["properties"][name], inner, below)
            else:
                yield below
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for name, inner in value.items():
            yield from unknown_fields(schema["additionalProperties"], inner, f"{path}.{name}")
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from unknown_fields(schema["items"], inner, f"{path}[{index}]")


def pruned(schema: Schema, value: Any) -> Any:
    """The value without fields that the schema lacks."""
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: pruned(known[name], inner) for name, inner in value.items() if name in known}
    if isinstance(value, dict) and "additionalProperties" in schema:
        return {name: pruned(schema["additionalProperties"], inner) for name, inner in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [pruned(schema["items"], inner) for inner in value]
    return value


def defaulted(schema: Schema, value: Any) -> Any:
    """The value with the schema's defaults where a field is absent."""
    if isinstance(value, dict) and "properties" in schema:
        out = dict(value)
        for name, field in schema["properties"].items():
            if name not in out and "default" in field:
                out[name] = copied(field["default"])
            if name in out:
                out[name] = defaulted(field, out[name])
        return out
    if isinstance(value, list) and "items" in schema:
        return [defaulted(schema["items"], inner) for inner in value]
    return value


def changed(schema: Schema, new: Any, old: Any) -> Schema:
    """The schema without the fields in which the two values are the same: these were found to be right before."""
    if not isinstance(new, dict) or not isinstance(old, dict) or "properties" not in schema:
        return schema
    fields = schema["properties"].items()
    return {
        **schema,
        "properties": {n: inner for n, inner in fields if n not in new or n not in old or new[n] != old[n]},
    }


def causes(schema: Schema, value: Any, path: str = "") -> Iterator[Cause]:
    """Everything that is wrong with the value."""
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield Cause(path, "must be an integer or a string", "FieldValueTypeInvalid")
            return
    elif kind is not None and not _is_a(kind, value):
        yield Cause(path, f"must be of type {kind}", "FieldValueTypeInvalid")
        return
    yield from _bounds(schema, value, path)
    if isinstance(value, dict):
        yield from _fields(schema, value, path)
    elif isinstance(value, list):
        yield from _items(schema, value, path)


def _fields(schema: Schema, value: Mapping[str, Any], path: str) -> Iterator[Cause]:
    for name in schema.get("required") or ():
        if name not in value:
            yield Cause(f"{path}.{name}" if path else name, "Required value", "FieldValueRequired")
    for name, inner in value.items():
        field = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        if isinstance(field, dict):
            yield from causes(field, inner, f"{path}.{name}" if path else name)


def _items(schema: Schema, value: list[Any], path: str) -> Iterator[Cause]:
    for index, inner in enumerate(value):
        yield from causes(schema.get("items") or {}, inner, f"{path}[{index}]")
    keys = item_keys(schema, value)
    if keys is not None:
        for index, key in enumerate(keys):
            if key in keys[:index]:
                yield Cause(f"{path}[{index}]", "Duplicate value", "FieldValueDuplicate")


def _bounds(schema: Schema, value: Any, path: str) -> Iterator[Cause]:
    if "enum" in schema and value not in schema["enum"]:
        yield Cause(path, "Unsupported value", "FieldValueNotSupported")
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if numeric and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield Cause(path, "is out of bounds")
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield Cause(path, "has a length out of bounds")
        if "pattern" in schema and re.search(schema["pattern"], value) is None:
            yield Cause(path, f"must match {schema['pattern']}")
        if schema.get("format") == "date-time" and not _is_time(value):
            yield Cause(path, "must be a date and time")
    if isinstance(value, list) and not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield Cause(path, "has a number of items out of bounds")
    if isinstance(value, dict) and len(value) > schema.get("maxProperties", len(value)):
        yield Cause(path, "has too many entries")


def item_keys(schema: Schema, value: list[Any]) -> list[Any] | None:
    """What tells the items of a list apart (its map keys, or the values of a set); None for an atomic list."""
    match schema.get("x-kubernetes-list-type"):
        case "map":
            names = schema["x-kubernetes-list-map-keys"]
            return [tuple(item.get(name) for name in names) if isinstance(item, dict) else None for item in value]
        case "set":
            return list(value)
        case _:
            return None


def _is_a(kind: str, value: Any) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
