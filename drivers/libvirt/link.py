"""The link to one host: connections made and made again, events, complete lists, and what is known meanwhile.

Events are registered before the first list, so that nothing can happen between the two unseen. After a connection
broke all of it is done anew; the observations of before stay as the newest there are, marked as not fresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import libvirt

from drivers.deadlines import FACTS_SECONDS, GUEST_SECONDS, LIST_SECONDS, OPEN_SECONDS, READ_SECONDS
from drivers.errors import ConnectFailed, HostTimeout, HypervisorError, NotConnected
from drivers.hypervisor import (
    ACTIVE,
    ConnectionState,
    ConnectionView,
    DomainObservation,
    DomainState,
    GuestFacts,
    HostFacts,
    HostListener,
    HostTarget,
    StopReason,
)
from drivers.libvirt import domains, guest
from drivers.libvirt.channel import Channel, Observer
from drivers.libvirt.classify import classify
from drivers.libvirt.connection import Connector
from drivers.libvirt.events import Event, EventConnection, Happening
from drivers.libvirt.executor import Lane
from drivers.libvirt.facts import read_facts
from drivers.libvirt.heart import Heart
from drivers.libvirt.states import stop_event
from drivers.observations import ObservationStore, Ticket
from drivers.pauses import delays
from drivers.reader import Reader

POWER_THREADS = 12
"""QEMUs of one host that start or end at once: of the 20 workers of a daemon, eight are left for all other calls."""


class Link:
    """Keeps one host connected and observed from `start` to `close`."""

    def __init__(self, target: HostTarget, listener: HostListener, observe: Observer) -> None:
        self.target = target
        self.store = ObservationStore()
        self._listener = listener
        self._observe = observe
        self._connector: Connector | None = None
        self._events: EventConnection | None = None
        self._listed = False
        self._was_connected = False
        self._broken = asyncio.Event()
        self._error: HypervisorError | None = None
        self._facts: HostFacts | None = None
        self._told: object = None
        self._stops: dict[str, StopReason] = {}
        self._device_waiters: dict[tuple[str, str], asyncio.Future[bool]] = {}
        self._loop = asyncio.get_running_loop()
        self._control = self._channel("control")
        self._power = self._channel("power", threads=POWER_THREADS)
        self._slow = self._channel("slow")
        self._transfer = self._channel("transfer")
        self._opening = Lane(f"{target.name}-events", threads=1, spare=8)
        self._reader = Reader(self.read, self._tell)
        self._heart = Heart(self._channel("heartbeat", threads=1), target.heartbeat_seconds, self._tell)
        self._guests = guest.GuestWatch(self.query_guest, target.audit_seconds)
        self._pool_listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None

    def _channel(self, name: str, threads: int = 3) -> Channel:
        return Channel(f"{self.target.name}-{name}", self._open, self._observe, threads=threads)

    def _open(self) -> libvirt.virConnect:
        """Blocking: open one more connection. Raises ConnectFailed."""
        connector = self._connector
        if connector is None:
            raise self._not_connected()
        return connector.open()

    # What is known ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        if self._listed and self._heart.beating and not self._broken.is_set():
            return ConnectionState.CONNECTED
        return ConnectionState.SUSPECT if self._was_connected else ConnectionState.CONNECTING

    @property
    def _fresh(self) -> bool:
        return self.state is ConnectionState.CONNECTED and self._heart.in_time and not self._reader.behind

    def view(self) -> ConnectionView:
        """What is known now."""
        return ConnectionView(
            state=self.state,
            facts=self._facts,
            inventory=self.store.inventory(),
            fresh=self._fresh,
            last_seen=self._heart.last_seen,
            error=self._error,
        )

    def on_pool_change(self, listener: Callable[[], None]) -> None:
        """Have listener called when a storage pool started, stopped or vanished."""
        self._pool_listeners.append(listener)

    def image_in_use(self, path: str) -> bool:
        """Whether a domain that is not off has the image at this path."""
        users = (self.store.get(uuid) for uuid in self.store.users_of(path))
        return any(user is not None and user.state in ACTIVE for user in users)

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
        if self.state is not ConnectionState.CONNECTED:
            raise self._not_connected()
        return channel

    def _not_connected(self) -> NotConnected:
        why = f": {self._error.message}" if self._error is not None else ""
        return NotConnected(f"host {self.target.name} is not connected{why}", reason="NotConnected")

    # Life ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and stay connected. Never blocks."""
        self._task = self._loop.create_task(self._keep())

    async def close(self) -> None:
        """Disconnect. Calls under way are left to end by themselves."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._guests.stop()
        self._disconnect()
        await self._heart.stop()
        for channel in (self._control, self._power, self._slow, self._transfer):
            channel.close()
        self._opening.close()
        if self._connector is not None:
            self._connector.close()

    async def _keep(self) -> None:
        pauses = delays()
        while True:
            try:
                await self._connect()
            except HypervisorError as error:
                self._error = error
                self._disconnect()
                self._tell()
                await asyncio.sleep(next(pauses))
                continue
            pauses = delays()
            await self._stay()
            self._disconnect()
            self._tell()

    async def _connect(self) -> None:
        self._broken.clear()
        if self._connector is None:
            self._connector = Connector(self.target)
        self._events = await self._subscribe()
        await self._heart.start()
        await self._list()
        self._facts = await self._slow.call("facts", read_facts, FACTS_SECONDS)
        self._listed = self._was_connected = True
        self._error = None
        self._tell()

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
                lost=lambda lost: self._hand_over(self._lost, lost),
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

    def _lost(self, events: EventConnection) -> None:
        if events is self._events:
            self._error = NotConnected("the connection broke", reason="ConnectionLost")
            self._broken.set()
            self._tell()

    async def _stay(self) -> None:
        """Until the connection breaks; audit now and then."""
        while not self._broken.is_set():
            try:
                async with asyncio.timeout(self.target.audit_seconds):
                    await self._broken.wait()
            except TimeoutError:
                # An audit that fails says nothing new: the heartbeat and the connection speak for themselves.
                with contextlib.suppress(HypervisorError):
                    await self._list()

    def _disconnect(self) -> None:
        self._listed = False
        self._reader.reset()
        for channel in (self._control, self._power, self._slow, self._transfer):
            channel.drop()
        if self._events is not None:
            self._events.close()
            self._events = None
        for waiter in self._device_waiters.values():
            waiter.cancel()

    # Observing -------------------------------------------------------------------------------------------------------

    async def refresh(self, uuid: str | None) -> ConnectionView:
        """Ask the host anew. Raises HypervisorError."""
        if self.state is not ConnectionState.CONNECTED:
            raise self._not_connected()
        if uuid is None:
            await self._list()
        else:
            await self.read(uuid)
        return self.view()

    async def refresh_facts(self) -> HostFacts:
        """Ask the host anew what it is."""
        before = self._facts
        self._facts = await self.slow.call("facts", read_facts, FACTS_SECONDS)
        if before != self._facts:
            self._listener(self.target.name, None)
        return self._facts

    async def read(self, uuid: str) -> None:
        """Read one domain and keep the answer. Raises HypervisorError."""
        ticket = self.store.ticket(time.monotonic())
        observation = await self._ask(uuid)
        if self.store.seen(ticket, uuid, observation):
            self._changed(uuid)

    async def read_soon(self, uuid: str) -> None:
        """Read a domain after our own call changed it; if that fails it is done again later."""
        try:
            await self.read(uuid)
        except HypervisorError:
            self._reader.request(uuid)

    async def query_guest(self, uuid: str) -> GuestFacts | None:
        """Ask a guest's agent and keep the answer. Raises HypervisorError."""
        facts = await self.slow.call("query_guest", guest.query, GUEST_SECONDS, uuid)
        if facts is not None and self.store.guest(uuid, facts):
            self._listener(self.target.name, uuid)
        return facts

    async def _list(self) -> None:
        ticket: Ticket = self.store.ticket(time.monotonic())
        uuids = await self._control.call("list", domains.list_uuids, LIST_SECONDS)
        # One thread stays free for whatever else the host is asked meanwhile.
        two = asyncio.Semaphore(2)

        async def one(uuid: str) -> DomainObservation | None:
            async with two:
                return await self._ask(uuid)

        found = await asyncio.gather(*(one(uuid) for uuid in uuids))
        for uuid in self.store.listed(ticket, {seen.uuid: seen for seen in found if seen is not None}):
            self._changed(uuid)

    async def _ask(self, uuid: str) -> DomainObservation | None:
        channel = self._control
        remembered = self._stops.get(uuid)
        try:
            return await channel.call("read", _observe, READ_SECONDS, uuid, remembered, shallow=False)
        except HostTimeout:
            # Since libvirt 11 the document of a running domain is asked of its QEMU, which may be frozen; state is not.
            seen = await channel.call("read", _observe, READ_SECONDS, uuid, remembered, shallow=True)
        known = self.store.get(uuid)
        if seen is None or known is None:
            return seen
        return replace(
            known,
            state=seen.state,
            stop_reason=seen.stop_reason,
            paused_reason=seen.paused_reason,
            persistent=seen.persistent,
        )

    def _changed(self, uuid: str) -> None:
        seen = self.store.get(uuid)
        running = seen is not None and seen.state is DomainState.RUNNING
        self._guests.watch(uuid, connected=running and seen is not None and seen.agent_connected)
        if seen is None:
            self._stops.pop(uuid, None)
        self._listener(self.target.name, uuid)

    def _tell(self) -> None:
        """Tell of the host itself, when something about its connection is new."""
        now = (self.state, self._fresh, None if self._error is None else self._error.reason)
        if now != self._told:
            self._told = now
            self._listener(self.target.name, None)

    # Events ----------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if event.happening is Happening.STOPPED:
            known = self.store.get(event.uuid)
            was_running = known is not None and known.state in ACTIVE
            self._stops[event.uuid] = stop_event(event.detail, was_running=was_running)
        elif event.happening is Happening.STARTED:
            self._stops.pop(event.uuid, None)
        elif event.happening in {Happening.DEVICE_REMOVED, Happening.DEVICE_KEPT}:
            waiter = self._device_waiters.get((event.uuid, event.alias))
            if waiter is not None and not waiter.done():
                waiter.set_result(event.happening is Happening.DEVICE_REMOVED)
        self._reader.request(event.uuid)

    @contextlib.contextmanager
    def device_leaving(self, uuid: str, alias: str) -> Iterator[asyncio.Future[bool]]:
        """A future of whether the guest gave the device up; cancelled when the connection breaks."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._device_waiters[uuid, alias] = waiter
        try:
            yield waiter
        finally:
            if self._device_waiters.get((uuid, alias)) is waiter:
                del self._device_waiters[uuid, alias]

    def _pools_changed(self) -> None:
        for listener in self._pool_listeners:
            listener()


def _observe(
    connection: libvirt.virConnect, uuid: str, remembered: StopReason | None, *, shallow: bool
) -> DomainObservation | None:
    reading = domains.read(connection, uuid, shallow=shallow)
    return None if reading is None else reading.observation(remembered)
