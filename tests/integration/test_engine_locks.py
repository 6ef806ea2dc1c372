"""Sessions and locks against a real API server: what a set costs, and how one process follows another.

KUBECONFIG names it; its user must be allowed to create namespaces and Leases.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from engine import errors
from engine.keys import Key
from engine.kube import LEASES, KubeClient, Resource
from engine.locks import Abandoned, Claim, Grant, Held, Lockable, Locks, Session, SessionThread, Timing

NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
QUICK = Timing(duration=6, validity=4.5, interval=0.5, request=2.0, longest_call=1.0)
"""Quicker than replicas need it, and slow enough for a machine that runs three labs at once."""
MUST = 0.040
"""Seconds for a set of three locks, taken and given back; 0.025 is the aim."""


def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG")
    if not path:
        pytest.fail("KUBECONFIG must name the kubeconfig of a real API server")
    return path


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    async with await KubeClient.from_kubeconfig(kubeconfig()) as client:
        yield client


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    name = f"locks-{uuid.uuid4().hex[:8]}"
    obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await client.create(NAMESPACES, obj)
    yield name
    await client.delete(NAMESPACES, Key("Namespace", "", name))


class Process:
    def __init__(self, client: KubeClient, namespace: str, timing: Timing | None = None) -> None:
        identity = f"{uuid.uuid4()}.{secrets.token_hex(4)}"
        self.session = Session(identity, namespace, process="pod", timing=timing)
        self.thread = SessionThread(self.session, lambda: KubeClient.from_kubeconfig(kubeconfig()))
        self.recovered: list[str] = []
        self.locks = Locks(client, self.session, namespace=namespace, recover=self._recover)

    async def _recover(self, abandoned: Abandoned, grant: Grant) -> None:
        grant.check()
        self.recovered.append(abandoned.operation)

    async def __aenter__(self) -> Process:
        await self.thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.locks.close()
        await self.thread.stop()


def lockables() -> tuple[Lockable, Lockable, Lockable]:
    pool, web, disk = (str(uuid.uuid4()) for _ in range(3))
    return (
        Lockable("Pool", "", "main", pool, rank=0),
        Lockable("Machine", "default", "web", web, rank=1),
        Lockable("Image", "default", "web-root", disk, rank=2),
    )


def writes() -> float:
    found = 0.0
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "hostler_api_writes_total" and sample.labels["kind"] == "Lease":
                found += sample.value
    return found


async def test_a_set_of_three_locks_is_quick_and_costs_six_writes(
    client: KubeClient, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = Timing(duration=600, validity=500.0, interval=400.0, request=5.0)  # so that only locks write
    async with Process(client, namespace, slow) as one:
        taken, first = [], []
        for number in range(40):
            pool, web, disk = lockables()
            for times in (first, taken):
                before, began = writes(), time.perf_counter()
                async with await one.locks.acquire(Claim(f"op{number}", "measures", [web, disk], [pool])) as grant:
                    grant.check(1)
                times.append(time.perf_counter() - began)
                assert writes() - before == 6
        middle = statistics.median(taken)
        with capsys.disabled():
            shown = ", ".join(f"{1000 * value:.1f}" for value in (min(taken), middle, max(taken)))
            new = 1000 * statistics.median(first)
            sys.stdout.write(f"\nset of 3 locks: min, median, max {shown} ms; the first time {new:.1f} ms\n")
        # The quickest one: what else runs on the machine is not what locks cost.
        assert min(taken) <= MUST


async def test_a_session_is_one_write_an_interval_and_none_for_locks(client: KubeClient, namespace: str) -> None:
    async with Process(client, namespace, QUICK) as one:
        grants = [await one.locks.acquire(Claim(f"op{n}", "stays", lockables())) for n in range(5)]
        before = writes()
        await asyncio.sleep(3)
        assert 2 <= writes() - before <= 3 / QUICK.interval + 1
        for grant in grants:
            await grant.release()
    names = [item["metadata"]["name"] for item in (await client.list(LEASES, namespace))[0]]
    assert len(names) == 15 and not [name for name in names if name.startswith("session.")]


async def test_people_can_read_a_lease(client: KubeClient, namespace: str) -> None:
    pool, web, _ = lockables()
    async with Process(client, namespace, QUICK) as one:
        async with await one.locks.acquire(Claim("default/nightly", "takes a snapshot", [web], [pool])):
            spec = (await client.get(LEASES, namespace, web.lease_name))["spec"]
            assert spec["holderIdentity"] == "default/nightly (exclusive)" and spec["leaseTransitions"] == 1
        free = await client.get(LEASES, namespace, web.lease_name)
        assert "holderIdentity" not in free["spec"] and free["spec"]["leaseTransitions"] == 1
        await one.locks.forget(web)
        with pytest.raises(errors.NotFound):
            await client.get(LEASES, namespace, web.lease_name)
        with pytest.raises(errors.Conflict):  # the uid is compared, so nothing is made anew
            await client.replace(LEASES, free)


async def test_the_dead_are_followed_and_their_work_settled(client: KubeClient, namespace: str) -> None:
    pool, web, disk = lockables()
    async with Process(client, namespace, QUICK) as two:
        one = await Process(client, namespace, QUICK).__aenter__()
        await one.locks.acquire(Claim("a", "dies", [web, disk], [pool]))
        with pytest.raises(Held, match="is held alone by a"):
            await two.locks.acquire(Claim("b", "waits", [disk]))
        stop(one)
        grant = await two.locks.acquire(Claim("b", "waits", [disk]), wait=30)
        assert two.recovered == ["a"] and grant.token(disk) == 3
        await grant.release()
        await one.thread.stop()


def stop(process: Process) -> None:
    """Its thread stands still, so it is not renewed, and does not notice, until it counts as lost."""
    loop: Any = process.thread._loop
    loop.call_soon_threadsafe(time.sleep, 2 * QUICK.duration)


async def test_many_at_once_end_up_one_after_the_other(client: KubeClient, namespace: str) -> None:
    pool, web, disk = lockables()
    inside = 0
    tokens: list[int] = []

    async def work(process: Process, number: int) -> None:
        nonlocal inside
        async with await process.locks.acquire(Claim(f"op{number}", "counts", [web, disk], [pool]), wait=60) as grant:
            inside += 1
            assert inside == 1
            tokens.append(grant.token(web))
            await asyncio.sleep(0.01)
            inside -= 1

    async with Process(client, namespace) as one, Process(client, namespace) as two:
        await asyncio.gather(*(work(one if n % 2 else two, n) for n in range(20)))
    assert tokens == sorted(tokens) and len(set(tokens)) == 20
