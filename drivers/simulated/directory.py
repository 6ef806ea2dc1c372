"""All simulated hosts of one process."""

from __future__ import annotations

from drivers.directory import Directory
from drivers.hypervisor import HostTarget
from drivers.simulated.hypervisor import SimulatedHost
from drivers.simulated.wire import Sender
from drivers.simulated.world import World


class SimulatedDirectory(Directory[SimulatedHost]):
    """A HostDirectory. A target's URI names the machine: `simulated://NAME`, or any libvirt URI to NAME or
    NAME.DOMAIN.
    """

    def __init__(self, world: World, *, sender: str = "controller") -> None:
        """sender: the name of the process, for the world's log."""
        super().__init__()
        self._world = world
        self._sender = Sender(sender)

    def kill(self) -> None:
        """The process dies: nothing more is sent, what is on its way arrives, and no answer is heard.

        Calls under way never return: cancel their tasks.
        """
        self._sender.dead = True
        for host in self._hosts.values():
            host.abandon()

    def _make(self, target: HostTarget) -> SimulatedHost:
        return SimulatedHost(target, self._world, self._sender, self._tell)

    def _tell(self, host: str, uuid: str | None) -> None:
        if not self._sender.dead:
            super()._tell(host, uuid)
