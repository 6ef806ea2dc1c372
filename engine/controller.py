"""The loop: takes a key, calls the reconciler of its kind, and turns what comes back into the next look.

Nothing that a reconciler does can end a worker, hold it for ever, or lose a key.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping

from engine import errors, logs, metrics
from engine.cache import Cache
from engine.clock import Clock
from engine.keys import Key
from engine.queue import KeyedQueue, Priority
from engine.result import Done, Failed, FailureKind, RequeueAfter, Result, WaitFor
from engine.waits import Waits

Reconciler = Callable[[Key], Awaitable[Result]]

_USER_SECONDS = 300.0
_HOST_SECONDS = 30.0
_CONFLICT_SECONDS = (0.05, 0.2)
_CONFLICTS_COUNTED = 10

_log = logging.getLogger(__name__)


class DeadlinePassed(errors.EngineError):
    """A reconcile took longer than it may."""


class Abandoned(errors.EngineError):
    """A reconcile was cancelled from inside, by something that it waited for."""


class Controller:
    """Runs reconcilers, each given a key and returning a Result.

    `workers` serve every priority, `urgent_workers` nothing but URGENT, so that a fleet's worth of slow work cannot
    hold up what must be fast. `deadline`: seconds for one reconcile. `requires`: kinds that must be synced before
    the first reconcile, those of `reconcilers` if not named.
    """

    def __init__(
        self,
        *,
        queue: KeyedQueue,
        cache: Cache,
        reconcilers: Mapping[str, Reconciler],
        clock: Clock,
        workers: int = 48,
        urgent_workers: int = 2,
        deadline: float = 120.0,
        requires: Iterable[str] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._cache = cache
        self._reconcilers = dict(reconcilers)
        self._clock = clock
        self._lanes = [Priority.PERIODIC] * workers + [Priority.URGENT] * urgent_workers
        self._deadline = deadline
        self._requires = list(self._reconcilers if requires is None else requires)
        self._rng = rng if rng is not None else random.Random()  # noqa: S311 - spreads load, guards nothing
        self._waits = Waits()
        self._conflicts: dict[Key, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Works until `stop`, or until cancelled. RuntimeError when a required kind has not been listed yet."""
        missing = [kind for kind in self._requires if not self._cache.synced([kind])]
        if missing:
            raise RuntimeError(f"not listed yet: {', '.join(missing)}")
        self._tasks = [asyncio.create_task(self._work(lane)) for lane in self._lanes]
        try:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in done:
            if not task.cancelled():
                task.result()

    async def stop(self, deadline: float) -> frozenset[Key]:
        """Begins no reconcile any more and lets those that run finish, for at most `deadline` seconds.

        The keys whose reconcile had to be cut off are returned; `run` ends.
        """
        self._queue.close()
        if not self._tasks:
            return frozenset()
        _, pending = await asyncio.wait(self._tasks, timeout=deadline)
        cut = self._waits.running() if pending else frozenset()
        for task in pending:
            task.cancel()
        return cut

    def wake(self, fact: str, priority: Priority = Priority.USER) -> None:
        """Announces a fact: whatever waits for it is looked at again, now."""
        for key in self._waits.announce(fact):
            self._queue.add(key, priority)

    async def _work(self, lane: Priority) -> None:
        while True:
            try:
                key = await self._queue.get(lane)
            except errors.QueueClosed:
                return
            try:
                with logs.bind(key, uuid.uuid4().hex[:8]):
                    await self._pass(key)
            finally:
                self._queue.done(key)
            # A pass that waited for nothing, and is due again at once, must not keep everybody else from running.
            await asyncio.sleep(0)

    async def _pass(self, key: Key) -> None:
        self._waits.begin(key)
        started = self._clock.monotonic()
        outcome = "Cancelled"
        try:
            outcome = self._settle(key, await self._call(key))
        except Exception as error:
            outcome = self._recover(key, error)
        finally:
            self._waits.end(key)
            metrics.reconcile_seconds.labels(key.kind).observe(self._clock.monotonic() - started)
            metrics.reconciles.labels(key.kind, outcome).inc()

    async def _call(self, key: Key) -> Result:
        reconcile = self._reconcilers.get(key.kind)
        if reconcile is None:
            raise LookupError(f"no reconciler for {key.kind}")
        scope = asyncio.timeout(self._deadline)
        try:
            async with scope:
                return await reconcile(key)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlinePassed(f"not finished in {self._deadline:g} s") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Abandoned("something it waited for was cancelled") from error

    def _settle(self, key: Key, result: Result) -> str:
        """Arranges the next look; the word under which this pass is counted."""
        self._conflicts.pop(key, None)
        match result:
            case Done():
                self._queue.forget(key)
            case RequeueAfter(seconds=seconds, why=why, priority=priority):
                self._queue.forget(key)
                _log.debug("looks again in %.3g s: %s", seconds, why)
                self._queue.add_after(key, self._spread(seconds, priority), priority)
            case WaitFor(at_most=at_most, why=why):
                self._queue.forget(key)
                _log.debug("waits for %s: %s", ", ".join(sorted(result.facts)), why)
                self._queue.add_after(key, at_most, self._queue.priority_of(key))
                self._register(key, result.facts)
            case Failed():
                self._settle_failure(key, result)
                return result.kind.value
            case _:
                raise TypeError(f"a reconciler returned {result!r}, which is no Result")
        return type(result).__name__

    def _settle_failure(self, key: Key, failed: Failed) -> None:
        level = logging.ERROR if failed.kind is FailureKind.BUG else logging.INFO
        _log.log(level, "%s: %s", failed.kind.value, failed.message)
        self._register(key, failed.facts)
        steady = {FailureKind.WAIT_FOR_USER: _USER_SECONDS, FailureKind.WAIT_FOR_HOST: _HOST_SECONDS}
        after = failed.retry_after if failed.retry_after is not None else steady.get(failed.kind)
        if after is None:
            self._queue.retry(key)
            return
        self._queue.add_after(key, self._spread(after, Priority.PERIODIC), self._queue.priority_of(key))

    def _recover(self, key: Key, error: Exception) -> str:
        """What to do about an exception; the word under which this pass is counted."""
        match error:
            case errors.Conflict():
                _log.debug("changed meanwhile: %s", error)
                self._queue.add_after(key, self._after_conflict(key), self._queue.priority_of(key))
            case errors.TooManyRequests(retry_after=seconds):
                _log.info("the API server asks for %.3g s of patience", seconds)
                self._queue.add_after(key, seconds + self._rng.uniform(0.0, 1.0), self._queue.priority_of(key))
            case errors.NotFound() | errors.ServerUnavailable():
                _log.warning("%s; tries again in %.3g s", error, self._queue.retry(key))
            case DeadlinePassed():
                metrics.reconcile_deadlines.labels(key.kind).inc()
                _log.error("%s; tries again in %.3g s", error, self._queue.retry(key))
            case _:
                _log.error("a bug: %s", error, exc_info=error)
                self._queue.retry(key)
                return FailureKind.BUG.value
        return type(error).__name__

    def _register(self, key: Key, facts: frozenset[str]) -> None:
        """Waits for facts; one that was announced while this pass ran may have come after it looked."""
        if self._waits.wait(key, facts):
            self._queue.add(key, self._queue.priority_of(key))

    def _after_conflict(self, key: Key) -> float:
        """Seconds: nearly at once, and longer with every conflict in a row, so that the watch can catch up."""
        count = min(self._conflicts.get(key, 0) + 1, _CONFLICTS_COUNTED)
        self._conflicts[key] = count
        return count * self._rng.uniform(*_CONFLICT_SECONDS)

    def _spread(self, seconds: float, priority: Priority) -> float:
        """Periodic looks drift apart by up to a tenth, so that what began together does not stay together."""
        return seconds * self._rng.uniform(1.0, 1.1) if priority is Priority.PERIODIC else seconds
