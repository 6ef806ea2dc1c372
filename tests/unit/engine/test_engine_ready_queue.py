"""The keyed queue in virtual time: coalescing, exclusion, priorities, fairness, due times, back-off, closing."""

import asyncio
import random

import pytest

from engine.clock import LoopClock
from engine.errors import QueueClosed
from engine.keys import Key
from engine.queue import KeyedQueue, Priority
from tests.virtual_time import virtual_time

pytestmark = virtual_time


def key(name: str, kind: str = "Thing") -> Key:
    return Key(kind, "ns", name)


A, B, C = key("a"), key("b"), key("c")


@pytest.fixture
async def queue() -> KeyedQueue:
    return KeyedQueue(LoopClock(), rng=random.Random(1))


def drain(queue: KeyedQueue, lowest: Priority = Priority.PERIODIC) -> list[str]:
    """Takes and finishes until nothing is handed out; the names in order."""
    names = []
    while (taken := queue.take(lowest)) is not None:
        names.append(taken.name)
        queue.done(taken)
    return names


async def test_a_key_added_often_is_handed_out_once(queue: KeyedQueue) -> None:
    for _ in range(5):
        queue.add(A)
    assert drain(queue) == ["a"]


async def test_what_is_added_during_work_comes_again_after_it(queue: KeyedQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(A, Priority.URGENT)
    queue.add(B)
    assert queue.take() == B
    assert queue.take() is None
    queue.done(A)
    assert queue.take() == A
    assert queue.priority_of(A) is Priority.URGENT
    queue.done(A)
    assert queue.take() is None


async def test_higher_priority_goes_first_and_raises_what_waits(queue: KeyedQueue) -> None:
    queue.add(A, Priority.PERIODIC)
    queue.add(B, Priority.USER)
    queue.add(C, Priority.PERIODIC)
    queue.add(C, Priority.URGENT)
    queue.add(C, Priority.PERIODIC)
    assert drain(queue) == ["c", "b", "a"]


async def test_get_waits_for_an_add(queue: KeyedQueue) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(5)
    assert not waiting.done()
    queue.add(A)
    assert await waiting == A


async def test_cancelled_get_loses_nothing(queue: KeyedQueue) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add(A)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await queue.get() == A


async def test_due_time_is_kept_and_the_earliest_wins(queue: KeyedQueue) -> None:
    clock = LoopClock()
    start = clock.monotonic()
    queue.add_after(A, 50)
    queue.add_after(A, 10, Priority.USER)
    queue.add_after(A, 30)
    assert queue.scheduled() == 1
    assert await queue.get() == A
    assert clock.monotonic() - start == pytest.approx(10, abs=0.01)
    assert queue.priority_of(A) is Priority.USER
    queue.done(A)
    assert queue.scheduled() == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 1000)


async def test_an_earlier_due_time_wakes_a_worker_that_sleeps_for_a_later_one(queue: KeyedQueue) -> None:
    clock = LoopClock()
    start = clock.monotonic()
    queue.add_after(A, 100)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.add_after(B, 1)
    assert await waiting == B
    assert clock.monotonic() - start == pytest.approx(2, abs=0.01)


async def test_add_after_never_delays_an_add(queue: KeyedQueue) -> None:
    queue.add(A)
    queue.add_after(A, 60)
    assert queue.take() == A
    queue.done(A)
    await asyncio.sleep(61)
    assert queue.take() == A


async def test_due_during_work_comes_again_after_it(queue: KeyedQueue) -> None:
    queue.add(A)
    assert queue.take() == A
    queue.add_after(A, 1)
    await asyncio.sleep(2)
    assert queue.take() is None
    queue.done(A)
    assert queue.take() == A


async def test_back_off_grows_to_the_cap_and_is_forgotten() -> None:
    bounds: list[float] = []

    class Highest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            assert a == 0.0
            bounds.append(b)
            return b

    queue = KeyedQueue(LoopClock(), rng=Highest())
    for _ in range(9):
        queue.retry(A)
    assert bounds == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    queue.forget(A)
    assert queue.retry(A) == 0.5


async def test_retry_keeps_the_priority_of_the_work(queue: KeyedQueue) -> None:
    queue.add(A, Priority.URGENT)
    assert queue.take() == A
    queue.retry(A)
    queue.done(A)
    assert await queue.get(lowest=Priority.URGENT) == A


async def test_back_off_is_jittered_and_repeatable() -> None:
    def delays(seed: int) -> list[float]:
        queue = KeyedQueue(LoopClock(), rng=random.Random(seed))
        return [queue.retry(A) for _ in range(6)]

    assert delays(7) == delays(7)
    assert delays(7) != delays(8)


async def test_a_reserve_worker_gets_urgent_keys_only(queue: KeyedQueue) -> None:
    queue.add(A, Priority.USER)
    assert queue.take(Priority.URGENT) is None
    queue.add(B, Priority.URGENT)
    assert queue.take(Priority.URGENT) == B


async def test_groups_take_turns_inside_a_priority() -> None:
    queue = KeyedQueue(LoopClock(), group_of=lambda each: each.name[0])
    for name in ("x1", "x2", "x3", "x4", "y1", "y2", "z1"):
        queue.add(key(name))
    assert drain(queue) == ["x1", "y1", "z1", "x2", "y2", "x3", "x4"]


async def test_a_full_group_waits_and_does_not_hold_up_others() -> None:
    queue = KeyedQueue(LoopClock(), group_of=lambda each: each.name[0], group_limit=2)
    for name in ("x1", "x2", "x3", "y1"):
        queue.add(key(name))
    taken = [queue.take() for _ in range(4)]
    assert [each.name for each in taken if each] == ["x1", "y1", "x2"]
    assert queue.depth() == 1
    queue.done(key("y1"))
    assert queue.take() is None
    queue.done(key("x1"))
    assert queue.take() == key("x3")


async def test_urgent_keys_of_a_full_group_have_their_own_places() -> None:
    queue = KeyedQueue(LoopClock(), group_of=lambda each: "host", group_limit=1)
    queue.add(A)
    assert queue.take() == A
    queue.add(B, Priority.URGENT)
    queue.add(C, Priority.URGENT)
    assert queue.take() == B
    assert queue.take() is None
    queue.done(B)
    assert queue.take() == C


async def test_keys_without_a_group_are_not_limited() -> None:
    queue = KeyedQueue(LoopClock(), group_of=lambda each: None, group_limit=1)
    queue.add(A)
    queue.add(B)
    assert (queue.take(), queue.take()) == (A, B)


async def test_adding_again_moves_a_key_to_its_new_group() -> None:
    hosts = {"a": "h1", "b": "h1"}
    queue = KeyedQueue(LoopClock(), group_of=lambda each: hosts[each.name], group_limit=1)
    queue.add(A)
    queue.add(B)
    assert queue.take() == A
    assert queue.take() is None
    hosts["b"] = "h2"
    queue.add(B)
    assert queue.take() == B


async def test_periodic_work_is_slow_but_does_not_starve_under_an_endless_storm() -> None:
    queue = KeyedQueue(LoopClock(), patience=30, share=8)
    queue.add(key("patient"), Priority.PERIODIC)
    for number in range(1000):
        queue.add(key(f"storm{number}"), Priority.URGENT)
    before = [queue.take() for _ in range(100)]
    assert key("patient") not in before, "it has not waited longer than patience yet"
    await asyncio.sleep(31)
    after = [queue.take() for _ in range(9)]
    assert after.count(key("patient")) == 1


async def test_patience_serves_the_longest_waiting_and_at_most_its_share() -> None:
    queue = KeyedQueue(LoopClock(), patience=10, share=4)
    for number in range(100):
        queue.add(key(f"old{number:02}"), Priority.PERIODIC)
    await asyncio.sleep(11)
    for number in range(100):
        queue.add(key(f"urgent{number}"), Priority.URGENT)
    taken = [each.name for _ in range(50) if (each := queue.take())]
    olds = [name for name in taken if name.startswith("old")]
    assert olds == [f"old{number:02}" for number in range(10)]


async def test_close_ends_those_who_wait_and_hands_out_nothing(queue: KeyedQueue) -> None:
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    queue.close()
    with pytest.raises(QueueClosed):
        await waiting
    queue.add(A)
    with pytest.raises(QueueClosed):
        await queue.get()


async def test_figures(queue: KeyedQueue) -> None:
    queue.add(A)
    await asyncio.sleep(4)
    queue.add(A, Priority.URGENT)
    queue.add(B)
    queue.add_after(C, 10)
    assert (queue.depth(), queue.depth(Priority.URGENT), queue.scheduled(), queue.in_work()) == (2, 1, 1, 0)
    assert queue.oldest_age() == pytest.approx(4)
    assert queue.take() == A
    assert (queue.depth(), queue.in_work(), queue.oldest_age()) == (1, 1, 0)


async def test_exported_gauges_follow_the_queue(queue: KeyedQueue) -> None:
    from prometheus_client import REGISTRY

    queue.export_metrics()
    queue.add(A)
    assert REGISTRY.get_sample_value("hostler_queue_depth", {"priority": "USER"}) == 1
    queue.take()
    assert REGISTRY.get_sample_value("hostler_queue_depth", {"priority": "USER"}) == 0
    assert REGISTRY.get_sample_value("hostler_queue_in_work") == 1


async def test_several_workers_share_the_work_and_never_a_key() -> None:
    clock = LoopClock()
    queue = KeyedQueue(clock)
    active: set[Key] = set()
    handled = 0

    async def worker() -> None:
        nonlocal handled
        while True:
            try:
                mine = await queue.get()
            except QueueClosed:
                return
            assert mine not in active
            active.add(mine)
            await asyncio.sleep(1)
            active.remove(mine)
            handled += 1
            queue.done(mine)

    workers = [asyncio.create_task(worker()) for _ in range(4)]
    for number in range(20):
        queue.add(key(f"k{number}"))
    start = clock.monotonic()
    while handled < 20:
        await asyncio.sleep(0.5)
    assert clock.monotonic() - start <= 5.5
    queue.close()
    await asyncio.gather(*workers)


class Idle:
    """Workers that count how often they are woken: once for each key, and once more to find that nothing is left."""

    def __init__(self, queue: KeyedQueue, lanes: list[Priority]) -> None:
        self.queue = queue
        self.looks = 0
        self.taken: list[str] = []
        take = queue.take

        def counted(lowest: Priority = Priority.PERIODIC) -> Key | None:
            self.looks += 1
            return take(lowest)

        queue.take = counted  # type: ignore[method-assign]
        self.tasks = [asyncio.create_task(self.work(lane)) for lane in lanes]

    async def work(self, lane: Priority) -> None:
        while True:
            mine = await self.queue.get(lane)
            self.taken.append(mine.name)
            try:
                await asyncio.sleep(1)
            finally:
                self.queue.done(mine)


async def test_one_key_wakes_one_worker(queue: KeyedQueue) -> None:
    idle = Idle(queue, [Priority.PERIODIC] * 50)
    await asyncio.sleep(1)
    assert idle.looks == 50
    for number in range(10):
        queue.add(key(f"k{number}"))
        queue.add_after(key(f"later{number}"), 5)
    await asyncio.sleep(5.5)
    assert len(idle.taken) == 20
    await asyncio.sleep(60)
    assert idle.looks <= 50 + 2 * 20 + 10


async def test_a_key_that_the_reserve_may_not_take_goes_to_another() -> None:
    queue = KeyedQueue(LoopClock(), group_of=lambda each: each.name[0], group_limit=1)
    idle = Idle(queue, [Priority.URGENT, Priority.PERIODIC])
    await asyncio.sleep(1)
    queue.add(key("x1"), Priority.URGENT)
    queue.add(key("x2"), Priority.USER)
    queue.add(key("x3"), Priority.URGENT)
    await asyncio.sleep(0.5)
    assert idle.taken == ["x1", "x2"], "x3 waits for its group, and the reserve takes nothing else"
    await asyncio.sleep(1)
    assert idle.taken == ["x1", "x2", "x3"]


async def test_a_worker_that_is_cancelled_when_woken_passes_the_wake_on(queue: KeyedQueue) -> None:
    idle = Idle(queue, [Priority.PERIODIC] * 2)
    await asyncio.sleep(1)
    queue.add(A)
    idle.tasks[0].cancel()
    await asyncio.sleep(1)
    assert idle.taken == ["a"]


@pytest.mark.parametrize("seed", range(20))
async def test_no_worker_sleeps_while_there_is_something_for_it(seed: int) -> None:
    rng = random.Random(seed)
    queue = KeyedQueue(LoopClock(), group_of=lambda each: each.name[0], group_limit=2, rng=rng)
    lanes = [Priority.PERIODIC] * 4 + [Priority.URGENT]
    idle = Idle(queue, lanes)
    asked: set[str] = set()
    for step in range(200):
        name = f"{rng.choice('xyz')}{step}"
        asked.add(name)
        if rng.random() < 0.3:
            queue.add_after(key(name), rng.uniform(0, 3), rng.choice(list(Priority)))
        else:
            queue.add(key(name), rng.choice(list(Priority)))
        if rng.random() < 0.2:
            victim = rng.randrange(len(lanes))
            idle.tasks[victim].cancel()
            idle.tasks[victim] = asyncio.create_task(idle.work(lanes[victim]))
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice((0, 0.1, 2)))
    await asyncio.sleep(1000)
    assert set(idle.taken) == asked
