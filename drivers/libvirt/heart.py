"""The heartbeat of a host: a cheap call to its daemon, on a connection of its own, with a deadline of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import libvirt

from drivers.deadlines import MISSES
from drivers.errors import HypervisorError
from drivers.libvirt.channel import Channel

FIRST_SECONDS = 15.0
"""Deadline of the heartbeat that is part of connecting: a daemon that has just started is slow and not suspect."""


class Heart:
    """Asks a daemon for its version, for ever."""

    def __init__(self, channel: Channel, interval: float, changed: Callable[[], None]) -> None:
        """changed: called when `beating` may have changed."""
        self._channel = channel
        self._interval = interval
        self._changed = changed
        self._misses = 0
        self._task: asyncio.Task[None] | None = None
        self.last_seen: float | None = None

    @property
    def beating(self) -> bool:
        """Whether the last heartbeats were answered."""
        return self.last_seen is not None and self._misses < MISSES

    @property
    def in_time(self) -> bool:
        """Whether an answer is recent: also false right after this process itself stood still."""
        return self.last_seen is not None and time.monotonic() - self.last_seen <= MISSES * self._interval + 1

    async def start(self) -> None:
        """Have a heartbeat answered now, and go on from there. Raises HypervisorError."""
        await self._channel.open("connect", FIRST_SECONDS)
        await self._beat(FIRST_SECONDS)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """No more heartbeats."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._channel.close()

    async def _run(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                await self._beat(self._interval)
            except HypervisorError:
                self._misses += 1
            self._changed()
            await asyncio.sleep(max(0.1, self._interval - (time.monotonic() - begun)))

    async def _beat(self, deadline: float) -> None:
        await self._channel.call("heartbeat", libvirt.virConnect.getLibVersion, deadline)
        self._misses = 0
        self.last_seen = time.monotonic()
