"""The API reference as Markdown, from the same schemas that the API server gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crds.base import API_VERSION, Kind, Rule
from crds.schema import object_schema

_INTRODUCTION = f"""
# API reference

All kinds are in `{API_VERSION}` and in the category `hostler` (`kubectl get hostler -A`). Sizes are Kubernetes
quantities (`20Gi`), durations are whole seconds. Nothing is defaulted into a stored spec: what happens when a field is
left away is said in its description. Rules are checked by the API server when an object is written.
"""


def reference(kinds: Iterable[Kind], header: str) -> str:
    """The whole document: a list of the kinds, then a chapter of each."""
    kinds = tuple(kinds)
    table = ["| kind | short names | scope | what it is |", "|---|---|---|---|"]
    table += [
        f"| [{k.kind}](#{k.kind.lower()}) | {', '.join(f'`{n}`' for n in k.short_names)} "
        f"| {'namespace' if k.namespaced else 'cluster'} | {_cell(k.description)} |"
        for k in kinds
    ]
    chapters = [_chapter(kind) for kind in kinds]
    return header + _INTRODUCTION + "\n" + "\n".join(table) + "\n\n" + "\n\n".join(chapters) + "\n"


def _chapter(kind: Kind) -> str:
    schema = object_schema(kind)
    lines = [f"## {kind.kind}", "", kind.description, ""]
    lines += _fields("Spec", schema["properties"]["spec"], "spec")
    lines += ["", *_rules(schema)]
    lines += _fields("Status", schema["properties"]["status"], "status")
    return "\n".join(lines)


def _fields(heading: str, schema: Mapping[str, Any], path: str) -> list[str]:
    rows = [
        f"| `{p}` | {t}{' **required**' if required else ''} | {_cell(d)} |"
        for p, t, d, required in _walk(schema, path)
    ]
    return [f"### {heading}", "", "| field | type | description |", "|---|---|---|", *rows]


def _walk(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str, bool]]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, _type(field), field.get("description", ""), name in required
        inner, suffix = (field["items"], "[]") if field.get("type") == "array" else (field, "")
        yield from _walk(inner, here + suffix)


def _type(schema: Mapping[str, Any]) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema["type"] == "object" and "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    if schema["type"] == "integer" and "minimum" in schema and "maximum" in schema:
        return f"integer, {schema['minimum']} to {schema['maximum']}"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def _rules(schema: Mapping[str, Any]) -> list[str]:
    rows = [f"- `{path}`: {message}" for path, message in dict.fromkeys(rules_of(schema))]
    return ["### Rules", "", *rows, ""] if rows else []


def rules_of(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every CEL rule below this schema: the path of the field that it refuses, and its message."""
    for rule in schema.get(Rule.KEYWORD, ()):
        yield path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").lstrip("."), rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from rules_of(field, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from rules_of(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from rules_of(schema["additionalProperties"], f"{path}[]")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
