"""The small parts of the watches; that kopf delivers is tested against a real API server."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import kopf
import pytest

from engine.kube import Resource
from tests.unit.operator_process.scripts import script

watch = script("operator_watch")

PODS = Resource(group="", version="v1", kind="Pod", plural="pods", namespaced=True)
VMS = Resource(
    group="hostler.dev", version="v1alpha1", kind="VirtualMachine", plural="virtualmachines", namespaced=True
)


def test_an_api_server_that_is_gone_is_asked_for_ever():
    delays = list(itertools.islice(iter(watch.EndlessBackoff()), 500))
    assert all(0 < delay <= 15 for delay in delays)
    assert all(delay >= 8 for delay in delays[6:])
    assert sum(delays[:6]) < 20
    assert len({round(delay, 6) for delay in delays[6:]}) > 400, "no two replicas ask at the same moments"


def test_each_call_begins_anew():
    backoff = watch.EndlessBackoff()
    assert [next(iter(backoff)) <= 0.5 for _ in range(20)] == [True] * 20


def test_kopf_leaves_no_trace_in_objects():
    settings = watch._settings()
    assert isinstance(settings.persistence.diffbase_storage, watch.NoAnnotations)
    assert settings.persistence.diffbase_storage.fetch(body={}) is None
    assert settings.persistence.diffbase_storage.build(body={"spec": {"a": 1}}) == {}
    progress, patch = settings.persistence.progress_storage, {}
    assert isinstance(progress, watch.NoProgress)
    progress.store(key="k", record={}, body={}, patch=patch)
    progress.touch(body={}, patch=patch, value="now")
    progress.purge(key="k", body={}, patch=patch)
    assert patch == {} and progress.fetch(key="k", body={}) is None and progress.clear(essence={}) == {}
    patch: dict[str, Any] = {}
    settings.persistence.diffbase_storage.store(body={}, patch=patch, essence={})
    assert patch == {}
    assert settings.persistence.finalizer != "hostler.dev/cleanup"
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled


def test_a_watch_that_hears_nothing_is_begun_anew():
    settings = watch._settings()
    assert settings.watching.server_timeout < settings.watching.client_timeout
    assert settings.watching.connect_timeout is not None
    assert isinstance(settings.networking.error_backoffs, watch.EndlessBackoff)


def made(loop: asyncio.AbstractEventLoop, sink: Any = None, on_end: Any = None, **options: Any) -> Any:
    return watch.Watch([PODS, VMS], sink or (lambda *_: None), loop, on_end or (lambda _: None), **options)


async def test_only_events_are_registered_and_for_the_resources_asked_for():
    registry = made(asyncio.get_running_loop())._registry()
    assert [(h.selector.group, h.selector.any_name or h.selector.plural) for h in registry._watching._handlers] == [
        ("", "pods"),
        ("hostler.dev", "virtualmachines"),
    ]
    assert not registry._changing._handlers
    assert not registry._spawning._handlers
    assert not registry._indexing._handlers


async def test_an_event_is_handed_over_in_the_loop_of_the_operator():
    heard: list[tuple[Any, Any, int]] = []
    found = made(asyncio.get_running_loop(), lambda type_, obj: heard.append((type_, obj, threading.get_ident())))
    event = {"type": "MODIFIED", "object": {"kind": "Pod"}}
    await asyncio.to_thread(lambda: asyncio.run(found._handle(event=event)))
    await asyncio.sleep(0)
    assert heard == [("MODIFIED", {"kind": "Pod"}, threading.get_ident())]


async def test_many_events_are_handed_over_in_order_and_do_not_hold_up_the_loop():
    heard: list[int] = []

    def sink(_: str | None, obj: dict[str, Any]) -> None:
        heard.append(obj["number"])
        if obj["number"] == 5:
            raise ValueError("a fault in what takes it in")

    errors = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    found = made(loop, sink)

    for number in range(100):
        await found._handle(event={"type": None, "object": {"number": number}})
    turns = 0
    while len(heard) < 100 and turns < 50:
        await asyncio.sleep(0)
        turns += 1
    assert heard == list(range(100))
    assert turns >= 100 // watch.AT_ONCE, "others had their turn in between"
    assert [type(error) for error in errors] == [ValueError]


async def ends_with(monkeypatch: pytest.MonkeyPatch, operator: Any) -> BaseException | None:
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(kopf, "operator", operator)
    found = made(asyncio.get_running_loop(), on_end=ended.set_result, namespace="hostler-system")
    found.start()
    error = await asyncio.wait_for(ended, 10)
    await asyncio.to_thread(found.join)
    return error


async def test_the_end_of_a_watch_is_told_with_its_error(monkeypatch):
    async def fails(**_: Any) -> None:
        raise ValueError("credentials")

    error = await ends_with(monkeypatch, fails)
    assert isinstance(error, ValueError)


async def test_a_watch_is_told_where_to_look_and_when_to_stop(monkeypatch):
    given: dict[str, Any] = {}

    async def works(**options: Any) -> None:
        given.update(options)

    assert await ends_with(monkeypatch, works) is None
    assert (given["clusterwide"], given["namespaces"], given["standalone"]) == (False, ["hostler-system"], True)
    assert isinstance(given["stop_flag"], threading.Event)


async def test_a_watch_that_is_stopped_ends(monkeypatch):
    async def works(*, stop_flag: threading.Event, **_: Any) -> None:
        while not stop_flag.is_set():
            await asyncio.sleep(0.01)

    ended = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(kopf, "operator", works)
    found = made(asyncio.get_running_loop(), on_end=ended.set_result)
    found.start()
    found.stop()
    assert await asyncio.wait_for(ended, 10) is None
