"""The way between one controller and its hosts: the driver stands outside the process that is killed or frozen.

What the driver keeps up by itself (connections, heartbeats, lists) runs in the world; the controller's calls enter it
through a door, and what it reports reaches the controller only while that runs. A controller that was frozen goes on at
first with what it knew before.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from functools import partial
from typing import Any, cast

from drivers.errors import NotConnected
from drivers.hypervisor import HostDirectory, HostListener, HostTarget, Hypervisor
from drivers.model import ConnectionView, HostFacts, Inventory
from simulator.doors import Call, Door, Gate
from simulator.loop import Scope

ASKS = frozenset(
    {
        "refresh",
        "refresh_facts",
        "baseline_cpu",
        "domain_xml",
        "query_guest",
        "block_job",
        "pool_info",
        "volume_names",
        "volume",
        "download",
    }
)
"""Methods that change nothing."""
STALE_SECONDS = 0.05
"""How long after a freeze the old view is all that the controller knows."""

DelayNext = Callable[[str, str, float], None]
"""(machine, method, seconds): the next such call takes effect that much later."""


class HostsDoor:
    """The host directory (drivers.hypervisor.HostDirectory) of one controller."""

    def __init__(self, directory: HostDirectory, scope: Scope, gate: Gate, delay_next: DelayNext) -> None:
        """`directory`: the driver's, one for each controller."""
        self._directory = directory
        self._scope = scope
        self._gate = gate
        self._delay_next = delay_next
        self._hosts: dict[str, HostDoor] = {}
        self._frozen: dict[str, ConnectionView] | None = None

    def ensure(self, target: HostTarget) -> Hypervisor:
        """See HostDirectory."""
        self._outside(self._directory.ensure, target)
        found = self.get(target.name)
        assert found is not None, "just ensured"
        return found

    async def remove(self, name: str) -> None:
        """See HostDirectory."""
        self._hosts.pop(name, None)
        await _world(self._directory.remove(name))

    def get(self, name: str) -> Hypervisor | None:
        """See HostDirectory."""
        inner = self._directory.get(name)
        if inner is None:
            return None
        known = self._hosts.get(name)
        if known is None or known.inner is not inner:
            known = self._hosts[name] = HostDoor(inner, self)
        return cast("Hypervisor", known)

    def names(self) -> tuple[str, ...]:
        """See HostDirectory."""
        return self._directory.names()

    def subscribe(self, listener: HostListener) -> None:
        """See HostDirectory."""
        self._directory.subscribe(partial(self._scope.enter, listener))

    async def close(self) -> None:
        """See HostDirectory."""
        await _world(self._directory.close())

    def freeze(self) -> None:
        """Remember what is known now."""
        self._frozen = {name: host.view() for name in self.names() if (host := self._directory.get(name)) is not None}

    def thaw(self) -> None:
        """Know more again, a moment later."""
        asyncio.get_running_loop().call_later(STALE_SECONDS, self._know, context=Context())

    def _know(self) -> None:
        self._frozen = None

    def view(self, name: str, inner: Hypervisor) -> ConnectionView:
        """What the controller knows of a host."""
        if self._frozen is not None and name in self._frozen:
            return self._frozen[name]
        return inner.view()

    def _outside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return Context().run(function, *arguments)

    async def call(self, host: str, method: str, work: Callable[[], Any], what: str) -> Any:
        """One call to a host, through the gate."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()

        def send(late: float, answered: Callable[[], None]) -> None:
            if late:
                self._delay_next(host, method, late)
            task = loop.create_task(work(), context=Context())
            task.add_done_callback(partial(_reply, reply, answered), context=Context())

        await self._gate.enter(Call(Door.HOST, method, what, method not in ASKS), send)
        return await reply


class HostDoor:
    """One host, as the controller reaches it. Every method of Hypervisor that is not here is passed on."""

    def __init__(self, inner: Hypervisor, hosts: HostsDoor) -> None:
        """`inner`: the driver's host."""
        self.inner = inner
        self.name = inner.name
        self._hosts = hosts

    def view(self) -> ConnectionView:
        """See Hypervisor."""
        return self._hosts.view(self.name, self.inner)

    @property
    def fresh(self) -> bool:
        """See Hypervisor."""
        return self.view().fresh

    @property
    def facts(self) -> HostFacts | None:
        """See Hypervisor."""
        return self.view().facts

    def inventory(self) -> Inventory | None:
        """See Hypervisor."""
        return self.view().inventory

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """A method of Hypervisor that asks or acts."""
        work = getattr(self.inner, method)

        def called(*arguments: Any, **options: Any) -> Any:
            what = _kind(method, arguments)
            return self._hosts.call(self.name, method, partial(work, *arguments, **options), what)

        return called

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], **options: Any) -> None:
        """See Hypervisor: the bytes come from the controller while it lives."""
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1)

        async def arriving() -> AsyncIterator[bytes]:
            while (chunk := await chunks.get()) is not None:
                yield chunk

        def work() -> Any:
            return self.inner.upload(pool, name, arriving(), **options)

        call = asyncio.ensure_future(self._hosts.call(self.name, "upload", work, _kind("upload", (pool, name))))
        feeding = asyncio.ensure_future(_feed(data, chunks))
        try:
            await asyncio.wait((call, feeding), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            await call
        finally:
            call.cancel()
            feeding.cancel()

    async def download(self, pool: str, name: str, **options: Any) -> AsyncIterator[bytes]:
        """See Hypervisor: one question, whose answer comes as a whole."""

        async def work() -> list[bytes]:
            return [chunk async for chunk in self.inner.download(pool, name, **options)]

        for chunk in await self._hosts.call(self.name, "download", work, _kind("download", (pool, name))):
            yield chunk


async def _feed(data: AsyncIterator[bytes], chunks: asyncio.Queue[bytes | None]) -> None:
    async for chunk in data:
        await chunks.put(chunk)
    await chunks.put(None)


async def _world(work: Any) -> Any:
    """Something that the driver does, outside the process."""
    return await asyncio.get_running_loop().create_task(work, context=Context())


def _reply(reply: asyncio.Future[Any], answered: Callable[[], None], task: asyncio.Task[Any]) -> None:
    answered()
    if reply.done():
        task.cancelled() or task.exception()
    elif task.cancelled():
        reply.set_exception(NotConnected("the connection was closed"))
    elif (error := task.exception()) is not None:
        reply.set_exception(error)
    else:
        reply.set_result(task.result())


_SIDECARS = (
    (re.compile(r"hostler-domain\.json"), "marker"),
    (re.compile(r"\.trash-\d+(\.json)?$"), "trash"),
    (re.compile(r"\.seed\.iso$"), "seed"),
    (re.compile(r"\.nvram\.fd$"), "nvram"),
    (re.compile(r"\.import\.json$"), "note"),
    (re.compile(r"\.import\.unpacked$"), "unpacked"),
    (re.compile(r"\.import$"), "download"),
    (re.compile(r"\.json$"), "record"),
)


def _kind(method: str, arguments: tuple[Any, ...]) -> str:
    """What a call is about, without names."""
    match method:
        case "create_volume" | "copy_volume":
            found = re.search(r"<name>(.*?)</name>", arguments[1])
            return _file(found[1] if found else "")
        case "resize_volume" | "delete_volume" | "upload" | "download" | "volume":
            return _file(str(arguments[1]))
        case "ensure_pool" | "pool_info" | "volume_names":
            return "pool"
        case "refresh_facts" | "baseline_cpu":
            return "host"
        case "refresh":
            return "domain" if arguments else "host"
        case _:
            return "domain"


def _file(name: str) -> str:
    return next((kind for pattern, kind in _SIDECARS if pattern.search(name)), "volume")
