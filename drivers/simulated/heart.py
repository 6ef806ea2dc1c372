"""The heartbeat of a simulated host: one timer, no task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drivers import deadlines
from drivers.errors import HypervisorError
from drivers.pulse import Pulse
from drivers.simulated.daemon import Daemon
from drivers.simulated.wire import Connection

_SILENT_SECONDS = deadlines.KEEPALIVE_INTERVAL * (deadlines.KEEPALIVE_COUNT + 1)


class Heart(Pulse):
    """Asks a daemon for nothing, again and again; finds its connection broken when it is silent for too long."""

    def __init__(
        self, interval: float, connection: Callable[[], Connection | None], changed: Callable[[], None]
    ) -> None:
        """connection: the one that there is now; changed: called when `beating` or `in_time` may have changed."""
        super().__init__(interval)
        self._connection = connection
        self._changed = changed
        self._answered = True
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """A heartbeat was answered now: go on from there."""
        self._seen()
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._beat)

    def stop(self) -> None:
        """No more heartbeats."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        """Once per interval: count a miss, and ask again."""
        self._timer = self._loop.call_later(self._interval, self._beat)
        connection = self._connection()
        if not self._answered or connection is None:
            self._missed()
        self._changed()
        if connection is None:
            return
        if self.last_seen is not None and self._loop.time() - self.last_seen > _SILENT_SECONDS:
            connection.broken()
            return
        self._answered = False
        connection.call("heartbeat", nothing, self._heard)

    def _heard(self, result: object, error: HypervisorError | None) -> None:
        del result
        if error is None:
            self._seen()
            self._changed()

    def _seen(self) -> None:
        super()._seen()
        self._answered = True


def nothing(daemon: Daemon) -> None:
    """What a heartbeat does on the host."""
    del daemon
