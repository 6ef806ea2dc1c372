"""Lanes: a stuck call costs a thread and nothing else."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from drivers.errors import HostTimeout, NotConnected
from drivers.libvirt.executor import Lane


class Stuck:
    """Calls that hang until they are let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = 0

    def __call__(self) -> str:
        self.begun += 1
        self.gate.wait(10)
        return "late"


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    call = Stuck()
    yield call
    call.gate.set()


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane("test", threads=2, spare=1)
    yield lane
    lane.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def fail() -> None:
    raise ValueError("what the call raised")


async def test_a_call_returns_what_it_returns_and_raises_what_it_raises(lane: Lane) -> None:
    assert await lane.run(lambda: 7, deadline=5, what="seven") == 7
    with pytest.raises(ValueError, match="what the call raised"):
        await lane.run(fail, deadline=5, what="fail")


async def test_calls_run_beside_each_other_but_no_more_than_there_are_threads(lane: Lane) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    await asyncio.gather(*(lane.run(call, deadline=5, what="call") for _ in range(10)))
    assert most == 2


async def test_a_stuck_call_times_out_and_its_thread_is_replaced(lane: Lane, stuck: Stuck) -> None:
    begun = time.monotonic()
    with pytest.raises(HostTimeout, match="may still take effect"):
        await lane.run(stuck, deadline=0.05, what="stuck")
    assert time.monotonic() - begun < 2
    assert lane.stuck == 1
    running = [asyncio.create_task(lane.run(lambda: time.sleep(0.01), deadline=5, what="next")) for _ in range(4)]
    await asyncio.gather(*running)


async def test_no_more_threads_get_stuck_than_the_bound(lane: Lane, stuck: Stuck) -> None:
    calls = [asyncio.create_task(lane.run(stuck, deadline=0.1, what="stuck")) for _ in range(6)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, HostTimeout) for outcome in outcomes)
    more = [lane.run(stuck, deadline=0.1, what="stuck") for _ in range(3)]
    outcomes = await asyncio.gather(*more, return_exceptions=True)
    assert "it was not sent" in str(outcomes[-1])
    assert stuck.begun == 3, "two threads and one spare"


async def test_a_call_that_waits_too_long_is_never_made(lane: Lane, stuck: Stuck) -> None:
    blockers = [asyncio.create_task(lane.run(stuck, deadline=5, what="stuck")) for _ in range(2)]
    await until(lambda: stuck.begun == 2)
    made = []
    with pytest.raises(HostTimeout, match="it was not sent"):
        await lane.run(lambda: made.append(1), deadline=0.05, what="waiting")
    stuck.gate.set()
    assert await asyncio.gather(*blockers) == ["late", "late"]
    await lane.run(lambda: None, deadline=5, what="after")
    assert made == []


async def test_a_lane_recovers_when_stuck_calls_return(lane: Lane, stuck: Stuck) -> None:
    calls = [asyncio.create_task(lane.run(stuck, deadline=0.05, what="stuck")) for _ in range(3)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert lane.stuck > 0
    stuck.gate.set()
    await until(lambda: lane.stuck == 0)
    assert await lane.run(lambda: "again", deadline=5, what="again") == "again"


async def test_a_cancelled_call_that_waits_is_never_made(lane: Lane, stuck: Stuck) -> None:
    blockers = [asyncio.create_task(lane.run(stuck, deadline=5, what="stuck")) for _ in range(2)]
    await until(lambda: stuck.begun == 2)
    made = []
    waiting = asyncio.create_task(lane.run(lambda: made.append(1), deadline=5, what="waiting"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    stuck.gate.set()
    await asyncio.gather(*blockers)
    await lane.run(lambda: None, deadline=5, what="after")
    assert made == []


async def test_a_cancelled_call_that_hangs_is_still_found_stuck(lane: Lane, stuck: Stuck) -> None:
    hanging = asyncio.create_task(lane.run(stuck, deadline=0.1, what="stuck"))
    await until(lambda: stuck.begun == 1)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    await until(lambda: lane.stuck == 1)


async def test_a_closed_lane_takes_nothing(lane: Lane) -> None:
    await lane.run(lambda: None, deadline=5, what="before")
    lane.close()
    with pytest.raises(NotConnected):
        await lane.run(lambda: None, deadline=5, what="after")


async def test_one_lane_delays_no_other(lane: Lane, stuck: Stuck) -> None:
    calls = [asyncio.create_task(lane.run(stuck, deadline=5, what="stuck")) for _ in range(4)]
    await until(lambda: stuck.begun == 2)
    other = Lane("other", threads=1, spare=0)
    assert await other.run(lambda: "free", deadline=5, what="other") == "free"
    other.close()
    stuck.gate.set()
    await asyncio.gather(*calls)
