"""All simulated hosts of one process."""

from __future__ import annotations

import asyncio

from drivers.hypervisor import HostListener, HostTarget, Hypervisor
from drivers.simulated.hypervisor import SimulatedHost
from drivers.simulated.wire import Sender
from drivers.simulated.world import World


class SimulatedDirectory:
    """A HostDirectory. A target's URI names the machine: `simulated://NAME`, or any libvirt URI to NAME or
    NAME.DOMAIN.
    """

    def __init__(self, world: World, *, sender: str = "controller") -> None:
        """sender: the name of the process, for the world's log."""
        self._world = world
        self._sender = Sender(sender)
        self._hosts: dict[str, SimulatedHost] = {}
        self._listeners: list[HostListener] = []
        self._endings: set[asyncio.Task[None]] = set()

    def kill(self) -> None:
        """The process dies: nothing more is sent, what is on its way arrives, and no answer is heard.

        Calls under way never return: cancel their tasks.
        """
        self._sender.dead = True
        for host in self._hosts.values():
            host.abandon()

    def ensure(self, target: HostTarget) -> Hypervisor:
        """See HostDirectory."""
        known = self._hosts.get(target.name)
        if known is not None and known.target == target:
            return known
        if known is not None:
            self._end(known)
        host = SimulatedHost(target, self._world, self._sender, self._tell)
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

    def _end(self, host: SimulatedHost) -> None:
        ending = asyncio.get_running_loop().create_task(host.close())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _tell(self, host: str, uuid: str | None) -> None:
        if self._sender.dead:
            return
        for listener in self._listeners:
            listener(host, uuid)
