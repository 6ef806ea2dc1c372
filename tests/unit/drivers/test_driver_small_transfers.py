"""A look at the storage waits for no copy: three copies, or six slow downloads, must not hide a marker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from drivers.libvirt import pools
from drivers.libvirt.storage import SMALL, Storage


class Way:
    async def call(self, what: str, function: Any, deadline: float, *args: Any) -> Any:
        if function is pools.open_upload:
            stream: Any = None
            return pools.Upload(stream, sparse=True)
        return b"" if function is pools.receive else None


class FakeChannel:
    def __init__(self) -> None:
        self.borrowed: list[str] = []

    @asynccontextmanager
    async def borrow(self, what: str, deadline: float) -> AsyncIterator[Way]:
        self.borrowed.append(what)
        yield Way()


class Channels:
    def __init__(self) -> None:
        self.slow: Any = FakeChannel()
        self.transfer: Any = FakeChannel()


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize(("limit", "small"), [(SMALL, True), (SMALL + 1, False), (None, False)])
async def test_what_is_read_to_look_at_the_storage_waits_for_no_copy(limit: int | None, *, small: bool) -> None:
    channels = Channels()
    storage = Storage(channels, lambda path: False)
    assert [chunk async for chunk in storage.download("/srv", "a", limit, 0)] == []
    assert (channels.slow.borrowed, channels.transfer.borrowed) == ((["download"], []) if small else ([], ["download"]))


@pytest.mark.parametrize("size", [1024, SMALL * 2])
async def test_a_record_is_written_while_images_come_in(size: int) -> None:
    channels = Channels()
    await Storage(channels, lambda path: False).upload("/srv", "a", once(bytes(size)), size, 0)
    assert bool(channels.slow.borrowed) is (size <= SMALL)
    assert bool(channels.transfer.borrowed) is (size > SMALL)
