"""The engine's client, status writer, finalizers, events and cache repair against a real API server.

KUBECONFIG names it; its user must be allowed to create CustomResourceDefinitions and namespaces.
"""

import asyncio
import base64
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from engine import errors, finalizers, sync
from engine.cache import Cache
from engine.clock import SystemClock
from engine.conditions import condition, merge
from engine.keys import Key, Object
from engine.kube import EVENTS, SECRETS, KubeClient, Resource
from engine.recorder import Recorder
from engine.status import StatusWriter

GROUP = "engine-test.example.org"
GADGETS = Resource(GROUP, "v1", "Gadget", "gadgets", namespaced=True)
CRDS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
FINALIZER = f"{GROUP}/gadget"
MANAGER = "engine-test"

_CONDITIONS = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            **{name: {"type": "string"} for name in ("type", "status", "reason", "message", "lastTransitionTime")},
            "observedGeneration": {"type": "integer"},
        },
    },
}
_STATUS = {
    "type": "object",
    "default": {"observedGeneration": -1},
    "properties": {
        "observedGeneration": {"type": "integer"},
        "phase": {"type": "string"},
        "note": {"type": "string"},
        "conditions": _CONDITIONS,
        "placement": {
            "type": "object",
            "properties": {
                "host": {"type": "string"},
                "target": {"type": "string"},
                "epoch": {"type": "integer"},
                "candidates": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
}
CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"gadgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}},
                            "status": _STATUS,
                        },
                    }
                },
            }
        ],
    },
}


def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG")
    if not path:
        pytest.fail("KUBECONFIG must name the kubeconfig of a real API server")
    return path


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    async with await KubeClient.from_kubeconfig(kubeconfig()) as client:
        await install(client)
        yield client


async def install(client: KubeClient) -> None:
    try:
        await client.create(CRDS, CRD)
    except errors.AlreadyExists:
        return
    async with asyncio.timeout(30):
        while not await served(client):
            await asyncio.sleep(0.1)


async def served(client: KubeClient) -> bool:
    crd = await client.get(CRDS, "", CRD["metadata"]["name"])
    conditions = {each["type"]: each["status"] for each in crd.get("status", {}).get("conditions") or []}
    if conditions.get("Established") != "True":
        return False
    try:
        await client.list(GADGETS, limit=1)
    except errors.NotFound:
        return False
    return True


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    name = f"engine-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await client.create(NAMESPACES, body)
    yield name
    await client.delete(NAMESPACES, Key("Namespace", "", name))


def gadget(namespace: str, name: str = "one", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": GADGETS.api_version, "kind": "Gadget", "metadata": metadata, "spec": spec or {"size": 1}}


def writes(verb: str) -> float:
    labels = {"kind": "Gadget", "verb": verb, "code": "200"}
    return REGISTRY.get_sample_value("hostler_api_writes_total", labels) or 0.0


async def test_create_get_list_delete(client: KubeClient, namespace: str) -> None:
    assert (await client.version()).startswith("v1.")
    for number in range(7):
        await client.create(GADGETS, gadget(namespace, f"g{number}"))
    items, version = await client.list(GADGETS, namespace, limit=3)
    assert [item["metadata"]["name"] for item in items] == [f"g{number}" for number in range(7)]
    assert int(version) >= max(int(item["metadata"]["resourceVersion"]) for item in items)
    everywhere, _ = await client.list(GADGETS, limit=3)
    assert {Key.of(item) for item in items} <= {Key.of(item) for item in everywhere}
    with pytest.raises(errors.AlreadyExists):
        await client.create(GADGETS, gadget(namespace, "g1"))
    await client.delete(GADGETS, Key("Gadget", namespace, "g1"))
    with pytest.raises(errors.NotFound):
        await client.get(GADGETS, namespace, "g1")
    with pytest.raises(errors.NotFound):
        await client.delete(GADGETS, Key("Gadget", namespace, "g1"))


async def test_list_of_metadata_only(client: KubeClient, namespace: str) -> None:
    await client.create(GADGETS, gadget(namespace))
    items, _ = await client.list(GADGETS, namespace, metadata_only=True)
    assert [sorted(item) for item in items] == [["apiVersion", "kind", "metadata"]]
    assert items[0]["kind"] == "Gadget"


async def test_what_the_schema_refuses_names_its_field(client: KubeClient, namespace: str) -> None:
    with pytest.raises(errors.Invalid) as refused:
        await client.create(GADGETS, gadget(namespace, size=0))
    assert [cause.field for cause in refused.value.causes] == ["spec.size"]
    with pytest.raises(errors.BadRequest, match=r"spec\.colour"):
        await client.create(GADGETS, gadget(namespace, size=1, colour="red"))


async def test_status_by_compare_and_set(client: KubeClient, namespace: str) -> None:
    cache = Cache()
    writer = StatusWriter(client, cache, manager=MANAGER, critical={"Gadget": {"placement"}})
    first = await client.create(GADGETS, gadget(namespace))
    placement = {"host": "h1", "epoch": 1, "target": "h2", "candidates": ["h1", "h2"]}
    second = await writer.compare_and_set(GADGETS, first, {"placement": placement})
    assert second["status"]["placement"] == placement
    with pytest.raises(errors.Conflict):
        await writer.compare_and_set(GADGETS, first, {"placement": {"host": "h3", "epoch": 1}})
    moved = {"host": "h2", "epoch": 2, "candidates": ["h2"]}
    third = await writer.compare_and_set(GADGETS, second, {"placement": moved})
    assert third["status"]["placement"] == moved, "what is not in the new value is gone"
    assert cache.get(Key.of(first)) == third
    fourth = await writer.compare_and_set(GADGETS, third, {"placement": None})
    assert "placement" not in fourth["status"]
    with pytest.raises(ValueError, match="phase"):
        await writer.compare_and_set(GADGETS, fourth, {"phase": "Running"})


async def test_descriptive_status_is_written_only_when_it_differs(client: KubeClient, namespace: str) -> None:
    cache = Cache()
    writer = StatusWriter(client, cache, manager=MANAGER, critical={"Gadget": {"placement"}})
    obj = await client.create(GADGETS, gadget(namespace))
    assert obj["status"] == {"observedGeneration": -1}
    cache.upsert(obj)
    obj = await writer.compare_and_set(GADGETS, obj, {"placement": {"host": "h1"}})
    conditions = merge([], [condition("Ready", True, "Running", "", 1)], SystemClock().now())
    wanted = {"phase": "Running", "note": "x", "conditions": conditions, "placement": {"host": "never"}}

    before = writes("apply-status")
    obj = await writer.write(GADGETS, obj, wanted)
    assert writes("apply-status") == before + 1
    assert (obj["status"]["phase"], obj["status"]["observedGeneration"]) == ("Running", 1)
    assert obj["status"]["placement"] == {"host": "h1"}, "critical fields are not written here"

    obj = await writer.write(GADGETS, obj, {**wanted, "note": "x"})
    assert writes("apply-status") == before + 1, "nothing changed, nothing is written"

    obj = await writer.write(GADGETS, obj, {"phase": "Stopped", "note": None})
    assert writes("apply-status") == before + 2
    server = await client.get(GADGETS, namespace, "one")
    assert server["status"] == {"phase": "Stopped", "observedGeneration": 1, "placement": {"host": "h1"}}
    assert obj["metadata"]["resourceVersion"] == server["metadata"]["resourceVersion"]


async def test_a_field_of_another_manager_does_not_make_us_write_for_ever(client: KubeClient, namespace: str) -> None:
    cache = Cache()
    writer = StatusWriter(client, cache, manager=MANAGER, critical={})
    obj = await client.create(GADGETS, gadget(namespace))
    foreign = {"metadata": {"name": "one", "namespace": namespace}, "status": {"note": "by somebody else"}}
    cache.upsert(await client.apply_status(GADGETS, foreign, manager="somebody-else"))
    before = writes("apply-status")
    for _ in range(4):
        obj = await writer.write(GADGETS, obj, {"phase": "Running"})
    assert writes("apply-status") == before + 1
    assert obj["status"]["note"] == "by somebody else"


async def test_a_status_field_that_the_schema_lacks_is_said_loudly(client: KubeClient, namespace: str) -> None:
    writer = StatusWriter(client, Cache(), manager=MANAGER, critical={})
    obj = await client.create(GADGETS, gadget(namespace))
    with pytest.raises(errors.BadRequest, match="nonsense"):
        await writer.write(GADGETS, obj, {"nonsense": 1})


async def test_status_never_lands_on_a_successor_and_a_gone_object_is_no_error(
    client: KubeClient, namespace: str
) -> None:
    cache = Cache()
    writer = StatusWriter(client, cache, manager=MANAGER, critical={})
    first = await client.create(GADGETS, gadget(namespace))
    cache.upsert(first)
    await client.delete(GADGETS, Key.of(first))
    assert await writer.write(GADGETS, first, {"phase": "Running"}) == first
    assert cache.get(Key.of(first)) is None
    await client.create(GADGETS, gadget(namespace))
    with pytest.raises(errors.Conflict):
        await writer.write(GADGETS, first, {"phase": "Running"})


async def test_finalizer_comes_and_goes(client: KubeClient, namespace: str) -> None:
    cache = Cache()
    stale = await client.create(GADGETS, gadget(namespace))
    obj = await finalizers.ensure(client, cache, GADGETS, stale, FINALIZER)
    assert obj["metadata"]["finalizers"] == [FINALIZER]
    assert await finalizers.ensure(client, cache, GADGETS, obj, FINALIZER) is obj
    with pytest.raises(errors.Conflict):
        await finalizers.ensure(client, cache, GADGETS, stale, f"{GROUP}/other")

    obj = await finalizers.ensure(client, cache, GADGETS, obj, f"{GROUP}/other")
    await client.delete(GADGETS, Key.of(obj))
    dying = await client.get(GADGETS, namespace, "one")
    assert await finalizers.ensure(client, cache, GADGETS, dying, f"{GROUP}/third") is dying
    left = await finalizers.remove(client, cache, GADGETS, dying, FINALIZER)
    assert left is not None
    assert left["metadata"]["finalizers"] == [f"{GROUP}/other"]
    with pytest.raises(errors.Conflict):
        await finalizers.remove(client, cache, GADGETS, dying, FINALIZER)
    assert await finalizers.remove(client, cache, GADGETS, left, f"{GROUP}/other") is None
    assert cache.get(Key.of(obj)) is None
    with pytest.raises(errors.NotFound):
        await client.get(GADGETS, namespace, "one")
    assert await finalizers.remove(client, cache, GADGETS, left, f"{GROUP}/other") is None


async def test_delete_with_preconditions(client: KubeClient, namespace: str) -> None:
    obj = await client.create(GADGETS, gadget(namespace))
    key, metadata = Key.of(obj), obj["metadata"]
    with pytest.raises(errors.Conflict):
        await client.delete(GADGETS, key, uid=str(uuid.uuid4()))
    with pytest.raises(errors.Conflict):
        await client.delete(GADGETS, key, resource_version="1")
    await client.delete(
        GADGETS, key, uid=metadata["uid"], resource_version=metadata["resourceVersion"], propagation="Foreground"
    )


async def test_events_are_folded_into_a_series(client: KubeClient, namespace: str) -> None:
    obj = await client.create(GADGETS, gadget(namespace))
    recorder = Recorder(
        client, component=f"{GROUP}/test", instance="test", clock=SystemClock(), repeat_after=0.0, burst=3
    )
    posting = asyncio.create_task(recorder.run())
    counted = REGISTRY.get_sample_value("hostler_api_writes_total", {"kind": "Event", "verb": "create", "code": "201"})
    for _ in range(3):
        recorder.record(obj, "Warning", "TooSmall", "the gadget is too small", action="Measure")
        assert await recorder.drain(5)
    namespace_object = await client.get(NAMESPACES, "", namespace)
    recorder.record(namespace_object, "Normal", "Seen", "x" * 3000)
    assert await recorder.drain(5)
    posting.cancel()

    events, _ = await client.list(EVENTS, namespace)
    assert len(events) == 1
    assert events[0]["note"] == "the gadget is too small"
    assert events[0]["regarding"]["uid"] == obj["metadata"]["uid"]
    assert events[0]["series"]["count"] == 3
    cluster_wide, _ = await client.list(EVENTS, "default")
    about = [event for event in cluster_wide if event["regarding"]["name"] == namespace]
    assert [len(event["note"]) for event in about] == [1024]
    now = REGISTRY.get_sample_value("hostler_api_writes_total", {"kind": "Event", "verb": "create", "code": "201"})
    assert counted == now, "events are not counted as writes of objects"


async def test_secret_is_decoded(client: KubeClient, namespace: str) -> None:
    data = {"password": base64.b64encode(b"\x00pass").decode()}
    metadata = {"name": "s", "namespace": namespace}
    await client.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    assert await client.get_secret(namespace, "s") == {"password": b"\x00pass"}


async def test_load_and_audit_keep_the_cache_true(client: KubeClient, namespace: str) -> None:
    cache = Cache()
    for name in ("kept", "edited", "deleted"):
        await client.create(GADGETS, gadget(namespace, name))
    changed = await sync.load(client, cache, GADGETS, namespace)
    assert {key.name for key in changed} == {"kept", "edited", "deleted"}
    assert cache.synced(["Gadget"])
    assert await sync.audit(client, cache, GADGETS, namespace) == set()

    edited = await client.get(GADGETS, namespace, "edited")
    await finalizers.ensure(client, Cache(), GADGETS, edited, FINALIZER)
    await client.delete(GADGETS, Key("Gadget", namespace, "deleted"))
    await client.create(GADGETS, gadget(namespace, "created"))
    repaired = await sync.audit(client, cache, GADGETS, namespace)
    assert {key.name for key in repaired} == {"edited", "deleted", "created"}
    server, _ = await client.list(GADGETS, namespace)
    assert {Key.of(obj): obj["metadata"]["resourceVersion"] for obj in server} == {
        Key.of(obj): obj["metadata"]["resourceVersion"] for obj in cache.list("Gadget", namespace)
    }
    held = await client.get(GADGETS, namespace, "edited")
    await finalizers.remove(client, cache, GADGETS, held, FINALIZER)


async def test_wrong_credentials_and_missing_permissions_are_typed(client: KubeClient, tmp_path: Path) -> None:
    settings = yaml.safe_load(Path(kubeconfig()).read_text())
    settings["users"] = [{"name": entry["name"], "user": {"token": "wrong"}} for entry in settings["users"]]
    wrong = tmp_path / "wrong"
    wrong.write_text(yaml.safe_dump(settings))
    async with await KubeClient.from_kubeconfig(wrong) as stranger:
        with pytest.raises(errors.Unauthorized):
            await stranger.list(GADGETS)
    settings["users"] = [{"name": entry["name"], "user": {}} for entry in settings["users"]]
    wrong.write_text(yaml.safe_dump(settings))
    async with await KubeClient.from_kubeconfig(wrong) as anonymous:
        with pytest.raises(errors.Forbidden):
            await anonymous.list(GADGETS)
