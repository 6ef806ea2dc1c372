"""A host as the contract has it, as far as its link knows the answer or the driver's calls only need their order."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from drivers.deadlines import DETACH_SECONDS, DEVICE_SECONDS
from drivers.errors import HostTimeout, HostUnavailable, NotFound, Refused
from drivers.hypervisor import HostTarget
from drivers.link import Link
from drivers.model import ConnectionView, GuestFacts, HostFacts, Inventory
from drivers.turns import Turns

L = TypeVar("L", bound=Link)


class LinkedHost(ABC, Generic[L]):
    """What is the same for every driver; the rest of a Hypervisor is the driver's."""

    def __init__(self, link: L) -> None:
        self._link = link
        self._turns = Turns()

    @property
    def name(self) -> str:
        """Name of the Host object."""
        return self._link.target.name

    @property
    def target(self) -> HostTarget:
        """How it is reached."""
        return self._link.target

    def open(self) -> None:
        """Begin to connect. Never blocks."""
        self._link.start()

    async def close(self) -> None:
        """Disconnect for good."""
        await self._link.close()

    def view(self) -> ConnectionView:
        """See Hypervisor."""
        return self._link.view()

    @property
    def fresh(self) -> bool:
        """See Hypervisor."""
        return self._link.fresh

    @property
    def facts(self) -> HostFacts | None:
        """See Hypervisor."""
        return self._link.facts

    def inventory(self) -> Inventory | None:
        """See Hypervisor."""
        return self._link.store.inventory()

    async def refresh(self, uuid: str | None = None) -> ConnectionView:
        """See Hypervisor."""
        return await self._link.refresh(uuid)

    async def refresh_facts(self) -> HostFacts:
        """See Hypervisor."""
        return await self._link.refresh_facts()

    async def query_guest(self, uuid: str) -> GuestFacts | None:
        """See Hypervisor."""
        return await self._link.query_guest(uuid)

    # Asking a guest to power off -------------------------------------------------------------------------------------

    @abstractmethod
    async def _shutdown_by_agent(self, uuid: str) -> None:
        """Have the guest's agent power it off."""

    @abstractmethod
    async def _press_power(self, uuid: str) -> None:
        """Press the ACPI button."""

    async def shutdown(self, uuid: str) -> None:
        """See Hypervisor."""
        seen = self._link.store.get(uuid)
        if seen is not None and seen.agent_connected:
            try:
                await self._shutdown_by_agent(uuid)
            except (Refused, HostTimeout):
                # The agent did not answer; the button is left.
                pass
            else:
                return
        await self._press_power(uuid)

    # Asking a guest to give a device up ------------------------------------------------------------------------------

    @abstractmethod
    async def _places(self, uuid: str, alias: str) -> tuple[bool, bool]:
        """Whether the running domain has the device, and whether its definition has it. Raises NotFound."""

    @abstractmethod
    async def _ask_to_leave(self, uuid: str, alias: str) -> None:
        """Ask the guest; succeeds where it was asked before. Its answer is an event (`Link._device_left`)."""

    @abstractmethod
    async def _detach_defined(self, uuid: str, alias: str) -> None:
        """Take the device out of the definition."""

    async def detach_device(self, uuid: str, alias: str) -> None:
        """See Hypervisor. The definition gives the device up only after the guest did, so that both stay alike."""
        try:
            async with self._turns.turn("detach_device", uuid, DEVICE_SECONDS):
                plugged, defined = await self._places(uuid, alias)
                if plugged:
                    await self._unplug(uuid, alias)
                if defined:
                    await self._detach_defined(uuid, alias)
        except NotFound:
            # Gone since it was looked for.
            pass
        await self._link.read_soon(uuid)

    async def _unplug(self, uuid: str, alias: str) -> None:
        with self._link.device_leaving(uuid, alias) as leaving:
            await self._ask_to_leave(uuid, alias)
            await asyncio.wait({leaving}, timeout=DETACH_SECONDS)
        if leaving.cancelled():
            raise HostUnavailable(f"detach {alias}: the connection broke", reason="ConnectionLost")
        if leaving.done() and not leaving.result():
            raise Refused(f"detach {alias}: the guest refused to give the device up", reason="GuestRefused")
        # The event may have been missed, and the device gone all the same.
        plugged, _ = await self._places(uuid, alias)
        if plugged:
            raise HostTimeout(f"detach {alias}: the guest did not give the device up within {DETACH_SECONDS:g} s")
