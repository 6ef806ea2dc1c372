"""The heartbeat of a host: a cheap call to its daemon, on a connection of its own, with a deadline of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import libvirt

from drivers.errors import HypervisorError
from drivers.libvirt.channel import Channel
from drivers.pulse import Pulse

FIRST_SECONDS = 15.0
"""Deadline of the heartbeat that is part of connecting: a daemon that has just started is slow and not suspect."""


class Heart(Pulse):
    """Asks a daemon for its version, for ever."""

    def __init__(self, channel: Channel, interval: float, changed: Callable[[], None]) -> None:
        """changed: called when `beating` may have changed."""
        super().__init__(interval)
        self._channel = channel
        self._changed = changed
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have a heartbeat answered now, and go on from there. Raises HypervisorError."""
        await self._channel.open("connect", FIRST_SECONDS)
        await self._beat(FIRST_SECONDS)
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """No more heartbeats."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._channel.close()

    async def _run(self) -> None:
        while True:
            begun = self._loop.time()
            try:
                await self._beat(self._interval)
            except HypervisorError:
                self._missed()
            self._changed()
            await asyncio.sleep(max(0.1, self._interval - (self._loop.time() - begun)))

    async def _beat(self, deadline: float) -> None:
        await self._channel.call("heartbeat", libvirt.virConnect.getLibVersion, deadline)
        self._seen()
