"""Events in virtual time: folded, bounded, posted anew when expired, and never anybody's failure."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from engine import errors
from engine.clock import LoopClock
from engine.keys import Key, Object
from engine.kube import KubeClient
from engine.recorder import Recorder
from tests.virtual_time import virtual_time

pytestmark = virtual_time

OBJECT: Object = {
    "apiVersion": "test/v1",
    "kind": "Thing",
    "metadata": {"name": "a", "namespace": "ns", "uid": "u"},
}


class Posts:
    """Stands for the client: keeps what is posted, fails on demand."""

    def __init__(self) -> None:
        self.created: list[Object] = []
        self.patched: list[Object] = []
        self.fail: list[Exception] = []

    async def create_event(self, event: Object) -> Object:
        if self.fail:
            raise self.fail.pop(0)
        self.created.append(event)
        return event

    async def patch_event(self, key: Key, patch: Object) -> Object:
        if self.fail:
            raise self.fail.pop(0)
        self.patched.append(patch)
        return patch


class Desk:
    def __init__(self, **options: Any) -> None:
        self.posts = Posts()
        self.recorder = Recorder(
            cast("KubeClient", self.posts), component="test.example.org/x", instance="i", clock=LoopClock(), **options
        )

    async def say(self, message: str = "it broke", times: int = 1, reason: str = "Broken") -> None:
        for _ in range(times):
            self.recorder.record(OBJECT, "Warning", reason, message)
        assert await self.recorder.drain(5)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk(window=600, repeat_after=30, burst=3, refill=60)
    posting = asyncio.create_task(desk.recorder.run())
    yield desk
    posting.cancel()


async def test_repetitions_are_one_event_with_a_count(desk: Desk) -> None:
    await desk.say()
    await desk.say(times=5)
    assert (len(desk.posts.created), desk.posts.patched) == (1, [])
    await asyncio.sleep(31)
    await desk.say()
    assert [patch["series"]["count"] for patch in desk.posts.patched] == [7]
    assert len(desk.posts.created) == 1


async def test_after_the_window_it_is_a_new_event(desk: Desk) -> None:
    await desk.say()
    await asyncio.sleep(601)
    await desk.say()
    assert len(desk.posts.created) == 2
    names = {event["metadata"]["name"] for event in desk.posts.created}
    assert len(names) == 2


async def test_different_events_of_one_object_are_bounded(desk: Desk) -> None:
    for number in range(10):
        await desk.say(f"message {number}")
    assert len(desk.posts.created) == 3
    await asyncio.sleep(61)
    await desk.say("later")
    assert len(desk.posts.created) == 4


async def test_failing_to_post_is_logged_and_the_next_time_posts(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.posts.fail = [errors.Forbidden(403, "Forbidden", "no events here")]
    await desk.say()
    assert "no events here" in caplog.text
    await asyncio.sleep(31)
    await desk.say()
    assert [event["series"]["count"] for event in desk.posts.created] == [2]


async def test_an_event_that_expired_is_posted_anew(desk: Desk) -> None:
    await desk.say()
    await asyncio.sleep(31)
    desk.posts.fail = [errors.NotFound(404, "NotFound", "gone")]
    await desk.say()
    assert len(desk.posts.created) == 2


async def test_drain_says_when_it_did_not_finish() -> None:
    desk = Desk()
    desk.recorder.record(OBJECT, "Normal", "Said", "nobody posts")
    assert not await desk.recorder.drain(1)


async def test_messages_are_cut_to_what_the_api_takes(desk: Desk) -> None:
    await desk.say("ü" * 2000)
    note = desk.posts.created[0]["note"]
    assert len(note.encode()) <= 1024
    assert note.endswith("...")
