"""Scans of directories, shared by those who ask for them at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from drivers.model import FileNames
from drivers.xmlread import clean_path


@dataclass
class _Scan:
    """The last scan of one directory, or the one under way."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    begun: float = float("-inf")
    names: FileNames = field(default_factory=FileNames)


class Scans:
    """The last scan of each directory of one host."""

    def __init__(self) -> None:
        self._scans: dict[str, _Scan] = {}

    async def get(self, pool: str, max_age: float, scan: Callable[[], Awaitable[FileNames]]) -> FileNames:
        """What a scan that began no longer than max_age seconds ago saw; callers that wait for one share the next."""
        loop = asyncio.get_running_loop()
        wanted = loop.time() - max_age
        last = self._scans.setdefault(clean_path(pool), _Scan())
        async with last.lock:
            if last.begun < wanted:
                begun = loop.time()
                last.names = (await scan()).after(last.names)
                last.begun = begun
            return last.names

    def forget(self, pool: str | None = None) -> None:
        """Take no scan from before now for an answer, of this directory or of any."""
        for path, scan in self._scans.items():
            if pool is None or path == clean_path(pool):
                scan.begun = float("-inf")
