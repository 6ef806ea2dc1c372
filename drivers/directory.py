"""All hosts of this process: what a directory does, whatever the driver."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from drivers.hypervisor import HostListener, HostTarget, Hypervisor


class Openable(Hypervisor, Protocol):
    """A host that its directory opens and closes."""

    @property
    def target(self) -> HostTarget:
        """How it is reached."""

    def open(self) -> None:
        """Begin to connect. Never blocks."""

    async def close(self) -> None:
        """Disconnect for good."""


H = TypeVar("H", bound=Openable)


class Directory(ABC, Generic[H]):
    """A HostDirectory."""

    def __init__(self) -> None:
        self._hosts: dict[str, H] = {}
        self._names: tuple[str, ...] = ()
        self._listeners: list[HostListener] = []
        self._endings: set[asyncio.Task[None]] = set()

    @abstractmethod
    def _make(self, target: HostTarget) -> H:
        """A host that tells `_tell` of what it observes; it is not opened yet."""

    def ensure(self, target: HostTarget) -> Hypervisor:
        """See HostDirectory."""
        known = self._hosts.get(target.name)
        if known is not None and known.target == target:
            return known
        if known is not None:
            self._end(known)
        host = self._make(target)
        self._hosts[target.name] = host
        self._named()
        host.open()
        return host

    async def remove(self, name: str) -> None:
        """See HostDirectory."""
        host = self._hosts.pop(name, None)
        self._named()
        if host is not None:
            await host.close()

    def get(self, name: str) -> Hypervisor | None:
        """See HostDirectory."""
        return self._hosts.get(name)

    def names(self) -> tuple[str, ...]:
        """See HostDirectory."""
        return self._names

    def _named(self) -> None:
        self._names = tuple(sorted(self._hosts))

    def subscribe(self, listener: HostListener) -> None:
        """See HostDirectory."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """See HostDirectory."""
        for name in self.names():
            self._end(self._hosts.pop(name))
        self._named()
        await asyncio.gather(*self._endings)

    def _end(self, host: H) -> None:
        ending = asyncio.get_running_loop().create_task(host.close())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _tell(self, host: str, uuid: str | None) -> None:
        for listener in self._listeners:
            listener(host, uuid)
