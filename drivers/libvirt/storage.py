"""Storage of one host: coalesced scans, and bytes streamed in and out with bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import libvirt

from drivers.deadlines import CHUNK_SECONDS, COPY_SECONDS, CREATE_SECONDS, SCAN_SECONDS
from drivers.errors import HypervisorError, Refused
from drivers.libvirt import pools
from drivers.libvirt.channel import Borrowed, Channel
from drivers.model import FileNames, PoolInfo, Volume
from drivers.scans import Scans

T = TypeVar("T")

SMALL = 4 * 2**20
"""Bytes up to which a transfer (a marker, a record, a header, a seed) waits for no copy and no image."""


class Channels(Protocol):
    """Where a host's storage calls go."""

    @property
    def slow(self) -> Channel:
        """The slow channel. Raises NotConnected."""

    @property
    def transfer(self) -> Channel:
        """The channel of copies and streams. Raises NotConnected."""


class Storage:
    """The storage half of the hypervisor contract; `in_use` tells whether a running domain may write the file of a
    path.
    """

    def __init__(self, channels: Channels, in_use: Callable[[str], bool]) -> None:
        self._channels = channels
        self._in_use = in_use
        self._scans = Scans()

    def forget(self) -> None:
        """Take no scan from before now for an answer."""
        self._scans.forget()

    async def ensure_pool(self, xml: str) -> PoolInfo:
        """See Hypervisor."""
        return await self._channels.slow.call("ensure_pool", pools.ensure_pool, SCAN_SECONDS, xml)

    async def pool_info(self, pool: str) -> PoolInfo:
        """See Hypervisor."""
        return await self._channels.slow.call("pool_info", pools.pool_info, SCAN_SECONDS, pool)

    async def volume_names(self, pool: str, max_age: float) -> FileNames:
        """See Hypervisor."""

        async def scan() -> FileNames:
            return await self._channels.slow.call("volume_names", pools.volume_names, SCAN_SECONDS, pool)

        return await self._scans.get(pool, max_age, scan)

    async def volume(self, pool: str, name: str) -> Volume | None:
        """See Hypervisor."""
        return await self._channels.slow.call("volume", pools.volume_now, SCAN_SECONDS, pool, name)

    async def create_volume(self, pool: str, xml: str) -> Volume:
        """See Hypervisor."""
        channel = self._channels.slow
        return await self._changing(pool, channel.call("create_volume", pools.create_volume, CREATE_SECONDS, pool, xml))

    async def copy_volume(self, pool: str, xml: str, source: str) -> Volume:
        """See Hypervisor."""
        channel = self._channels.transfer
        call = channel.call("copy_volume", pools.copy_volume, COPY_SECONDS, pool, xml, source)
        return await self._changing(pool, call)

    async def resize_volume(self, pool: str, name: str, size: int) -> None:
        """See Hypervisor."""
        channel = self._channels.slow
        await self._refuse_in_use(channel, pool, name)
        call = channel.call("resize_volume", pools.resize_volume, CREATE_SECONDS, pool, name, size)
        await self._changing(pool, call)

    async def delete_volume(self, pool: str, name: str) -> None:
        """See Hypervisor."""
        channel = self._channels.slow
        await self._refuse_in_use(channel, pool, name)
        await self._changing(pool, channel.call("delete_volume", pools.delete_volume, CREATE_SECONDS, pool, name))

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], size: int, offset: int) -> None:
        """See Hypervisor. Holds one chunk of data in memory at a time."""
        async with self._way(size).borrow("upload", CHUNK_SECONDS) as way:
            upload = await way.call("upload", pools.open_upload, CHUNK_SECONDS, pool, name, size, offset)
            sent = 0
            try:
                async for chunk in data:
                    sent += len(chunk)
                    if sent > size:
                        raise Refused(f"upload of {name}: more than the {size} bytes announced", reason="SizeMismatch")
                    await way.call("upload", pools.send, CHUNK_SECONDS, upload, chunk)
                if sent != size:
                    raise Refused(f"upload of {name}: {sent} of {size} bytes", reason="SizeMismatch")
                await way.call("upload", pools.finish, CHUNK_SECONDS, upload.stream)
            except BaseException:
                await self._abort(way, upload.stream)
                raise
            finally:
                self._scans.forget(pool)

    async def download(self, pool: str, name: str, limit: int | None, offset: int) -> AsyncIterator[bytes]:
        """See Hypervisor."""
        if limit == 0:
            return
        async with self._way(limit).borrow("download", CHUNK_SECONDS) as way:
            stream = await way.call("download", pools.open_download, CHUNK_SECONDS, pool, name, limit, offset)
            ended = False
            try:
                while chunk := await way.call("download", pools.receive, CHUNK_SECONDS, stream):
                    yield chunk
                await way.call("download", pools.finish, CHUNK_SECONDS, stream)
                ended = True
            finally:
                if not ended:
                    await self._abort(way, stream)

    def _way(self, size: int | None) -> Channel:
        """The channel for a transfer of that many bytes (None: who knows how many)."""
        return self._channels.slow if size is not None and size <= SMALL else self._channels.transfer

    async def _changing(self, pool: str, call: Awaitable[T]) -> T:
        try:
            return await call
        finally:
            # Also after a failure: it may have left something, or taken it away.
            self._scans.forget(pool)

    async def _refuse_in_use(self, channel: Channel, pool: str, name: str) -> None:
        path = await channel.call("volume_path", pools.volume_path, SCAN_SECONDS, pool, name)
        if path is not None and self._in_use(path):
            raise Refused(f"{path} belongs to a running domain", reason="VolumeInUse")

    @staticmethod
    async def _abort(way: Borrowed, stream: libvirt.virStream) -> None:
        try:
            await way.call("abort", pools.abort, CHUNK_SECONDS, stream)
        except HypervisorError:
            # The stream is gone with its connection, which is what was wanted.
            return
