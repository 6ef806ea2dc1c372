"""All hosts of this process that are spoken to through libvirt."""

from __future__ import annotations

import asyncio

from drivers.directory import Directory
from drivers.hypervisor import HostTarget
from drivers.libvirt import eventloop
from drivers.libvirt.channel import Observer
from drivers.libvirt.host import LibvirtHost


def _observe_nothing(method: str, seconds: float, outcome: str) -> None:
    del method, seconds, outcome


class LibvirtDirectory(Directory[LibvirtHost]):
    """A HostDirectory."""

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Observer = _observe_nothing) -> None:
        """loop: the asyncio loop in which all methods are called; observe: told of each call to a host, for metrics."""
        super().__init__()
        self._loop = loop
        self._observe = observe
        eventloop.acquire()

    async def close(self) -> None:
        """See HostDirectory."""
        await super().close()
        await self._loop.run_in_executor(None, eventloop.release)

    def _make(self, target: HostTarget) -> LibvirtHost:
        return LibvirtHost(target, self._tell, self._observe)
