"""Background work: started once, seen while it runs, taken when it has ended, ended with its object."""

from __future__ import annotations

import asyncio

import pytest

from engine.keys import Key
from reconcilers.jobs import Job, Jobs
from tests.virtual_time import virtual_time

A, B = Key("Disk", "default", "a"), Key("Disk", "default", "b")


class Work:
    """Work that ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.error = error
        self.runs = 0
        self.cancelled = False

    async def __call__(self, job: Job) -> None:
        self.runs += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error


@pytest.fixture
def woken() -> list[Key]:
    return []


@pytest.fixture
def jobs(woken) -> Jobs:
    return Jobs(woken.append)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_is_started_once(jobs):
    work = Work()
    first = jobs.start(A, "import", work)
    assert jobs.start(A, "import", Work()) is first
    assert jobs.get(A, "import") is first
    assert jobs.start(A, "other", Work()) is not first
    assert jobs.start(B, "import", Work()) is not first
    await settle()
    assert work.runs == 1
    await jobs.close()


async def test_its_end_wakes_its_object_and_can_be_taken_once(jobs, woken):
    work = Work()
    job = jobs.start(A, "import", work)
    await settle()
    assert woken == []
    assert jobs.take(A, "import") is None
    work.go.set()
    await settle()
    assert woken == [A]
    assert job.finished
    assert job.error is None
    assert jobs.take(A, "import") is job
    assert jobs.take(A, "import") is None
    assert jobs.get(A, "import") is None


async def test_what_ended_it_is_kept(jobs, woken):
    error = ValueError("bad")
    work = Work(error)
    job = jobs.start(A, "import", work)
    work.go.set()
    await settle()
    assert (job.finished, job.error, woken) == (True, error, [A])
    assert jobs.start(A, "import", Work()) is job, "nobody has read its end yet"
    assert job.ended_at > 0


async def test_it_ends_with_its_object(jobs):
    mine, others = Work(), Work()
    jobs.start(A, "import", mine)
    jobs.start(B, "import", others)
    await settle()
    await jobs.cancel(A)
    assert mine.cancelled
    assert not others.cancelled
    assert jobs.get(A, "import") is None
    assert jobs.get(B, "import") is not None
    await jobs.close()
    assert others.cancelled


async def test_nothing_to_cancel_is_no_error(jobs):
    await jobs.cancel(A)
    await jobs.close()


async def test_work_that_never_began_can_be_cancelled(jobs):
    work = Work()
    jobs.start(A, "import", work)
    await jobs.cancel(A)
    assert work.runs == 0
    assert jobs.get(A, "import") is None


async def test_how_much_is_done():
    job = Job(A, "import")
    assert job.percent is None
    job.total, job.done = 300, 100
    assert job.percent == 33
    job.done = 600
    assert job.percent == 100


@virtual_time
async def test_progress_is_told_at_every_percent_and_at_most_every_two_seconds():
    told: list[int | None] = []
    job = Job(A, "import", total=1000)
    job.notify = lambda: told.append(job.percent)
    job.advance(9)
    assert told == [0]
    job.advance(99)
    assert told == [0]
    await asyncio.sleep(2)
    job.advance(100)
    assert told == [0, 10]
    await asyncio.sleep(2)
    job.advance(109)
    assert told == [0, 10], "not a percent more"
    for done in range(110, 1001):
        await asyncio.sleep(2)
        job.advance(done)
    assert len(told) == 101 - 9, "never more than one for each percent"


@virtual_time
async def test_what_does_not_end_at_once_is_waited_for_a_second_and_asked_about_again(jobs, woken):
    host_answers = asyncio.Event()

    async def hangs(_: Job) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await host_answers.wait()

    jobs.start(A, "import", hangs)
    await asyncio.sleep(5)
    begun = asyncio.get_running_loop().time()
    assert not await jobs.cancel(A)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(1.0, abs=0.1)
    assert jobs.get(A, "import") is not None
    host_answers.set()
    await settle()
    assert woken == [A]
    assert await jobs.cancel(A)
    assert jobs.get(A, "import") is None
