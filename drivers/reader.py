"""Reading domains anew after events: once per domain at a time, and again until it worked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from drivers.errors import HypervisorError

RETRY_SECONDS = 2.0


class Reader:
    """Coalesces requests to read a domain."""

    def __init__(self, read: Callable[[str], Awaitable[object]], changed: Callable[[], None]) -> None:
        """read: read one domain and keep the answer; raises HypervisorError. changed: called when `behind` may have."""
        self._read = read
        self._changed = changed
        self._failed: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    @property
    def behind(self) -> bool:
        """Whether a domain is known to have changed and could not be read since."""
        return bool(self._failed)

    def request(self, uuid: str) -> None:
        """Read this domain soon; a reading under way is followed by one more."""
        if uuid in self._tasks:
            self._again.add(uuid)
            return
        self._tasks[uuid] = asyncio.get_running_loop().create_task(self._until_read(uuid))

    def reset(self) -> None:
        """Forget all requests: a complete list is about to be made."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._failed.clear()
        self._again.clear()

    async def _until_read(self, uuid: str) -> None:
        while True:
            self._again.discard(uuid)
            try:
                await self._read(uuid)
            except HypervisorError:
                self._failed.add(uuid)
                self._changed()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if uuid in self._failed:
                self._failed.discard(uuid)
                self._changed()
            if uuid not in self._again:
                del self._tasks[uuid]
                return
