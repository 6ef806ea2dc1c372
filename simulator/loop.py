"""An event loop in virtual time, in which a controller can be stopped as a process can: at once, between any two steps.

Time stands still while there is something to do, and jumps to the next timer when there is nothing. What runs on behalf
of a controller carries its `Scope` in the context (tasks and callbacks inherit it); the loop does not run what belongs
to a frozen scope before it thaws, and never what belongs to a dead one: no `finally`, no error handling, as after
SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Scope:
    """One process inside the loop: what it does is held back while it is frozen, and lost when it is dead."""

    def __init__(self, name: str) -> None:
        """A scope that runs."""
        self.name = name
        self.frozen = False
        self.dead = False
        self.parked: list[asyncio.Handle] = []
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work inside this scope, whoever calls."""
        context = Context()
        context.run(SCOPE.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def enter(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function called inside this scope, when it runs."""
        if self.dead:
            return
        context = Context()
        context.run(SCOPE.set, self)
        asyncio.get_running_loop().call_soon(partial(function, *arguments), context=context)


SCOPE: ContextVar[Scope | None] = ContextVar("scope", default=None)
"""The process that the running code belongs to; None: the world."""


class Deadlock(Exception):
    """Nothing is left that could ever happen."""


class Livelock(Exception):
    """Something goes round and round, and time does not pass."""


ONE_INSTANT = 3_000
"""Steps at one instant of virtual time beyond which nothing will come of them."""


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. It has no sockets, threads or signals: whatever asks for one fails."""

    _ready: Any
    _scheduled: list[tuple[float, int, asyncio.TimerHandle]]

    def __init__(self) -> None:
        """Time begins at 0."""
        super().__init__()
        self._now = 0.0
        self._timers = 0
        self._scopes = WeakSet[Scope]()
        self._steps = 0
        """Since time passed last."""
        self.set_task_factory(_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers of one instant fire in the order in which they were set."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        return timer

    def freeze(self, scope: Scope) -> None:
        """Run nothing of it from now on."""
        scope.frozen = True

    def thaw(self, scope: Scope) -> None:
        """Run on with what was due meanwhile, in its order."""
        scope.frozen = False
        self._ready.extend(scope.parked)
        scope.parked.clear()

    def inhabit(self, scope: Scope) -> None:
        """Something of it runs in here."""
        self._scopes.add(scope)

    def kill_all(self) -> None:
        """Run nothing any more but what belongs to no scope."""
        for scope in list(self._scopes):
            self.kill(scope)

    def kill(self, scope: Scope) -> None:
        """Run nothing of it, ever again."""
        scope.dead = True
        scope.parked.clear()
        # Python would close what is left one day; doing it now keeps that day's warnings away. What a `finally` does
        # here stays in the dead controller's memory: the doors to the world are closed by `dead`.
        with _unheard():
            for task in list(scope.tasks):
                coroutine = task.get_coro()
                if coroutine is not None and not task.done():
                    with contextlib.suppress(BaseException):
                        coroutine.close()

    def _run_once(self) -> None:
        timers = self._scheduled
        if not self._ready:
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise Deadlock("every task waits for something that nobody will do")
            if timers[0][0] > self._now:
                self._now, self._steps = timers[0][0], 0
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(handle)
        for _ in range(len(self._ready)):
            self._run(self._ready.popleft())

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        scope = handle._context.get(SCOPE)  # type: ignore[attr-defined]
        if scope is not None and (scope.dead or scope.frozen):
            if not scope.dead:
                scope.parked.append(handle)
            return
        self._steps += 1
        if self._steps > ONE_INSTANT:
            self._steps = 0
            raise Livelock(f"time stands still at {self._now:.3f} s: {handle!r}")
        handle._run()

    def _process_events(self, event_list: Any) -> None:
        raise NotImplementedError("there are no sockets in here")

    def _write_to_self(self) -> None:
        """Nothing ever blocks, so nobody needs to be woken."""


def _task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], *, context: Context | None = None
) -> asyncio.Task[T]:
    task = asyncio.Task(work, loop=loop, context=context)
    scope = context.get(SCOPE) if context is not None else SCOPE.get()
    if scope is not None and isinstance(loop, VirtualLoop):
        loop.inhabit(scope)
        scope.tasks.add(task)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.kill_all()
        with _unheard(), contextlib.suppress(Deadlock, Livelock):
            _cancel_all(loop)
        loop.close()
        with _unheard():
            gc.collect()


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """What coroutines say when they are closed in the middle of something, as nobody ever closes those of a process."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def _cancel_all(loop: VirtualLoop) -> None:
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    scoped = {task for task in left if getattr(task, "_log_destroy_pending", True) is False}
    for task in left:
        if task not in scoped:
            task.cancel()
    waited = [task for task in left if task not in scoped]
    if waited:
        loop.run_until_complete(asyncio.gather(*waited, return_exceptions=True))
