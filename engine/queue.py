"""The keyed queue: every reconcile begins by taking a key out of it.

It coalesces (a key waits once, however often it is added), it is exclusive (a key is with one worker at a time; what
is added meanwhile is handed out again afterwards), and it knows time (due times and back-off). One event loop only:
another thread reaches it by `loop.call_soon_threadsafe(queue.add, key)`.
"""

import asyncio
import functools
import heapq
import random
from collections.abc import Callable

from engine import metrics
from engine.clock import Clock
from engine.errors import QueueClosed
from engine.keys import Key
from engine.ready import Group, Priority, ReadyList, Waiting

__all__ = ["KeyedQueue", "Priority"]


def _no_group(key: Key) -> Group:
    return None


class KeyedQueue:
    """Who is worked on, when, and by how many at once.

    `group_of` names the group that a key takes turns in (its host), None for no limit; it is asked at every add, so
    a key that moved changes its group. `group_limit` 0 means none; see `ready.ReadyList` for the order.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        group_of: Callable[[Key], Group] | None = None,
        group_limit: int = 0,
        base_delay: float = 0.5,
        max_delay: float = 60.0,
        patience: float = 30.0,
        share: int = 8,
        rng: random.Random | None = None,
    ) -> None:
        """`base_delay`, `max_delay`: back-off in seconds. `patience`, `share`: as in ReadyList."""
        self._clock = clock
        self._group_of = group_of if group_of is not None else _no_group
        self._ready = ReadyList(group_limit=group_limit, patience=patience, share=share)
        self._in_work: dict[Key, Waiting] = {}
        self._again: dict[Key, Priority] = {}
        self._due: dict[Key, tuple[float, Priority]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._pushes = 0
        self._failures: dict[Key, int] = {}
        self._base_delay, self._max_delay = base_delay, max_delay
        self._rng = rng if rng is not None else random.Random()  # noqa: S311 - spreads load, guards nothing
        self._sleepers: dict[Priority, dict[asyncio.Future[None], None]] = {}  # by lane, in the order of their coming
        self._alarm: tuple[float, asyncio.TimerHandle] | None = None
        self._closed = False

    def add(self, key: Key, priority: Priority = Priority.USER) -> None:
        """Asks for a reconcile that begins after this call; never fails and never waits."""
        self._put(key, priority)
        self._pass_on()

    def add_after(self, key: Key, delay: float, priority: Priority = Priority.PERIODIC) -> None:
        """Adds the key in `delay` seconds; of several due times the earliest stays, with the highest priority."""
        if delay <= 0:
            self.add(key, priority)
            return
        due = self._clock.monotonic() + delay
        held = self._due.get(key)
        if held is not None:
            priority = min(priority, held[1])
            due = min(due, held[0])
        self._due[key] = (due, priority)
        if held is None or due < held[0]:
            self._pushes += 1
            heapq.heappush(self._heap, (due, self._pushes, key))
            self._set_alarm()

    async def get(self, lowest: Priority = Priority.PERIODIC) -> Key:
        """The next key to work on, waiting for one; `done` must follow. QueueClosed after `close`.

        A worker that asks for `lowest=URGENT` is a reserve: it is never busy with anything else.
        """
        while True:
            if self._closed:
                raise QueueClosed("the queue is closed")
            key = self.take(lowest)
            self._pass_on()
            if key is not None:
                return key
            await self._sleep(lowest)

    def take(self, lowest: Priority = Priority.PERIODIC) -> Key | None:
        """As `get`, but None when nothing may be handed out now."""
        now = self._clock.monotonic()
        self._promote(now)
        entry = self._ready.take(now, lowest)
        if entry is None:
            return None
        self._in_work[entry.key] = entry
        return entry.key

    def done(self, key: Key) -> None:
        """The work on this key has ended, however it went; what was added meanwhile is due now."""
        self._ready.release(self._in_work.pop(key))
        again = self._again.pop(key, None)
        if again is not None:
            self._put(key, again)
        self._pass_on()

    def retry(self, key: Key) -> float:
        """Adds the key after its back-off, with the priority it was handed out with; the delay, in seconds.

        Full jitter: anything from 0 to the bound, which doubles with every retry from `base_delay` to `max_delay`.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        bound = min(self._max_delay, self._base_delay * 2.0 ** min(failures, 32))
        delay = self._rng.uniform(0.0, bound)
        metrics.queue_retries.labels(key.kind).inc()
        self.add_after(key, delay, self.priority_of(key))
        return delay

    def forget(self, key: Key) -> None:
        """It went well: the next back-off begins small again."""
        self._failures.pop(key, None)

    def priority_of(self, key: Key) -> Priority:
        """The priority with which a key that is in work was handed out; USER for one that is not."""
        entry = self._in_work.get(key)
        return entry.priority if entry is not None else Priority.USER

    def close(self) -> None:
        """Hands out nothing more; whoever waits in `get` gets QueueClosed. Adding stays harmless."""
        self._closed = True
        if self._alarm is not None:
            self._alarm[1].cancel()
        for lane in self._sleepers.values():
            for sleeper in lane:
                if not sleeper.done():
                    sleeper.set_result(None)

    def depth(self, priority: Priority | None = None) -> int:
        """How many keys wait, of one priority or of all; those in work and those with a due time do not count."""
        chosen = Priority if priority is None else (priority,)
        return sum(self._ready.depth(each) for each in chosen)

    def in_work(self) -> int:
        return len(self._in_work)

    def scheduled(self) -> int:
        """How many keys have a due time in the future."""
        return len(self._due)

    def oldest_age(self) -> float:
        """Seconds that the longest-waiting key has waited; 0 when none waits."""
        since = min((entry.since for entry in self._ready), default=None)
        return 0.0 if since is None else self._clock.monotonic() - since

    def export_metrics(self) -> None:
        """Binds the process's queue gauges to this queue; they are read when they are scraped."""
        for priority in Priority:
            metrics.queue_depth.labels(priority.name).set_function(functools.partial(self.depth, priority))
        metrics.queue_in_work.set_function(self.in_work)
        metrics.queue_scheduled.set_function(self.scheduled)
        metrics.queue_oldest_seconds.set_function(self.oldest_age)

    def _put(self, key: Key, priority: Priority) -> None:
        if key in self._in_work:
            self._again[key] = min(priority, self._again.get(key, priority))
        elif self._ready.put(key, priority, self._group_of(key), self._clock.monotonic()):
            metrics.queue_adds.labels(key.kind, priority.name).inc()

    def _promote(self, now: float) -> None:
        """Moves what has come due into the ready list; heap entries that an earlier due time replaced are skipped."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            held = self._due.get(key)
            if held is not None and held[0] == due:
                del self._due[key]
                self._put(key, held[1])

    def _next_due(self) -> float | None:
        while self._heap:
            due, _, key = self._heap[0]
            held = self._due.get(key)
            if held is not None and held[0] == due:
                return due
            heapq.heappop(self._heap)
        return None

    async def _sleep(self, lowest: Priority) -> None:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane = self._sleepers.setdefault(lowest, {})
        lane[sleeper] = None
        self._set_alarm()
        try:
            await sleeper
        except asyncio.CancelledError:
            lane.pop(sleeper, None)
            self._pass_on()  # it may have been woken just before
            raise

    def _pass_on(self) -> None:
        """Wake one that sleeps, if there is something for it. It does the same in turn when it has taken: so all wake
        that have work, and nobody else.
        """
        for lowest in sorted(self._sleepers):  # a reserve first, so that the others stay free for what it may not take
            lane = self._sleepers[lowest]
            while lane and self._ready.offers(lowest):
                sleeper = next(iter(lane))
                del lane[sleeper]
                if not sleeper.done():
                    sleeper.set_result(None)
                    return

    def _set_alarm(self) -> None:
        """One timer for all that sleep, at the first due time."""
        sleeper = next((sleeper for lane in self._sleepers.values() for sleeper in lane), None)
        due = self._next_due()
        if sleeper is None or due is None or self._closed:
            return
        if self._alarm is not None:
            if self._alarm[0] <= due:
                return
            self._alarm[1].cancel()
        # A hair late rather than a hair early: the loop's timers may fire within its clock's resolution.
        delay = max(0.0, due - self._clock.monotonic()) + 0.001
        self._alarm = due, sleeper.get_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._promote(self._clock.monotonic())
        self._pass_on()
        self._set_alarm()
