"""The link to one host through libvirt: which connections there are, and what is asked on which of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

import libvirt

from drivers.deadlines import FACTS_SECONDS, GUEST_SECONDS, LIST_SECONDS, OPEN_SECONDS, READ_SECONDS
from drivers.errors import ConnectFailed, HostTimeout
from drivers.hypervisor import HostListener, HostTarget
from drivers.libvirt import domains, guest
from drivers.libvirt.channel import Channel, Observer
from drivers.libvirt.classify import classify
from drivers.libvirt.connection import Connector
from drivers.libvirt.events import Event, EventConnection, Happening
from drivers.libvirt.executor import Lane
from drivers.libvirt.facts import read_facts
from drivers.libvirt.heart import Heart
from drivers.libvirt.states import stop_event
from drivers.link import Link
from drivers.model import ACTIVE, DomainObservation, GuestFacts, HostFacts, StopReason

POWER_THREADS = 12
"""QEMUs of one host that start or end at once: of the 20 workers of a daemon, eight are left for all other calls."""


class LibvirtLink(Link):
    """Keeps one libvirt host connected and observed."""

    def __init__(self, target: HostTarget, listener: HostListener, observe: Observer) -> None:
        """observe: told of each call, for metrics."""
        super().__init__(target, listener)
        self._observe = observe
        self._connector: Connector | None = None
        self._events: EventConnection | None = None
        self._control = self._channel("control")
        self._power = self._channel("power", threads=POWER_THREADS)
        self._slow = self._channel("slow")
        self._transfer = self._channel("transfer")
        self._opening = Lane(f"{target.name}-events", threads=1, spare=8)
        self._heart: Heart = Heart(self._channel("heartbeat", threads=1), target.heartbeat_seconds, self._tell)
        self._guests = guest.GuestWatch(self.query_guest, target.audit_seconds)
        self._pool_listeners: list[Callable[[], None]] = []

    def _channel(self, name: str, threads: int = 3) -> Channel:
        return Channel(f"{self.target.name}-{name}", self._open, self._observe, threads=threads)

    def _open(self) -> libvirt.virConnect:
        """Blocking: open one more connection. Raises ConnectFailed."""
        connector = self._connector
        if connector is None:
            raise self._not_connected()
        return connector.open()

    def on_pool_change(self, listener: Callable[[], None]) -> None:
        """Have listener called when a storage pool started, stopped or vanished."""
        self._pool_listeners.append(listener)

    # Channels --------------------------------------------------------------------------------------------------------

    @property
    def control(self) -> Channel:
        """The channel of short calls. Raises NotConnected."""
        return self._connected(self._control)

    @property
    def power(self) -> Channel:
        """The channel of starting and ending QEMUs, which take a good part of a second each: what is read, defined or
        looked up meanwhile does not wait behind them. Raises NotConnected.
        """
        return self._connected(self._power)

    @property
    def slow(self) -> Channel:
        """The channel of agents, scans and what else may take long. Raises NotConnected."""
        return self._connected(self._slow)

    @property
    def transfer(self) -> Channel:
        """The channel of copies and streams, so that an hour of copying delays no scan. Raises NotConnected."""
        return self._connected(self._transfer)

    def _connected(self, channel: Channel) -> Channel:
        self.require_connected()
        return channel

    # Life ------------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Disconnect. Calls under way are left to end by themselves."""
        await super().close()
        self._guests.stop()
        await self._heart.stop()
        for channel in (self._control, self._power, self._slow, self._transfer):
            channel.close()
        self._opening.close()
        if self._connector is not None:
            self._connector.close()

    async def _reach(self) -> None:
        if self._connector is None:
            self._connector = Connector(self.target)
        self._events = await self._subscribe()
        await self._heart.start()

    async def _subscribe(self) -> EventConnection:
        """Open the connection that carries events and nothing else, and register for all of them."""
        unwanted = threading.Event()
        try:
            return await self._opening.run(lambda: self._open_events(unwanted), deadline=OPEN_SECONDS, what="connect")
        except HostTimeout as error:
            raise ConnectFailed(f"no connection within {OPEN_SECONDS:g} s", reason="Unreachable") from error
        finally:
            unwanted.set()

    def _open_events(self, unwanted: threading.Event) -> EventConnection:
        """Blocking; unwanted: set once nobody waits for the connection any more."""
        try:
            events = EventConnection(
                self._open(),
                sink=lambda event: self._hand_over(self._take, event),
                pool_changed=lambda: self._hand_over(self._pools_changed),
                lost=lambda lost: self._hand_over(self._lost_events, lost),
            )
        except libvirt.libvirtError as error:
            raise classify(error, "subscribe") from error
        if unwanted.is_set():
            events.close()
        return events

    def _hand_over(self, call: Callable[..., None], *arguments: object) -> None:
        # A closed loop means that the process ends: there is nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _leave(self) -> None:
        for channel in (self._control, self._power, self._slow, self._transfer):
            channel.drop()
        if self._events is not None:
            self._events.close()
            self._events = None

    # Asking ----------------------------------------------------------------------------------------------------------

    async def _ask_uuids(self) -> Sequence[str]:
        return await self._control.call("list", domains.list_uuids, LIST_SECONDS)

    async def _ask_domain(self, uuid: str, remembered: StopReason | None, *, shallow: bool) -> DomainObservation | None:
        return await self._control.call("read", _read, READ_SECONDS, uuid, remembered, shallow=shallow)

    async def _ask_facts(self) -> HostFacts:
        return await self._slow.call("facts", read_facts, FACTS_SECONDS)

    async def _ask_guest(self, uuid: str) -> GuestFacts | None:
        return await self._slow.call("query_guest", guest.query, GUEST_SECONDS, uuid)

    def _watch_guest(self, uuid: str, *, connected: bool) -> None:
        self._guests.watch(uuid, connected=connected)

    # Events ----------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if event.happening is Happening.STOPPED:
            known = self.store.get(event.uuid)
            was_running = known is not None and known.state in ACTIVE
            self._stopped(event.uuid, stop_event(event.detail, was_running=was_running))
        elif event.happening is Happening.STARTED:
            self._started(event.uuid)
        elif event.happening in {Happening.DEVICE_REMOVED, Happening.DEVICE_KEPT}:
            self._device_left(event.uuid, event.alias, left=event.happening is Happening.DEVICE_REMOVED)
        self._heard(event.uuid)

    def _lost_events(self, events: EventConnection) -> None:
        if events is self._events:
            self._lost()

    def _pools_changed(self) -> None:
        for listener in self._pool_listeners:
            listener()


def _read(
    connection: libvirt.virConnect, uuid: str, remembered: StopReason | None, *, shallow: bool
) -> DomainObservation | None:
    reading = domains.read(connection, uuid, shallow=shallow)
    return None if reading is None else reading.observation(remembered)
