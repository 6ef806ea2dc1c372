"""Blocking calls with deadlines: lanes of threads in which a stuck call costs a thread and nothing else.

A library call cannot be interrupted. When its deadline passes, its thread is abandoned (it ends by itself whenever
the call returns) and another takes its place, so the calls behind it go on. The number of abandoned threads is
bounded: once `spare` of them are stuck, calls wait for one to return, or for their own deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from drivers.errors import HostTimeout, NotConnected

T = TypeVar("T")

IDLE_SECONDS = 30.0
"""How long a thread without work stays."""


@dataclass
class _Job:
    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    worker: _Worker | None = None
    withdrawn: bool = False
    finished: bool = False


@dataclass(eq=False)
class _Worker:
    abandoned: bool = field(default=False)


class Lane:
    """Up to `threads` calls at once, and up to `spare` abandoned ones beside them."""

    def __init__(self, name: str, *, threads: int, spare: int) -> None:
        self._name = name
        self._threads = threads
        self._spare = spare
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers = 0
        self._idle = 0
        self._stuck = 0
        self._waiting = 0
        self._closed = False

    @property
    def stuck(self) -> int:
        """Abandoned calls that have not returned."""
        return self._stuck

    async def run(self, call: Callable[[], T], *, deadline: float, what: str) -> T:
        """Run call in a thread and return what it returns, or raise what it raises.

        Raises HostTimeout after `deadline` seconds, waiting for a free thread included; NotConnected when closed.
        """
        loop = asyncio.get_running_loop()
        job = _Job(call, loop, loop.create_future())
        self._enqueue(job)
        expiry = loop.call_later(deadline, self._expire, job, deadline, what)
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            # Nobody waits any more, but a thread that has begun may be stuck: then the expiry stays armed to find out.
            if self._withdraw(job):
                expiry.cancel()
            raise
        except BaseException:
            expiry.cancel()
            raise
        expiry.cancel()
        return result

    def close(self) -> None:
        """Take no more calls; threads end as their calls do."""
        with self._lock:
            self._closed = True
            for _ in range(self._workers):
                self._queue.put(None)

    def _enqueue(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise NotConnected("the connection to the host has been closed")
            self._waiting += 1
            self._queue.put(job)
            self._staff()

    def _staff(self) -> None:
        """Have enough threads for what waits; the lock is held."""
        room = self._workers < self._threads and self._workers + self._stuck < self._threads + self._spare
        if self._waiting > self._idle and room:
            self._workers += 1
            threading.Thread(target=self._work, args=(_Worker(),), name=f"libvirt-{self._name}", daemon=True).start()

    def _withdraw(self, job: _Job) -> bool:
        """Take a call back; False when it has begun already."""
        with self._lock:
            if job.worker is not None:
                return False
            if not job.withdrawn:
                job.withdrawn = True
                self._waiting -= 1
            return True

    def _expire(self, job: _Job, deadline: float, what: str) -> None:
        started = not self._withdraw(job)
        with self._lock:
            if job.finished:
                return
            if job.worker is not None:
                job.worker.abandoned = True
                self._workers -= 1
                self._stuck += 1
                self._staff()
        if not job.future.done():
            effect = "it may still take effect" if started else "it was not sent"
            job.future.set_exception(HostTimeout(f"{what}: no answer within {deadline:g} s; {effect}"))

    def _work(self, me: _Worker) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            with self._lock:
                if job.withdrawn:
                    continue
                job.worker = me
                self._waiting -= 1
            self._perform(job)
            with self._lock:
                job.finished = True
                if me.abandoned:
                    self._stuck -= 1
                    self._staff()
                    return

    def _next(self) -> _Job | None:
        with self._lock:
            self._idle += 1
        try:
            job = self._queue.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            job = None
        with self._lock:
            self._idle -= 1
            if job is None:
                self._workers -= 1
                # A call may have arrived between the end of the wait and here, counting on this thread.
                self._staff()
        return job

    def _perform(self, job: _Job) -> None:
        try:
            result = job.call()
        except BaseException as error:  # whatever it is belongs to whoever waits for the call
            self._deliver(job, None, error)
        else:
            self._deliver(job, result, None)

    @staticmethod
    def _deliver(job: _Job, result: Any, error: BaseException | None) -> None:
        def settle() -> None:
            if job.future.done():
                return
            if error is not None:
                job.future.set_exception(error)
            else:
                job.future.set_result(result)

        # A closed loop means that the process ends: there is nobody left to tell.
        with contextlib.suppress(RuntimeError):
            job.loop.call_soon_threadsafe(settle)
