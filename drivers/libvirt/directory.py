"""All hosts of this process that are spoken to through libvirt."""

from __future__ import annotations

import asyncio

from drivers.hypervisor import HostListener, HostTarget, Hypervisor
from drivers.libvirt import eventloop
from drivers.libvirt.channel import Observer
from drivers.libvirt.host import LibvirtHost


def _observe_nothing(method: str, seconds: float, outcome: str) -> None:
    del method, seconds, outcome


class LibvirtDirectory:
    """A HostDirectory."""

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Observer = _observe_nothing) -> None:
        """loop: the asyncio loop in which all methods are called; observe: told of each call to a host, for metrics."""
        self._loop = loop
        self._observe = observe
        self._hosts: dict[str, LibvirtHost] = {}
        self._listeners: list[HostListener] = []
        self._endings: set[asyncio.Task[None]] = set()
        eventloop.acquire()

    def ensure(self, target: HostTarget) -> Hypervisor:
        """See HostDirectory."""
        known = self._hosts.get(target.name)
        if known is not None and known.target == target:
            return known
        if known is not None:
            self._end(known)
        host = LibvirtHost(target, self._tell, self._observe)
        self._hosts[target.name] = host
        host.open()
        return host

    async def remove(self, name: str) -> None:
        """See HostDirectory."""
        host = self._hosts.pop(name, None)
        if host is not None:
            await host.close()

    def get(self, name: str) -> Hypervisor | None:
        """See HostDirectory."""
        return self._hosts.get(name)

    def names(self) -> tuple[str, ...]:
        """See HostDirectory."""
        return tuple(sorted(self._hosts))

    def subscribe(self, listener: HostListener) -> None:
        """See HostDirectory."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """See HostDirectory."""
        for name in self.names():
            self._end(self._hosts.pop(name))
        await asyncio.gather(*self._endings)
        await self._loop.run_in_executor(None, eventloop.release)

    def _end(self, host: LibvirtHost) -> None:
        ending = self._loop.create_task(host.close())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _tell(self, host: str, uuid: str | None) -> None:
        for listener in self._listeners:
            listener(host, uuid)
