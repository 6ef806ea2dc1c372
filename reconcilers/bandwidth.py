"""How fast bytes may go onto a storage domain, shared by all that this process copies there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

STEP_SECONDS = 0.25
"""How long a wait goes by the rate that held at its beginning: a new rate holds for what runs already."""
BURST_SECONDS = 1.0
"""What was not used of the last second may be used now."""


class Bandwidth:
    """The share of one storage domain; those who take wait in a row."""

    def __init__(self, rate: Callable[[], int]) -> None:
        """rate: bytes a second that hold now, 0 for no limit."""
        self._rate = rate
        self._lock = asyncio.Lock()
        self._due = float("-inf")

    @property
    def rate(self) -> int:
        """Bytes a second now; 0: no limit."""
        return self._rate()

    async def take(self, count: int) -> None:
        """Wait until count bytes may go."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            while count > 0:
                rate = self._rate()
                if rate <= 0:
                    return
                part = min(count, max(1, int(rate * STEP_SECONDS)))
                count -= part
                self._due = max(self._due, loop.time() - BURST_SECONDS) + part / rate
                await asyncio.sleep(max(0.0, self._due - loop.time()))
