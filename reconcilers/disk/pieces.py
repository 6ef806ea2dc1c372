"""Bytes on their way to a host, held in memory for as short as pays: joined to pieces, cut into chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from reconcilers.bandwidth import Bandwidth
from reconcilers.disk.image import HEADER_BYTES

CHUNK = 256 * 1024
PIECE = 8 * 2**20
"""Bytes that are held in memory and written at once: every piece costs a few calls of the host."""
FLUSH_SECONDS = 1.0
"""What has come in that time is written, so that it is neither lost nor unseen."""


async def gather(chunks: AsyncIterator[bytes]) -> bytes:
    """The first HEADER_BYTES and what came with them; all of it, if it is shorter."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) >= HEADER_BYTES:
            break
    return bytes(head)


async def pieces(head: bytes, chunks: AsyncIterator[bytes], share: Bandwidth) -> AsyncIterator[bytes]:
    """What head and chunks hold, in pieces. Where chunks fails, what came before is given first."""
    clock = asyncio.get_running_loop().time
    waiting, begun = bytearray(head), clock()
    try:
        async for chunk in chunks:
            waiting += chunk
            # Where bytes are rationed a piece is what may go in a second: progress shows, and the server hears of us.
            most = min(PIECE, max(CHUNK, share.rate)) if share.rate else PIECE
            if len(waiting) >= most or clock() - begun >= FLUSH_SECONDS:
                yield bytes(waiting)
                waiting.clear()
                begun = clock()
    except Exception:
        if waiting:
            yield bytes(waiting)
        raise
    if waiting:
        yield bytes(waiting)


async def sliced(piece: bytes) -> AsyncIterator[bytes]:
    """A piece in chunks: one that is all zeros can become a hole."""
    for start in range(0, len(piece), CHUNK):
        yield piece[start : start + CHUNK]
