"""Time as a thing that is handed in, so that tests can own it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Two kinds of time, never mixed: `monotonic` for what is measured, `now` for what people read."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back, whatever happens to the wall clock."""
        ...

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)


class BootClock(SystemClock):
    """A clock for promises to other machines: it goes on while this one is suspended, which `monotonic` does not."""

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class LoopClock:
    """The running event loop's time, which a test's loop can make virtual; the wall clock moves along with it."""

    def __init__(self, epoch: datetime | None = None) -> None:
        """`epoch`: the wall clock at the moment of construction, for a test that wants to know it; default now."""
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._epoch = epoch if epoch is not None else datetime.now(UTC)

    def monotonic(self) -> float:
        return self._loop.time()

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=self._loop.time() - self._started)


def timestamp(moment: datetime) -> str:
    """`metav1.Time`: RFC 3339 in UTC, whole seconds, as in conditions."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime) -> str:
    """`metav1.MicroTime`: RFC 3339 in UTC with microseconds, as in Events and Leases."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
