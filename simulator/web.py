"""A web server in memory, spoken to by the controller's own HTTP client over a connection that is no socket.

What it sends comes in parts, at a pace and with cuts that hang on the seed, to a controller that still runs.
"""

from __future__ import annotations

import asyncio
import random
import re
from contextvars import Context
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from simulator.loop import SCOPE, Scope

HOST = "images.example.org"
PARTS = 4
"""In which an answer comes."""
SLOWEST = 8.0
"""Seconds that an answer takes at most."""
CUT = 0.2
"""Share of the answers that break off in the middle."""


class WebServer:
    """Serves files by path; it knows ranges and validators."""

    def __init__(self, rng: random.Random) -> None:
        """It has no files yet."""
        self.files: dict[str, bytes] = {}
        self._rng = rng

    def connector(self) -> aiohttp.BaseConnector:
        """The way to it, for one session of a controller."""
        return _Connector(self)

    def answer(self, request: str) -> tuple[bytes, float]:
        """To the head of one request: the bytes of the answer, and how long they take."""
        path = request.split(" ", 2)[1]
        body = self.files.get(path)
        if body is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 0.01
        asked = re.search(r"^Range: bytes=(\d+)-\r$", request, re.MULTILINE)
        first = int(asked[1]) if asked is not None else 0
        head = [f"Content-Length: {len(body) - first}", 'ETag: "1"', "Connection: close", "", ""]
        if first:
            head.insert(0, f"Content-Range: bytes {first}-{len(body) - 1}/{len(body)}")
        status = "206 Partial Content" if first else "200 OK"
        whole = "\r\n".join([f"HTTP/1.1 {status}", *head]).encode() + body[first:]
        cut = self._rng.random() < CUT
        return whole[: self._rng.randrange(len(whole) // 2, len(whole))] if cut else whole, self._rng.uniform(
            0.05, SLOWEST
        )


class _Connector(aiohttp.BaseConnector):
    """Makes connections to one server in memory, whatever the address."""

    def __init__(self, server: WebServer) -> None:
        super().__init__(force_close=True)
        self._server = server

    async def _create_connection(self, *_: Any) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        protocol = ResponseHandler(loop)
        protocol.connection_made(_Connection(self._server, protocol, SCOPE.get()))
        return protocol


class _Connection(asyncio.Transport):
    """One connection as the client has it: what it writes is the request, and the answer comes as time passes."""

    def __init__(self, server: WebServer, protocol: ResponseHandler, scope: Scope | None) -> None:
        super().__init__()
        self._server, self._protocol, self._scope = server, protocol, scope
        self._request = b""
        self._closed = False

    def write(self, data: Any) -> None:
        """See asyncio.WriteTransport."""
        self._request += bytes(data)
        if self._request.endswith(b"\r\n\r\n"):
            whole, seconds = self._server.answer(self._request.decode())
            self._request = b""
            size = -(-len(whole) // PARTS)
            for number in range(PARTS):
                part = whole[number * size : (number + 1) * size]
                self._later(seconds * (number + 1) / PARTS, partial(self._receive, part))
            self._later(seconds + 0.001, self._end)

    def writelines(self, list_of_data: Any) -> None:
        """See asyncio.WriteTransport."""
        self.write(b"".join(list_of_data))

    def _later(self, seconds: float, call: Any) -> None:
        enter = call if self._scope is None else partial(self._scope.enter, call)
        asyncio.get_running_loop().call_later(seconds, enter, context=Context())

    def _receive(self, part: bytes) -> None:
        if not self._closed and part:
            self._protocol.data_received(part)

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._protocol.connection_lost(None)

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        self._later(0.0, self._end)

    def abort(self) -> None:
        """See asyncio.WriteTransport."""
        self._end()

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._closed

    def pause_reading(self) -> None:
        """See asyncio.ReadTransport: what comes is kept, however much."""

    def resume_reading(self) -> None:
        """See asyncio.ReadTransport."""
