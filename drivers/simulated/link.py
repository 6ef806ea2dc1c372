"""The link to one simulated machine: one connection, on which calls take their time and get lost.

A host in idle costs one timer for its heartbeat and one for its audit.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from drivers import deadlines
from drivers.errors import ConnectFailed, HostTimeout, HypervisorError
from drivers.hypervisor import HostListener, HostTarget
from drivers.link import Link
from drivers.model import DomainObservation, GuestFacts, HostFacts, StopReason
from drivers.simulated import domains
from drivers.simulated.daemon import Daemon
from drivers.simulated.heart import Heart, nothing
from drivers.simulated.wire import Connection, Effect, Event, Happening, Sender
from drivers.simulated.world import World


class SimulatedLink(Link):
    """Keeps one simulated host connected and observed."""

    def __init__(self, target: HostTarget, world: World, sender: Sender, listener: HostListener) -> None:
        # Drawn from the world's, so that each link's chance is its own and the same in each run of a seed.
        super().__init__(target, listener, random.Random(world.random.getrandbits(64)))  # noqa: S311 - it spreads load
        self._world = world
        self._sender = sender
        self._connection: Connection | None = None
        self._agents: dict[str, asyncio.Task[None]] = {}
        self._heart: Heart = Heart(target.heartbeat_seconds, lambda: self._connection, self._tell)

    # Calls -----------------------------------------------------------------------------------------------------------

    async def call(
        self, method: str, effect: Effect, deadline: float, *, uuid: str | None = None, guest: bool = False
    ) -> Any:
        """Make a call. uuid: the domain that it is about; guest: it needs the domain's QEMU.

        Raises NotConnected at once when there is no connection, HostTimeout after deadline seconds.
        """
        self.require_connected()
        return await self._call(method, effect, deadline, uuid=uuid, guest=guest)

    def require_connected(self) -> None:
        """Raises NotConnected, but not to a dead process: it hears nothing at all."""
        if not self._sender.dead:
            super().require_connected()

    async def _call(
        self, method: str, effect: Effect, deadline: float, *, uuid: str | None = None, guest: bool = False
    ) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._sender.dead:
            # The process is gone: nothing is sent, and nobody ever hears an answer, a `finally` neither.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            return await future
        connection = self._connection
        if connection is None:
            raise self._not_connected()

        def answer(result: Any, error: HypervisorError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def expire() -> None:
            late = HostTimeout(f"{method}: no answer within {deadline:g} s; it may still take effect")
            if not self._sender.dead:
                answer(None, late)

        request = connection.call(method, effect, answer, uuid=uuid, guest=guest)
        expiry = self._loop.call_later(deadline, expire)
        try:
            return await future
        finally:
            expiry.cancel()
            connection.answered(request)

    # Life ------------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Disconnect. What was sent takes effect all the same."""
        await super().close()
        agents = list(self._agents.values())
        for task in agents:
            task.cancel()
        await asyncio.gather(*agents, return_exceptions=True)
        self._heart.stop()

    def abandon(self) -> None:
        """The process died: its tasks end without doing anything, and the host finds its connection closed."""
        for task in (*self._agents.values(), *([] if self._task is None else [self._task])):
            task.cancel()
        self._reader.reset()
        self._heart.stop()
        if self._connection is not None:
            self._connection.close()

    async def _reach(self) -> None:
        name = machine_name(self.target.uri)
        machine = self._world.machines.get(name)
        if machine is None:
            raise ConnectFailed(f"there is no machine {name!r}; check the URI", reason="Unresolvable")
        connection = Connection(machine, self._sender, self._take, self._lost)
        self._connection = connection
        try:
            await self._call("connect", lambda daemon: daemon.accept(connection), deadlines.OPEN_SECONDS)
        except HostTimeout as error:
            raise ConnectFailed(f"no connection within {deadlines.OPEN_SECONDS:g} s", reason="Unreachable") from error
        await self._call("heartbeat", nothing, deadlines.OPEN_SECONDS)
        self._heart.start()

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Asking ----------------------------------------------------------------------------------------------------------

    async def _ask_uuids(self) -> Sequence[str]:
        uuids: tuple[str, ...] = await self._call("list", domains.list_uuids, deadlines.LIST_SECONDS)
        return uuids

    async def _ask_domain(self, uuid: str, remembered: StopReason | None, *, shallow: bool) -> DomainObservation | None:
        def effect(daemon: Daemon) -> domains.Reading | None:
            return domains.read(daemon, uuid, shallow=shallow)

        reading: domains.Reading | None = await self._call(
            "read", effect, deadlines.READ_SECONDS, uuid=uuid, guest=not shallow
        )
        return None if reading is None else reading.observation(remembered)

    async def _ask_facts(self) -> HostFacts:
        facts: HostFacts = await self._call("facts", _facts, deadlines.FACTS_SECONDS)
        return facts

    async def _ask_guest(self, uuid: str) -> GuestFacts | None:
        facts: GuestFacts | None = await self._call(
            "query_guest",
            lambda daemon: domains.query_guest(daemon, uuid),
            deadlines.GUEST_SECONDS,
            uuid=uuid,
            guest=True,
        )
        return facts

    def _watch_guest(self, uuid: str, *, connected: bool) -> None:
        if connected and uuid not in self._agents:
            self._agents[uuid] = self._loop.create_task(self._ask_agent(uuid))
        elif not connected and uuid in self._agents:
            self._agents.pop(uuid).cancel()

    async def _ask_agent(self, uuid: str) -> None:
        """Once, when an agent connects. One that does not answer then stays unknown, as there are no late addresses."""
        with contextlib.suppress(HypervisorError):
            await self.query_guest(uuid)

    # Events ----------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if event.happening is Happening.STOPPED and event.stop_reason is not None:
            self._stopped(event.uuid, event.stop_reason)
        elif event.happening is Happening.STARTED:
            self._started(event.uuid)
        elif event.happening is Happening.DEVICE_REMOVED:
            self._device_left(event.uuid, event.alias, left=True)
        self._heard(event.uuid)


def machine_name(uri: str) -> str:
    """The machine that a URI means: `simulated://NAME`, or the first label of the host of a libvirt URI."""
    try:
        return (urlsplit(uri).hostname or "").partition(".")[0]
    except ValueError:
        return ""


def _facts(daemon: Daemon) -> HostFacts:
    return daemon.machine.facts
