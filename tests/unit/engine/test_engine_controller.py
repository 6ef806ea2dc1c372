"""The controller in virtual time: results become next looks, errors become retries, workers live on."""

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from engine import errors, logs
from engine.cache import Cache
from engine.clock import LoopClock
from engine.controller import Controller
from engine.keys import Key
from engine.queue import KeyedQueue, Priority
from engine.result import Done, Failed, FailureKind, RequeueAfter, Result, WaitFor
from tests.virtual_time import virtual_time

pytestmark = virtual_time

A, B = Key("Thing", "ns", "a"), Key("Thing", "ns", "b")


class Bench:
    """A controller whose reconciler answers from a script: results, exceptions, or coroutine functions, in turn."""

    def __init__(self, *script: Any, **options: Any) -> None:
        self.clock = LoopClock()
        self.queue = KeyedQueue(self.clock, rng=random.Random(5))
        self.cache = Cache()
        self.cache.mark_synced("Thing")
        self.script = list(script)
        self.seen: list[tuple[float, Key]] = []
        settings: dict[str, Any] = {"workers": 2, "urgent_workers": 1, "rng": random.Random(5)} | options
        self.controller = Controller(
            queue=self.queue, cache=self.cache, reconcilers={"Thing": self.reconcile}, clock=self.clock, **settings
        )

    async def reconcile(self, key: Key) -> Result:
        self.seen.append((self.clock.monotonic(), key))
        step: Any = self.script.pop(0) if self.script else Done()
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            made: Callable[[], Awaitable[Result]] = step
            return await made()
        assert isinstance(step, Done | RequeueAfter | WaitFor | Failed)
        return step

    def gaps(self) -> list[float]:
        times = [when for when, _ in self.seen]
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    @asynccontextmanager
    async def running(self) -> Any:
        task = asyncio.create_task(self.controller.run())
        try:
            yield self
        finally:
            await self.controller.stop(deadline=1000)
            await task


async def looks(bench: Bench, seconds: float = 100_000) -> list[float]:
    async with bench.running():
        bench.queue.add(A)
        await asyncio.sleep(seconds)
    return bench.gaps()


async def test_done_is_not_looked_at_again() -> None:
    assert await looks(Bench(Done())) == []


async def test_requeue_after_spreads_by_at_most_a_tenth_and_urgent_not_at_all() -> None:
    gaps = await looks(Bench(RequeueAfter(100, "later"), RequeueAfter(5, "soon", Priority.URGENT)))
    assert 100 <= gaps[0] <= 110.01
    assert gaps[1] == pytest.approx(5, abs=0.01)
    assert len(gaps) == 2


async def test_a_key_that_is_due_at_once_for_ever_keeps_nobody_from_running() -> None:
    endless = Bench(*[RequeueAfter(0.0, "again")] * 1000)
    async with endless.running():
        endless.queue.add(A)
        for _ in range(10):
            await asyncio.sleep(0)
        assert 0 < len(endless.seen) < 20


async def test_wait_is_bounded() -> None:
    assert await looks(Bench(WaitFor("host/h1 is up", 30, "no connection"))) == [pytest.approx(30, abs=0.01)]


async def test_wake_ends_a_wait_at_once_and_only_for_who_waits() -> None:
    bench = Bench(WaitFor("fact", 1000, "x"), Done())
    async with bench.running():
        bench.queue.add(A)
        await asyncio.sleep(10)
        bench.controller.wake("another fact")
        await asyncio.sleep(10)
        assert len(bench.seen) == 1
        bench.controller.wake("fact")
        bench.controller.wake("fact")
        await asyncio.sleep(1)
        assert [key for _, key in bench.seen] == [A, A]
    assert bench.gaps() == [pytest.approx(20, abs=0.01)]


async def test_a_fact_announced_while_the_reconcile_runs_is_not_slept_through() -> None:
    async def looks_too_early() -> Result:
        await asyncio.sleep(5)
        return WaitFor("fact", 1000, "not yet", also=frozenset({"other"}))

    bench = Bench(looks_too_early, Done())
    async with bench.running():
        bench.queue.add(A)
        await asyncio.sleep(2)
        bench.controller.wake("other")
        await asyncio.sleep(10)
        assert len(bench.seen) == 2


async def test_an_old_fact_does_not_wake_a_later_wait() -> None:
    bench = Bench(WaitFor("fact", 1000, "x"))
    async with bench.running():
        bench.controller.wake("fact")
        bench.queue.add(A)
        await asyncio.sleep(100)
        assert len(bench.seen) == 1


@pytest.mark.parametrize(
    ("failed", "low", "high"),
    [
        (Failed(FailureKind.RETRY_SOON, "x"), 0, 0.51),
        (Failed(FailureKind.RETRY_SOON, "x", retry_after=7), 7, 7.71),
        (Failed(FailureKind.WAIT_FOR_HOST, "x"), 30, 33.1),
        (Failed(FailureKind.WAIT_FOR_USER, "x"), 300, 330.1),
        (Failed(FailureKind.BUG, "x"), 0, 0.51),
    ],
)
async def test_failure_kinds(failed: Failed, low: float, high: float) -> None:
    gaps = await looks(Bench(failed))
    assert len(gaps) == 1
    assert low <= gaps[0] <= high


async def test_a_failure_is_woken_by_its_facts() -> None:
    bench = Bench(Failed(FailureKind.WAIT_FOR_HOST, "x", facts=frozenset({"h1 up"})))
    async with bench.running():
        bench.queue.add(A)
        await asyncio.sleep(1)
        bench.controller.wake("h1 up")
        await asyncio.sleep(1)
        assert len(bench.seen) == 2


async def test_repeated_failures_back_off_to_a_minute_and_success_resets() -> None:
    failing = [Failed(FailureKind.RETRY_SOON, "x")] * 40
    gaps = await looks(Bench(*failing, RequeueAfter(500, "x"), Failed(FailureKind.RETRY_SOON, "x")))
    assert max(gaps[:40]) <= 60.01
    assert max(gaps[10:40]) > 20
    assert gaps[40] >= 500
    assert gaps[41] <= 0.51


async def test_conflicts_come_again_at_once_then_with_growing_patience() -> None:
    gaps = await looks(Bench(*[errors.Conflict(409, "Conflict", "changed")] * 30))
    assert gaps[0] <= 0.21
    assert all(0.04 <= gap <= 2.01 for gap in gaps)
    assert sum(gaps[20:]) > sum(gaps[:10])


async def test_too_many_requests_waits_as_long_as_it_was_told() -> None:
    gaps = await looks(Bench(errors.TooManyRequests(429, "TooManyRequests", "x", retry_after=17)))
    assert 17 <= gaps[0] <= 18.01


async def test_an_unavailable_server_backs_off() -> None:
    gaps = await looks(Bench(*[errors.ServerUnavailable(0, "Network", "x")] * 20))
    assert len(gaps) == 20
    assert max(gaps) > 5


async def test_a_bug_is_logged_with_its_traceback_and_its_object_and_kills_nobody() -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logs.JsonFormatter().format(record))

    handler = Keep()
    logging.getLogger("engine.controller").addHandler(handler)
    labels = {"kind": "Thing", "result": "Bug"}
    before = REGISTRY.get_sample_value("hostler_reconciles_total", labels) or 0
    try:
        bench = Bench(ZeroDivisionError("oops"), "not a result", workers=1)
        bench.script[1] = lambda: asyncio.sleep(0, "not a result")
        gaps = await looks(bench)
    finally:
        logging.getLogger("engine.controller").removeHandler(handler)
    assert len(gaps) == 2
    assert any(
        "ZeroDivisionError: oops" in line and '"name": "a"' in line and "correlationId" in line for line in lines
    )
    assert any("is no Result" in line for line in lines)
    assert REGISTRY.get_sample_value("hostler_reconciles_total", labels) == before + 2


async def test_a_kind_without_reconciler_is_a_bug_and_the_others_go_on() -> None:
    bench = Bench()
    async with bench.running():
        bench.queue.add(Key("Stranger", "", "x"))
        bench.queue.add(A)
        await asyncio.sleep(1)
        assert [key for _, key in bench.seen] == [A]


async def test_a_reconcile_that_hangs_is_cut_off_at_its_deadline() -> None:
    async def hang() -> Result:
        await asyncio.Event().wait()
        return Done()

    before = REGISTRY.get_sample_value("hostler_reconcile_deadlines_total", {"kind": "Thing"}) or 0
    gaps = await looks(Bench(hang, workers=1, urgent_workers=0, deadline=50))
    assert 50 <= gaps[0] <= 50.51
    assert REGISTRY.get_sample_value("hostler_reconcile_deadlines_total", {"kind": "Thing"}) == before + 1


async def test_its_own_timeout_error_is_a_bug_not_a_deadline() -> None:
    before = REGISTRY.get_sample_value("hostler_reconcile_deadlines_total", {"kind": "Thing"}) or 0
    assert len(await looks(Bench(TimeoutError("inner")))) == 1
    assert (REGISTRY.get_sample_value("hostler_reconcile_deadlines_total", {"kind": "Thing"}) or 0) == before


async def test_a_cancellation_from_inside_does_not_end_the_worker() -> None:
    gaps = await looks(Bench(asyncio.CancelledError(), workers=1, urgent_workers=0))
    assert len(gaps) == 1


async def test_urgent_work_passes_workers_that_all_hang() -> None:
    async def slow() -> Result:
        await asyncio.sleep(100)
        return Done()

    bench = Bench(slow, slow, Done(), workers=2, urgent_workers=1)
    async with bench.running():
        bench.queue.add(A)
        bench.queue.add(B)
        await asyncio.sleep(1)
        bench.queue.add(Key("Thing", "ns", "user"))
        bench.queue.add(Key("Thing", "ns", "urgent"), Priority.URGENT)
        await asyncio.sleep(1)
        assert [key.name for _, key in bench.seen] == ["a", "b", "urgent"]


async def test_stop_lets_the_running_finish_and_begins_nothing() -> None:
    finished: list[bool] = []

    async def work() -> Result:
        await asyncio.sleep(10)
        finished.append(True)
        return Done()

    bench = Bench(work, workers=1, urgent_workers=0)
    running = asyncio.create_task(bench.controller.run())
    bench.queue.add(A)
    bench.queue.add(B)
    await asyncio.sleep(1)
    assert await bench.controller.stop(deadline=60) == frozenset()
    await running
    assert finished == [True]
    assert [key for _, key in bench.seen] == [A]


async def test_stop_cuts_off_what_does_not_finish_in_time() -> None:
    async def endless() -> Result:
        await asyncio.sleep(100_000)
        return Done()

    bench = Bench(endless)
    running = asyncio.create_task(bench.controller.run())
    bench.queue.add(A)
    await asyncio.sleep(1)
    assert await bench.controller.stop(deadline=5) == {A}
    await running


async def test_cancelling_run_cancels_the_workers() -> None:
    bench = Bench(lambda: asyncio.sleep(1000, Done()))
    running = asyncio.create_task(bench.controller.run())
    bench.queue.add(A)
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bench.queue.in_work() == 0


async def test_nothing_is_reconciled_before_every_kind_is_listed() -> None:
    bench = Bench(requires=["Thing", "Other"])
    with pytest.raises(RuntimeError, match="Other"):
        await bench.controller.run()


async def test_each_pass_has_its_own_correlation_id() -> None:
    ids: list[str] = []

    async def note() -> Result:
        ids.append(logs.correlation_id())
        return RequeueAfter(1, "again")

    await looks(Bench(note, note), 10)
    assert len(set(ids)) == 2
    assert all(ids)
    assert logs.correlation_id() == ""
