"""Background work of this process: what lasts longer than one reconcile may.

A job is named by the object it works for and by what it does. A reconciler starts it, reads its progress on later
passes, and is woken when it ends. Nothing is remembered beyond the process: after a restart the reconciler observes how
far the work came and starts it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from engine.keys import Key

NOTICE_SECONDS = 2.0
CANCEL_SECONDS = 1.0


@dataclass
class Job:
    """One piece of work; the work itself writes `done` and `total`."""

    key: Key
    name: str
    done: int = 0
    total: int = 0
    error: Exception | None = None
    finished: bool = False
    ended_at: float = 0.0
    """Loop time at which it ended."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    notify: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when the work has come a noticeable step further."""

    _noticed: float = field(default=float("-inf"), repr=False)
    _shown: int | None = field(default=None, repr=False)

    @property
    def percent(self) -> int | None:
        """How much is done, 0 to 100; None while the total is not known."""
        return min(100, self.done * 100 // self.total) if self.total else None

    def advance(self, done: int) -> None:
        """Note how far the work is; the object is looked at again at every percent of it, at most every two seconds."""
        self.done = done
        now = asyncio.get_running_loop().time()
        if self.percent != self._shown and now - self._noticed >= NOTICE_SECONDS:
            self._shown, self._noticed = self.percent, now
            self.notify()


class Jobs:
    """The jobs that run now, and those whose end nobody has read yet."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._jobs: dict[tuple[Key, str], Job] = {}

    def get(self, key: Key, name: str) -> Job | None:
        """The job of that name, running or ended and not yet taken."""
        return self._jobs.get((key, name))

    def start(self, key: Key, name: str, work: Callable[[Job], Awaitable[None]]) -> Job:
        """Start the work, or return the job that runs already."""
        known = self._jobs.get((key, name))
        if known is not None:
            return known
        job = Job(key, name, notify=lambda: self._wake(key))
        self._jobs[key, name] = job
        job.task = asyncio.create_task(self._run(job, work), name=f"{key} {name}")
        return job

    def take(self, key: Key, name: str) -> Job | None:
        """Forget an ended job and return it; None while it runs or when there is none."""
        job = self._jobs.get((key, name))
        if job is None or not job.finished:
            return None
        return self._jobs.pop((key, name))

    async def cancel(self, key: Key) -> bool:
        """End all jobs of an object: whether they have ended within a second.

        What waits for a host that hangs takes longer; the object is woken when it has ended, and this is called again.
        """
        tasks = {job.task for (owner, _), job in self._jobs.items() if owner == key and job.task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        for found in [k for k, job in self._jobs.items() if k[0] == key and (job.task is None or job.task.done())]:
            del self._jobs[found]
        return all(owner != key for owner, _ in self._jobs)

    async def close(self) -> None:
        """End all jobs."""
        for key in {key for key, _ in self._jobs}:
            await self.cancel(key)

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        try:
            await work(job)
        except Exception as error:
            job.error = error
        finally:
            job.finished = True
            job.ended_at = asyncio.get_running_loop().time()
            self._wake(job.key)
