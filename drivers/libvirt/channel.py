"""Connections to one host for one kind of calls, each call alone on its connection, with a deadline.

libvirt's documentation lets threads share a connection, but its client up to 10.3 then writes into a stack frame that
is gone (CVE-2024-4418, not repaired in Debian 12): with several calls under way on one connection, and one of them
woken by another thread, the process dies. Seen here within a minute of a hung daemon. A connection of its own for
each call that is under way avoids that, and the five requests that a daemon serves per connection never run out
either.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Concatenate, ParamSpec, TypeVar

import libvirt

from drivers.errors import ConnectFailed, HostUnavailable, HypervisorError, NotConnected
from drivers.libvirt.classify import classify
from drivers.libvirt.executor import Lane

P = ParamSpec("P")
T = TypeVar("T")

Observer = Callable[[str, float, str], None]
"""Called with (method, seconds, outcome) after each call; outcome is `ok` or the error's class."""

THREADS = 3
SPARE = 12
"""Calls that may hang, for example on frozen guests, before calls of this kind have to wait for them."""
STREAMS = 6
"""Connections that may be borrowed at once."""


class Channel:
    """Up to `threads` calls at once, each on a connection that is opened when none is free and kept for the next."""

    def __init__(
        self, name: str, connect: Callable[[], libvirt.virConnect], observe: Observer, *, threads: int = THREADS
    ) -> None:
        """connect: blocking, opens a connection or raises ConnectFailed. Nothing is opened yet."""
        self._connect = connect
        self._observe = observe
        self._lane = Lane(name, threads=threads, spare=SPARE)
        self._lock = threading.Lock()
        self._free: list[libvirt.virConnect] = []
        self._closed = False
        self._streams = asyncio.Semaphore(STREAMS)

    async def call(
        self,
        what: str,
        function: Callable[Concatenate[libvirt.virConnect, P], T],
        /,
        deadline: float,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run function(connection, ...) in a thread. Raises HypervisorError only."""

        def perform() -> T:
            connection = self._take(what)
            try:
                return function(connection, *args, **kwargs)
            except libvirt.libvirtError as error:
                raise classify(error, what) from error
            finally:
                self._give(connection)

        return await self._run(what, perform, deadline)

    @contextlib.asynccontextmanager
    async def borrow(self, what: str, deadline: float) -> AsyncIterator[Borrowed]:
        """One connection for calls that belong together, such as the chunks of an upload; others wait for one to be
        free.

        deadline: of taking it, the waiting not included.
        """
        async with self._streams:
            borrowed = Borrowed(self, await self._run(what, lambda: self._take(what), deadline))
            try:
                yield borrowed
            finally:
                borrowed.end()

    async def open(self, what: str, deadline: float) -> None:
        """Have a connection free. Raises ConnectFailed, unlike calls: they say NotConnected where none can be
        opened.
        """

        def perform() -> None:
            self._give(self._take_or_open())

        await self._run(what, perform, deadline)

    def drop(self) -> None:
        """Close the free connections; what is under way goes on."""
        with self._lock:
            free, self._free = self._free, []
        for connection in free:
            close_soon(connection)

    def close(self) -> None:
        """Take no more calls; connections are closed as their calls end."""
        with self._lock:
            self._closed = True
        self.drop()
        self._lane.close()

    async def _run(self, what: str, perform: Callable[[], T], deadline: float) -> T:
        begun = time.monotonic()
        outcome = "Cancelled"
        try:
            result = await self._lane.run(perform, deadline=deadline, what=what)
            outcome = "ok"
        except HypervisorError as error:
            outcome = type(error).__name__
            raise
        finally:
            self._observe(what, time.monotonic() - begun, outcome)
        return result

    def _take(self, what: str) -> libvirt.virConnect:
        try:
            return self._take_or_open()
        except ConnectFailed as error:
            raise NotConnected(f"{what}: {error.message}", reason=error.reason) from error

    def _take_or_open(self) -> libvirt.virConnect:
        while True:
            with self._lock:
                if self._closed:
                    raise NotConnected("the connection to the host has been closed", reason="NotConnected")
                connection = self._free.pop() if self._free else None
            if connection is None:
                return self._connect()
            if connection.isAlive():
                return connection
            connection.close()

    def _give(self, connection: libvirt.virConnect) -> None:
        with self._lock:
            keep = not self._closed
            if keep:
                self._free.append(connection)
        if not keep:
            close_soon(connection)


class Borrowed:
    """A connection taken out of its channel."""

    def __init__(self, channel: Channel, connection: libvirt.virConnect) -> None:
        self._channel = channel
        self._connection = connection
        self._lock = threading.Lock()
        self._under_way = False
        self._ended = False

    async def call(
        self,
        what: str,
        function: Callable[Concatenate[libvirt.virConnect, P], T],
        /,
        deadline: float,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run function(connection, ...) in a thread, one call after the other. Raises HypervisorError only."""

        def perform() -> T:
            with self._lock:
                if self._under_way:
                    raise HostUnavailable(f"{what}: an earlier call on this connection hangs", reason="Busy")
                self._under_way = True
            try:
                return function(self._connection, *args, **kwargs)
            except libvirt.libvirtError as error:
                raise classify(error, what) from error
            finally:
                with self._lock:
                    self._under_way = False
                    ended = self._ended
                if ended:
                    self._channel._give(self._connection)

        return await self._channel._run(what, perform, deadline)

    def end(self) -> None:
        """Give the connection back, now or when the call that hangs on it returns."""
        with self._lock:
            self._ended = True
            give = not self._under_way
        if give:
            self._channel._give(self._connection)


def close_soon(connection: libvirt.virConnect, *before: Callable[[], None]) -> None:
    """Close a connection on which no call is under way, in a thread of its own: closing asks the daemon, which may
    hang.

    before: blocking actions that come first.
    """

    def close() -> None:
        for action in before:
            action()
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()

    threading.Thread(target=close, name="libvirt-close", daemon=True).start()
