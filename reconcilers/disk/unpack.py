"""Unpacking compressed images, in bounded memory: what comes in is given in chunks, what comes out is asked for."""

from __future__ import annotations

import asyncio
import lzma
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

import zstandard

from reconcilers.disk.image import BadImage, Compression

OUT = 2**20
"""Bytes that are unpacked at once."""
_XZ_MEMORY = 256 * 2**20
"""`xz -9` needs 65 MiB to unpack."""
_ZSTD_WINDOW = 128 * 2**20
"""What `zstd` takes without --long."""
_ZSTD_SLICE = 1024
"""zstd unpacks whatever it is given: four bytes can be 128 KiB, and a slice then is 32 MiB."""

_ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError)


class _Stream(Protocol):
    """One compressed stream; a file may hold several, one after the other."""

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""

    @property
    def rest(self) -> bytes:
        """What came in behind its end."""

    @property
    def hungry(self) -> bool:
        """Whether it gives nothing more without more data."""

    def read(self, data: bytes) -> bytes:
        """Take data in (nothing: go on with what came before) and return at most OUT bytes, or a slice's worth."""


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._full = False

    def read(self, data: bytes) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, OUT)
        self._full = len(out) == OUT
        return out

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail and not self._full

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Xz:
    def __init__(self) -> None:
        self._inner = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def read(self, data: bytes) -> bytes:
        return self._inner.decompress(data, OUT)

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._waiting = b""

    def read(self, data: bytes) -> bytes:
        self._waiting += data
        part, self._waiting = self._waiting[:_ZSTD_SLICE], self._waiting[_ZSTD_SLICE:]
        return self._inner.decompress(part)

    @property
    def hungry(self) -> bool:
        return not self._waiting

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data + self._waiting


_STREAMS: dict[Compression, type[_Gzip | _Xz | _Zstd]] = {
    Compression.GZIP: _Gzip,
    Compression.XZ: _Xz,
    Compression.ZSTD: _Zstd,
}


class Unpacker:
    """Unpacks one file. Raises BadImage for what is damaged."""

    def __init__(self, compression: Compression) -> None:
        self._kind = compression
        self._waiting = b""
        self._stream: _Stream | None = None
        self._behind = False
        """Whether a whole stream has come: zeros may fill up what follows it."""

    def give(self, data: bytes) -> None:
        """Take the next bytes of the file in."""
        self._waiting += data

    def take(self) -> bytes:
        """Some of what it unpacks to; empty: it needs more."""
        while True:
            if self._stream is None:
                self._waiting = self._waiting.lstrip(b"\0") if self._behind else self._waiting
                if not self._waiting:
                    return b""
                self._stream = _STREAMS[self._kind]()
            data, self._waiting = self._waiting, b""
            try:
                out = self._stream.read(data)
            except _ERRORS as error:
                raise BadImage(
                    "DamagedImage", f"the image cannot be unpacked as {self._kind.value}: {error}"
                ) from error
            hungry = self._stream.hungry
            if self._stream.ended:
                self._waiting, self._stream, self._behind, hungry = self._stream.rest, None, True, False
            if out or hungry:
                return out

    def finish(self) -> None:
        """Raise BadImage unless the last stream has come to its end."""
        if self._stream is not None or not self._behind:
            raise BadImage("DamagedImage", f"the image is cut off: its {self._kind.value} stream does not end")


async def unpacked(chunks: AsyncIterator[bytes], compression: Compression) -> AsyncIterator[bytes]:
    """What the chunks of a file unpack to; in a thread, since that takes its time."""
    unpacker = Unpacker(compression)
    async for chunk in chunks:
        unpacker.give(chunk)
        while out := await asyncio.to_thread(unpacker.take):
            yield out
    unpacker.finish()
