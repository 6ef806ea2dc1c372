"""What an object may be, and what a request may change of it: pure, and refused as the real API server refuses it."""

from __future__ import annotations

from functools import cache

import jsonpatch

from crds import KINDS
from crds.schema import object_schema
from engine.kube import Resource
from simulator import schema as schemas
from simulator.messages import Object, Refusal, Request
from simulator.schema import Cause, copied

_ANYTHING: schemas.Schema = {"type": "object"}


@cache
def _schemas() -> dict[str, schemas.Schema]:
    return {kind.kind: object_schema(kind) for kind in KINDS}


def schema_of(resource: Resource) -> schemas.Schema:
    """The generated schema of a kind of ours; that of anything for the others."""
    return _schemas().get(resource.kind, _ANYTHING)


def has_status(resource: Resource) -> bool:
    """Whether status is a part of its own: written by itself only."""
    return resource.kind in _schemas()


def owned(obj: Object) -> Object:
    """The part of an object of which it is kept who owns what."""
    return {name: value for name, value in obj.items() if name in ("spec", "status")}


def json_patched(old: Object, ops: list[Object]) -> Object:
    """The object after a JSON patch."""
    try:
        new: Object = jsonpatch.apply_patch(copied(old), ops)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        # Whatever does not fit, a failed test included, is one nameless 422.
        message = f"the server rejected our request due to an error in our request: {error}"
        raise Refusal(422, "Invalid", message, []) from error
    return new


def allowed(resource: Resource, old: Object, new: Object, sub: str) -> Object:
    """What this part of the object may change: status alone, or everything but status."""
    if has_status(resource):
        if sub == "status":
            return {**old, **({"status": new["status"]} if "status" in new else {})}
        new = {name: value for name, value in new.items() if name != "status"}
        if "status" in old:
            new["status"] = old["status"]
    fixed = ("uid", "generation", "creationTimestamp", "deletionTimestamp", "resourceVersion", "name", "namespace")
    held = {name: old["metadata"][name] for name in fixed if name in old["metadata"]}
    metadata = {name: value for name, value in new["metadata"].items() if name not in fixed} | held
    if not metadata.get("finalizers", True):
        del metadata["finalizers"]
    added = set(metadata.get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
    if added and metadata.get("deletionTimestamp"):
        cause = Cause("metadata.finalizers", "no new finalizers can be added if the object is being deleted")
        raise Refusal(422, "Invalid", cause.message, [cause])
    return {**new, "metadata": metadata}


def strict(resource: Resource, obj: Object, request: Request) -> None:
    """Refuses fields that nobody knows, unless the request wants them dropped."""
    schema = schema_of(resource)
    if "properties" not in schema:
        return
    properties = {**schema["properties"], "metadata": _ANYTHING}
    unknown = list(schemas.unknown_fields({**schema, "properties": properties}, obj))
    if unknown and request.query.get("fieldValidation", "Strict") == "Strict":
        fields = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise Refusal(400, "BadRequest", f"strict decoding error: {fields}")


def checked(resource: Resource, new: Object, old: Object) -> Object:
    """The object with its defaults. Refused if it is not valid; parts that are the old one's own are."""
    schema = schema_of(resource)
    fresh = {
        name: schemas.changed(inner, new.get(name), old.get(name))
        for name, inner in (schema.get("properties") or {}).items()
        if name != "metadata" and not (name in old and new.get(name) == old[name])
    }
    obj: Object = schemas.defaulted({**schema, "properties": fresh}, new)
    unnamed = {name: value for name, value in obj.items() if name != "metadata"}
    found = list(schemas.causes({**schema, "properties": fresh}, unnamed))
    if found:
        what = "; ".join(f"{cause.field}: {cause.message}" for cause in found)
        message = f'{resource.kind} "{obj["metadata"]["name"]}" is invalid: {what}'
        raise Refusal(422, "Invalid", message, found)
    return obj
