"""Downloading an image onto a host: asked for again, from where it was cut off, for as long as that gets it further."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from reconcilers.bandwidth import Bandwidth
from reconcilers.disk.image import HEADER_BYTES, too_large
from reconcilers.disk.pieces import gather, pieces
from reconcilers.disk.staging import Staged
from reconcilers.disk.webfile import DownloadFailed, Interrupted, Misplaced, Version, ask, opened, shown
from reconcilers.jobs import Job

TRIES = 5
"""How often in a row a connection may bring the download no further."""
FURTHER = 65536
"""Bytes that count as further."""
WAIT_SECONDS = 1.0
"""Before the second try; twice as long before each other one."""
Connector = Callable[[], aiohttp.BaseConnector | None]
Admit = Callable[[bytes, Version], Awaitable[tuple[str, int]]]
"""Given the first HEADER_BYTES (or all of it): the name of the file to write to and the most bytes to write.

Raises BadImage, StorageFull.
"""


@dataclass
class Download:
    """One image on its way from a web server into a staged file."""

    url: str
    staged: Staged
    share: Bandwidth
    admit: Admit
    job: Job
    connector: Connector = lambda: None
    """How web servers are reached."""
    received: int = 0
    """Bytes that came."""
    interruptions: int = 0
    limit: int = 0
    """The most bytes that are written, where the server does not say how many there are."""

    async def run(self) -> None:
        """Have all of it in the staged file. Raises DownloadFailed, BadImage, HypervisorError."""
        failures, highest = 0, self.staged.offset
        if self._complete():
            return
        async with opened(self.connector()) as session:
            while True:
                try:
                    async with ask(session, self.url, self.staged.offset, self.staged.version) as answer:
                        await self._receive(answer.version, answer.offset, answer.chunks)
                    if self._complete() or self.staged.version.total is None:
                        await self.staged.note()
                        return
                    raise Interrupted("the server ended before the end of the file")
                except Interrupted as error:
                    if isinstance(error, Misplaced):
                        self.staged.version = Version()
                    further = self.staged.offset >= highest + FURTHER
                    failures, highest = 0 if further else failures + 1, max(highest, self.staged.offset)
                    if failures >= TRIES or not highest:
                        raise DownloadFailed(self._given_up(error)) from error
                    self.interruptions += 1
                    await asyncio.sleep(max(error.after, WAIT_SECONDS * 2**failures))

    def _complete(self) -> bool:
        total = self.staged.version.total
        return total is not None and self.staged.offset == total > 0

    def _given_up(self, error: Interrupted) -> str:
        total = self.staged.version.total
        so_far = (
            f", {self.staged.offset}{f' of {total}' if total else ''} bytes are there" if self.staged.offset else ""
        )
        return f"the image could not be downloaded from {shown(self.url)}: {error}{so_far}"

    async def _receive(self, version: Version, offset: int, chunks: AsyncIterator[bytes]) -> None:
        """Write what one connection brings; it begins at offset, which is where the file ends, or 0."""
        head = b""
        if offset == 0:
            head = await gather(chunks)
            name, self.limit = await self.admit(head[:HEADER_BYTES], version)
            await self.staged.begin(name, version)
        async for piece in pieces(head, chunks, self.share):
            total = self.staged.version.total
            end = self.staged.offset + len(piece)
            if total is not None and end > total:
                raise Misplaced(f"the server sent more than the {total} bytes that it announced")
            if total is None and end > self.limit:
                raise too_large(self.limit)
            await self.staged.append(piece)
            self.received += len(piece)
            self.job.advance(self.staged.offset)
