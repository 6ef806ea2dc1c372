"""One call to a guest at a time: its QEMU serves one after the other anyway, and here waiting costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from drivers.errors import HostTimeout


class Turns:
    """The turns of one host's guests."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, what: str, uuid: str, deadline: float) -> AsyncIterator[None]:
        """Wait for this guest's turn, for at most deadline seconds. Raises HostTimeout."""
        turn = self._locks.setdefault(uuid, asyncio.Lock())
        try:
            async with asyncio.timeout(deadline):
                await turn.acquire()
        except TimeoutError as error:
            raise HostTimeout(f"{what}: another call to this guest hangs; it was not sent") from error
        try:
            yield
        finally:
            turn.release()
