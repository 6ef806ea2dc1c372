"""The link to one simulated machine: connected and connected again, observed by events and lists, as the real one is.

A host in idle costs one timer for its heartbeat and one for its audit.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from drivers import deadlines
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
from drivers.observations import ObservationStore
from drivers.pauses import delays
from drivers.reader import Reader
from drivers.simulated import domains
from drivers.simulated.daemon import Daemon
from drivers.simulated.heart import Heart, nothing
from drivers.simulated.wire import Connection, Effect, Event, Happening, Sender
from drivers.simulated.world import World


class Link:
    """Keeps one host connected and observed from `start` to `close`."""

    def __init__(self, target: HostTarget, world: World, sender: Sender, listener: HostListener) -> None:
        self.target = target
        self.store = ObservationStore()
        self._world = world
        self._sender = sender
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        # Drawn from the world's, so that each link's chance is its own and the same in each run of a seed.
        self._rng = random.Random(world.random.getrandbits(64))  # noqa: S311 - it spreads load
        self._connection: Connection | None = None
        self._listed = False
        self._was_connected = False
        self._broken = asyncio.Event()
        self._error: HypervisorError | None = None
        self._facts: HostFacts | None = None
        self._told: object = None
        self._stops: dict[str, StopReason] = {}
        self._device_waiters: dict[tuple[str, str], asyncio.Future[bool]] = {}
        self._reader = Reader(self.read, self._tell)
        self._agents: dict[str, asyncio.Task[None]] = {}
        self._heart = Heart(target.heartbeat_seconds, lambda: self._connection, self._tell)
        self._task: asyncio.Task[None] | None = None

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

    def image_in_use(self, path: str) -> bool:
        """Whether a domain that is not off has the image at this path."""
        users = (self.store.get(uuid) for uuid in self.store.users_of(path))
        return any(user is not None and user.state in ACTIVE for user in users)

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
        """Raises NotConnected."""
        if self.state is not ConnectionState.CONNECTED and not self._sender.dead:
            raise self._not_connected()

    def _not_connected(self) -> NotConnected:
        why = f": {self._error.message}" if self._error is not None else ""
        return NotConnected(f"host {self.target.name} is not connected{why}", reason="NotConnected")

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

    def start(self) -> None:
        """Connect, and stay connected. Never blocks."""
        self._task = self._loop.create_task(self._keep())

    async def close(self) -> None:
        """Disconnect. What was sent takes effect all the same."""
        tasks = [*self._agents.values(), *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._disconnect()
        self._heart.stop()

    def abandon(self) -> None:
        """The process died: its tasks end without doing anything, and the host finds its connection closed."""
        for task in (*self._agents.values(), *([] if self._task is None else [self._task])):
            task.cancel()
        self._reader.reset()
        self._heart.stop()
        if self._connection is not None:
            self._connection.close()

    async def _keep(self) -> None:
        pauses = delays(self._rng)
        while True:
            try:
                await self._connect()
            except HypervisorError as error:
                self._error = error
                self._disconnect()
                self._tell()
                await asyncio.sleep(next(pauses))
                continue
            pauses = delays(self._rng)
            await self._stay()
            self._disconnect()
            self._tell()

    async def _connect(self) -> None:
        self._broken.clear()
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
        await self._list()
        self._facts = await self._call("facts", _facts, deadlines.FACTS_SECONDS)
        self._listed = self._was_connected = True
        self._error = None
        self._tell()

    def _lost(self) -> None:
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
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for waiter in self._device_waiters.values():
            waiter.cancel()

    # Observing -------------------------------------------------------------------------------------------------------

    async def refresh(self, uuid: str | None) -> ConnectionView:
        """Ask the host anew. Raises HypervisorError."""
        self.require_connected()
        if uuid is None:
            await self._list()
        else:
            await self.read(uuid)
        return self.view()

    async def refresh_facts(self) -> HostFacts:
        """Ask the host anew what it is."""
        before = self._facts
        facts: HostFacts = await self.call("facts", _facts, deadlines.FACTS_SECONDS)
        self._facts = facts
        if before != facts:
            self._listener(self.target.name, None)
        return facts

    async def read(self, uuid: str) -> None:
        """Read one domain and keep the answer. Raises HypervisorError."""
        ticket = self.store.ticket(self._loop.time())
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
        facts: GuestFacts | None = await self.call(
            "query_guest",
            lambda daemon: domains.query_guest(daemon, uuid),
            deadlines.GUEST_SECONDS,
            uuid=uuid,
            guest=True,
        )
        if facts is not None and self.store.guest(uuid, facts):
            self._listener(self.target.name, uuid)
        return facts

    async def _list(self) -> None:
        ticket = self.store.ticket(self._loop.time())
        uuids = await self._call("list", domains.list_uuids, deadlines.LIST_SECONDS)
        two = asyncio.Semaphore(2)

        async def one(uuid: str) -> DomainObservation | None:
            async with two:
                return await self._ask(uuid)

        found = await asyncio.gather(*(one(uuid) for uuid in uuids))
        for uuid in sorted(self.store.listed(ticket, {seen.uuid: seen for seen in found if seen is not None})):
            self._changed(uuid)

    async def _ask(self, uuid: str) -> DomainObservation | None:
        remembered = self._stops.get(uuid)
        try:
            reading = await self._read(uuid, guest=True)
            return None if reading is None else reading.observation(remembered)
        except HostTimeout:
            # The document of a running domain is asked of its QEMU, which may be frozen; its state is not.
            reading = await self._read(uuid, guest=False)
        seen = None if reading is None else reading.observation(remembered)
        known = self.store.get(uuid)
        if seen is None or known is None:
            return seen
        return replace(known, state=seen.state, stop_reason=seen.stop_reason, paused_reason=seen.paused_reason)

    async def _read(self, uuid: str, *, guest: bool) -> domains.Reading | None:
        def effect(daemon: Daemon) -> domains.Reading | None:
            return domains.read(daemon, uuid, shallow=not guest)

        reading: domains.Reading | None = await self._call(
            "read", effect, deadlines.READ_SECONDS, uuid=uuid, guest=guest
        )
        return reading

    def _changed(self, uuid: str) -> None:
        seen = self.store.get(uuid)
        if seen is None:
            self._stops.pop(uuid, None)
        connected = seen is not None and seen.state is DomainState.RUNNING and seen.agent_connected
        if connected and uuid not in self._agents:
            self._agents[uuid] = self._loop.create_task(self._ask_agent(uuid))
        elif not connected and uuid in self._agents:
            self._agents.pop(uuid).cancel()
        self._listener(self.target.name, uuid)

    async def _ask_agent(self, uuid: str) -> None:
        """Once, when an agent connects. One that does not answer then stays unknown, as there are no late addresses."""
        with contextlib.suppress(HypervisorError):
            await self.query_guest(uuid)

    def _tell(self) -> None:
        """Tell of the host itself, when something about its connection is new."""
        now = (self.state, self._fresh, None if self._error is None else self._error.reason)
        if now != self._told:
            self._told = now
            self._listener(self.target.name, None)

    # Events ----------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if event.happening is Happening.STOPPED and event.stop_reason is not None:
            self._stops[event.uuid] = event.stop_reason
        elif event.happening is Happening.STARTED:
            self._stops.pop(event.uuid, None)
        elif event.happening is Happening.DEVICE_REMOVED:
            waiter = self._device_waiters.get((event.uuid, event.alias))
            if waiter is not None and not waiter.done():
                waiter.set_result(True)
        self._reader.request(event.uuid)

    @contextlib.contextmanager
    def device_leaving(self, uuid: str, alias: str) -> Iterator[asyncio.Future[bool]]:
        """A future of when the guest has given the device up; cancelled when the connection breaks."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._device_waiters[uuid, alias] = waiter
        try:
            yield waiter
        finally:
            if self._device_waiters.get((uuid, alias)) is waiter:
                del self._device_waiters[uuid, alias]


def machine_name(uri: str) -> str:
    """The machine that a URI means: `simulated://NAME`, or the first label of the host of a libvirt URI."""
    try:
        return (urlsplit(uri).hostname or "").partition(".")[0]
    except ValueError:
        return ""


def _facts(daemon: Daemon) -> HostFacts:
    return daemon.machine.facts
