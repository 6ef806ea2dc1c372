"""Hypothesis strategies for objects of our kinds, drawn from the very schemas that the API server gets.

A CEL rule cannot be read by a program as easily as a bound: what satisfies it is said here once a rule, by its message.
A rule that nothing is said about fails, so that a new rule cannot be forgotten.
"""

import functools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from crds.base import Kind, Rule
from crds.schema import object_schema

Schema = Mapping[str, Any]
Json = dict[str, Any]

_LABEL = r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?"
_NAME = st.from_regex(rf"{_LABEL}(\.{_LABEL})?", fullmatch=True)
_FILE = r"[A-Za-z0-9_+@=,:-]{1,12}"
_SIZES = st.one_of(
    st.integers(1, 2**59),
    st.from_regex(r"[1-9][0-9]{0,2}(\.[0-9]{1,3})?(k|Ki|[MGTP]i?)?", fullmatch=True),
    st.from_regex(r"0\.[0-9]{0,3}[1-9](k|Ki|[MGTP]i?)?", fullmatch=True),
)
_STRINGS: dict[str, st.SearchStrategy[Any]] = {
    "must be the name of an object": _NAME,
    "must be the value of a label": st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?)?", fullmatch=True),
    "must be the key of a label": st.from_regex(rf"({_LABEL}\.example/)?[A-Za-z][A-Za-z0-9]{{0,10}}", fullmatch=True),
    "must be a size": _SIZES,
    "must be sha256: or sha512:": st.from_regex("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", fullmatch=True),
    "must be an http:// or https:// URL": st.from_regex(
        r"https?://[a-z]{1,9}\.example(:[1-9][0-9]{1,3})?/[a-z]{0,9}", fullmatch=True
    ),
    "must be a file name": st.from_regex(rf"(/{_FILE}/)?{_FILE}", fullmatch=True),
    "must be an absolute path": st.from_regex(rf"(/{_FILE}){{1,3}}", fullmatch=True),
    "must be a libvirt URI": st.from_regex(
        r"qemu\+((tls|ssh|tcp)://[a-z]{1,9}\.example|unix://)/system", fullmatch=True
    ),
    "must be a percentage of at least": st.from_regex("[1-9][0-9]{0,3}%", fullmatch=True),
    "must be a percentage, for example 10%": st.from_regex("[0-9]{1,2}%", fullmatch=True),
    "must be the name of a bridge": st.from_regex("[A-Za-z0-9_.:-]{1,15}", fullmatch=True),
    "must be lower-case letters, digits and '-'": st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True),
    "must have at most 65536 characters": st.text(max_size=40),
    "must be the name of a CPU model": st.from_regex("[A-Za-z0-9][A-Za-z0-9_.+-]{0,20}", fullmatch=True),
    "must be a unicast MAC": st.from_regex("[0-9a-f][02468ace](:[0-9a-f]{2}){5}", fullmatch=True),
}


def _one_source(value: Json) -> Json:
    kept = next(iter(value), "blank")
    return {kept: value.get(kept, {})}


def _selector(value: Json) -> Json:
    if value["operator"] in ("In", "NotIn"):
        return {**value, "values": value.get("values") or ["x"]}
    return {k: v for k, v in value.items() if k != "values"}


def _drive(value: Json) -> Json:
    if value.get("type") == "cdrom":
        value = {k: v for k, v in value.items() if k != "bus" or v != "virtio"}
    if "diskRef" in value:
        return {k: v for k, v in value.items() if k != "template"}
    return (
        value if "template" in value or value.get("type") == "cdrom" else {**value, "diskRef": {"name": value["name"]}}
    )


def _vm_devices(value: Json) -> Json:
    """Boot orders and Disks used once only: the second of two that are equal goes."""
    orders: set[int] = set()
    disks: set[str] = set()
    out = {**value}
    for devices in ("disks", "nics"):
        kept = []
        for device in value.get(devices, []):
            if device.get("bootOrder") in orders:
                device = {k: v for k, v in device.items() if k != "bootOrder"}  # noqa: PLW2901
            if device.get("diskRef", {}).get("name") in disks:
                continue
            orders |= {device["bootOrder"]} if "bootOrder" in device else set()
            disks |= {device["diskRef"]["name"]} if "diskRef" in device else set()
            kept.append(device)
        if devices in value:
            out[devices] = kept
    return out


def _few_cpus(value: Json) -> Json:
    count = value.get("sockets", 1) * value.get("cores", 1) * value.get("threads", 1)
    return value if count <= 255 else {k: v for k, v in value.items() if k not in ("cores", "threads")}


def _one_user_data(value: Json) -> Json:
    return {k: v for k, v in value.items() if k != "userDataSecretRef" or "userData" not in value}


def _raw_if_shared(value: Json) -> Json:
    return {**value, "format": "raw"} if value.get("access") == "Shared" else value


def _patient(value: Json) -> Json:
    heartbeat = value.get("monitoring", {}).get("heartbeatSeconds", 3)
    silence = max(value.get("fencing", {}).get("failedAfterSeconds", 30), 3 * heartbeat)
    return {**value, "fencing": {"failedAfterSeconds": silence}}


def _as_it_is(value: Json) -> Json:
    return value


_OBJECTS: dict[str, Callable[[Json], Json]] = {
    "must have exactly one of blank": _one_source,
    "must hold at least one value for In": _selector,
    "must hold keys of labels": _as_it_is,
    "must be raw where access is Shared": _raw_if_shared,
    "must have exactly one of diskRef and template": _drive,
    "must be scsi or sata for a cdrom": _drive,
    "must not stand beside userData": _one_user_data,
    "must not have more than": _few_cpus,
    "must be at least 1Mi": lambda value: {**value, "size": "16Mi"} if not str(value["size"]).endswith("Gi") else value,
    "must be at least three times": _patient,
    "must not give two drives the same bootOrder": _vm_devices,
    "must not give a network card": _vm_devices,
    "must not use one Disk for two drives": _vm_devices,
    "must leave room for the names": _as_it_is,
}


@functools.cache
def objects(kind: Kind) -> st.SearchStrategy[Json]:
    """Objects of a kind with spec and status, as the API server would accept them when they are created."""
    schema = object_schema(kind)
    metadata = {"name": "generated", **({"namespace": "default"} if kind.namespaced else {})}
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just("hostler.dev/v1alpha1"),
            "kind": st.just(kind.kind),
            "metadata": st.just(metadata),
            "spec": values(schema["properties"]["spec"]),
            "status": values(schema["properties"]["status"]).map(lambda s: {"observedGeneration": -1, **s}),
        }
    )


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that a structural schema and its rules accept."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return _string(schema)
    return {
        "string": _string,
        "integer": lambda s: st.integers(s.get("minimum", 0), s.get("maximum", 2**31)),
        "boolean": lambda _: st.booleans(),
        "array": _array,
        "object": _object,
    }[schema["type"]](schema)


def _string(schema: Schema) -> st.SearchStrategy[Any]:
    if (strategy := _by_rule(schema, _STRINGS)) is not None:
        return strategy
    if schema.get("format") == "date-time":
        moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
        return moments.map(lambda m: m.isoformat().replace("+00:00", "Z"))
    if "pattern" in schema:
        return st.from_regex("[A-Z][A-Za-z0-9]{0,20}", fullmatch=True)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 20), 20))


def _array(schema: Schema) -> st.SearchStrategy[Any]:
    keys = schema.get("x-kubernetes-list-map-keys")
    unique = None
    if keys:
        unique = lambda item: tuple(item.get(k) for k in keys)  # noqa: E731
    elif schema.get("x-kubernetes-list-type") == "set":
        unique = str
    size = min(schema.get("maxItems", 3), 3)
    return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=size, unique_by=unique)


def _object(schema: Schema) -> st.SearchStrategy[Any]:
    if "additionalProperties" in schema:
        keys = st.from_regex(_LABEL, fullmatch=True)
        return st.dictionaries(keys, values(schema["additionalProperties"]), max_size=3)
    required = set(schema.get("required", ()))
    fields = {name: values(field) for name, field in schema.get("properties", {}).items()}
    out: st.SearchStrategy[Any] = st.fixed_dictionaries(
        {n: s for n, s in fields.items() if n in required},
        optional={n: s for n, s in fields.items() if n not in required},
    )
    for rule in schema.get(Rule.KEYWORD, ()):
        if "oldSelf" not in rule["rule"]:
            out = out.map(_lookup(_OBJECTS, rule["message"]))
    return out


def _by_rule(schema: Schema, known: Mapping[str, Any]) -> Any:
    rules = schema.get(Rule.KEYWORD)
    return _lookup(known, rules[0]["message"]) if rules else None


def _lookup(known: Mapping[str, Any], message: str) -> Any:
    for start, value in known.items():
        if message.startswith(start):
            return value
    raise LookupError(f"strategies.py does not say what satisfies the rule {message!r}")


def without_indices(path: str) -> str:
    """`spec.disks[0].bus` → `spec.disks[].bus`."""
    return re.sub(r"\[[^]]*\]", "[]", path)
