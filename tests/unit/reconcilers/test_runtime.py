"""One controller put together: it lists before it works, and says when a part of it ends."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from engine import errors
from engine.clock import LoopClock
from engine.keys import Key
from reconcilers.runtime import CannotList, Runtime
from tests.unit.reconcilers.fakes import INSTALLATION


class Lists:
    """An API server that lists what it is given and nothing else."""

    def __init__(self, **objects: list[dict[str, Any]]) -> None:
        self.objects = objects
        self.version = "7"
        self.fails: errors.ApiError | None = None

    async def list(self, resource: Any, namespace: str | None = None, **_: Any) -> tuple[list[dict[str, Any]], str]:
        if self.fails is not None and resource.kind == "Disk":
            raise self.fails
        return self.objects.get(resource.kind, []), self.version


class Hosts:
    def __init__(self) -> None:
        self.closed = False
        self.listeners: list[Any] = []

    def subscribe(self, listener: Any) -> None:
        self.listeners.append(listener)

    def names(self) -> tuple[str, ...]:
        return ()

    def get(self, name: str) -> None:
        return None

    async def close(self) -> None:
        self.closed = True


def runtime(client: Lists, hosts: Hosts, seed: int = 1) -> Runtime:
    return Runtime(
        client,  # type: ignore[arg-type]
        hosts,  # type: ignore[arg-type]
        clock=LoopClock(),
        installation=INSTALLATION,
        namespace="hostler-system",
        instance="test",
        rng=random.Random(seed),
    )


POOL = {
    "apiVersion": "hostler.dev/v1alpha1",
    "kind": "HostPool",
    "metadata": {"name": "default", "uid": "pool-1", "resourceVersion": "5", "generation": 1},
    "spec": {},
}


async def test_everything_is_listed_and_queued_and_the_end_closes_the_hosts():
    hosts = Hosts()
    built = runtime(Lists(HostPool=[POOL]), hosts)
    await built.load()
    assert built.cache.synced(resource.kind for resource, _ in built.scopes)
    assert built.queue.take() == Key("HostPool", "", "default")
    built.queue.done(Key("HostPool", "", "default"))
    built.start()
    assert hosts.listeners
    assert await built.stop(0.0) == frozenset()
    assert hosts.closed


async def test_what_has_an_older_status_since_the_store_was_set_back_is_looked_at_again():
    key, client = Key("HostPool", "", "default"), Lists(HostPool=[{**POOL, "status": {"hosts": 1}}])
    built = runtime(client, Hosts())
    await built.load()
    assert built.queue.take() == key
    built.queue.done(key)
    client.objects["HostPool"] = [{**POOL, "metadata": {**POOL["metadata"], "resourceVersion": "2"}, "status": {}}]
    client.version = "3"
    await built.audit()
    assert built.queue.take() == key
    built.queue.done(key)
    await built.audit()
    assert built.queue.take() is None, "once"


async def test_a_kind_that_cannot_be_listed_is_named():
    client = Lists()
    client.fails = errors.NotFound(404, "NotFound", "no such kind")
    with pytest.raises(CannotList) as problem:
        await runtime(client, Hosts()).load()
    assert problem.value.resource.plural == "disks"
    assert problem.value.__cause__ is client.fails


async def test_a_part_that_ends_by_itself_is_said():
    built = runtime(Lists(), Hosts())
    built.start()  # without `load`: the controller refuses to work on kinds that were never listed
    error = await asyncio.wait_for(built.ended(), 5)
    assert "not listed yet" in str(error)
    await built.stop(0.0)


async def test_identifiers_come_from_the_given_chance():
    first, second, other = (runtime(Lists(), Hosts(), seed).context.new_id() for seed in (1, 1, 2))
    assert first == second != other
