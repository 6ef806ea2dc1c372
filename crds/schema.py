"""Models → structural OpenAPI v3 schemas, the form in which the API server takes them.

pydantic writes JSON Schema; the API server wants a strict part of OpenAPI v3 with its own extensions. This module is
pydantic's own extension point (`GenerateJsonSchema`) for what differs while a schema is generated, and one walk over
the result for what differs in the whole: references are written out in place, titles and defaults are left away.
Nothing is defaulted into a stored spec, so no `default` of a model ever reaches the schema; the docstrings say them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from crds.base import Kind

_LISTS_THAT_ADD_UP = ("x-kubernetes-validations",)
STATUS_DEFAULT: dict[str, Any] = {"observedGeneration": -1}
"""What an object that nobody has looked at yet says, so that it never counts as up to date."""


class StructuralSchema(GenerateJsonSchema):
    """JSON Schema without what a structural schema forbids: null, default and const."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """An optional field is one that may be absent; the API server drops nulls by itself."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Defaults are documented, never written."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """`const` is unknown to the API server: an enum of one says the same."""
        values = list(schema["expected"])
        return {"type": "string", "enum": values}


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model as one structural schema, complete in itself.

    Raises ValueError for a model that refers to itself: such a thing cannot be written out in place.
    """
    schema = model.model_json_schema(by_alias=True, schema_generator=StructuralSchema)
    definitions = schema.pop("$defs", {})
    return _plain(schema, definitions, ())


def object_schema(kind: Kind) -> dict[str, Any]:
    """The schema of whole objects of a kind: `openAPIV3Schema` of its CustomResourceDefinition."""
    schema: dict[str, Any] = {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the API that this object is written in."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": structural_schema(kind.spec_model),
            "status": {**structural_schema(kind.status_model), "default": dict(STATUS_DEFAULT)},
        },
    }
    if kind.rules:
        schema["x-kubernetes-validations"] = [rule.to_dict() for rule in kind.rules]
    return schema


def _plain(schema: Mapping[str, Any], definitions: Mapping[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
    if reference := schema.get("$ref"):
        name = str(reference).rsplit("/", maxsplit=1)[-1]
        if name in within:
            raise ValueError(f"{name} refers to itself, which a structural schema cannot say")
        target = _plain(definitions[name], definitions, (*within, name))
        own = _plain({k: v for k, v in schema.items() if k != "$ref"}, definitions, within)
        return _merged(target, own)
    return {k: v for k, v in _keywords(schema, definitions, within) if v is not None}


def _keywords(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], within: tuple[str, ...]
) -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for keyword, value in schema.items():
        match keyword:
            case "title":
                continue
            case "description":
                out.append((keyword, unwrap(value)))
            case "properties":
                # An object without fields keeps no "properties": the API server would not take an empty one back.
                properties = {name: _plain(field, definitions, within) for name, field in value.items()}
                out.append((keyword, properties or None))
            case "items":
                out.append((keyword, _plain(value, definitions, within)))
            case "additionalProperties" if isinstance(value, Mapping):
                out.append((keyword, _plain(value, definitions, within)))
            case _:
                out.append((keyword, value))
    return out


def _merged(target: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What a field says of itself wins over what its type says; rules of both hold."""
    added = {k: [*target[k], *own[k]] for k in _LISTS_THAT_ADD_UP if k in target and k in own}
    return {**target, **own, **added}


def unwrap(text: str) -> str:
    """The docstring without the line breaks of the source; empty lines still part paragraphs."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
