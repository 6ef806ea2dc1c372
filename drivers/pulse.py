"""When a host last answered its heartbeat, and how many it missed since."""

from __future__ import annotations

import asyncio

from drivers.deadlines import MISSES


class Pulse:
    """What every driver's heartbeat keeps count of."""

    def __init__(self, interval: float) -> None:
        """interval: seconds between two heartbeats. Must be made within a running event loop, whose time it keeps."""
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._misses = 0
        self.last_seen: float | None = None

    @property
    def beating(self) -> bool:
        """Whether the last heartbeats were answered."""
        return self.last_seen is not None and self._misses < MISSES

    @property
    def in_time(self) -> bool:
        """Whether an answer is recent: also false right after this process itself stood still."""
        return self.last_seen is not None and self._loop.time() - self.last_seen <= MISSES * self._interval + 1

    def _seen(self) -> None:
        self._misses = 0
        self.last_seen = self._loop.time()

    def _missed(self) -> None:
        self._misses += 1
