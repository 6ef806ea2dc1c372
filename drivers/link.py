"""The link to one host: connected and connected again, observed by events and complete lists, whatever the driver.

A driver subscribes to events before the first list is made, so that nothing can happen between the two unseen. After a
connection broke all of it is done anew; the observations of before stay as the newest there are, marked as not fresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

from drivers.errors import HostTimeout, HypervisorError, NotConnected
from drivers.hypervisor import HostListener, HostTarget
from drivers.model import (
    ACTIVE,
    ConnectionState,
    ConnectionView,
    DomainObservation,
    DomainState,
    GuestFacts,
    HostFacts,
    StopReason,
)
from drivers.observations import ObservationStore
from drivers.pauses import delays
from drivers.pulse import Pulse
from drivers.reader import Reader


class Link(ABC):
    """Keeps one host connected and observed from `start` to `close`.

    A driver says in the abstract methods how its host is spoken to, and reports what it hears.
    """

    _heart: Pulse
    """Made by the driver's constructor, which gives it `_tell`; it beats from `_reach` on."""

    def __init__(self, target: HostTarget, listener: HostListener, rng: random.Random | None = None) -> None:
        """rng: where the jitter between tries to connect comes from. Must be made within a running event loop."""
        self.target = target
        self.store = ObservationStore()
        self._listener = listener
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._listed = False
        self._was_connected = False
        self._broken = asyncio.Event()
        self._error: HypervisorError | None = None
        self.facts: HostFacts | None = None
        """See ConnectionView."""
        self._told: object = None
        self._stops: dict[str, StopReason] = {}
        self._device_waiters: dict[tuple[str, str], asyncio.Future[bool]] = {}
        self._reader = Reader(self.read, self._tell)
        self._task: asyncio.Task[None] | None = None

    # The driver's part -----------------------------------------------------------------------------------------------

    @abstractmethod
    async def _reach(self) -> None:
        """Connect, subscribe to all events, and have a heartbeat answered. Raises HypervisorError."""

    @abstractmethod
    def _leave(self) -> None:
        """Let go of all connections; calls under way are left to end by themselves."""

    @abstractmethod
    async def _ask_uuids(self) -> Sequence[str]:
        """UUIDs of all domains, running or not. Raises HypervisorError."""

    @abstractmethod
    async def _ask_domain(self, uuid: str, remembered: StopReason | None, *, shallow: bool) -> DomainObservation | None:
        """Read a domain; None when there is none. Raises HypervisorError.

        remembered: what its last event said of why it stopped; shallow: only what needs no QEMU, which may be frozen.
        """

    @abstractmethod
    async def _ask_facts(self) -> HostFacts:
        """What the host is. Raises HypervisorError."""

    @abstractmethod
    async def _ask_guest(self, uuid: str) -> GuestFacts | None:
        """What a guest's agent says; None where there is none. Raises HypervisorError."""

    @abstractmethod
    def _watch_guest(self, uuid: str, *, connected: bool) -> None:
        """Take note whether a domain's agent is connected: from then on it is asked now and then (`query_guest`)."""

    # What is known ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        if self._listed and self._heart.beating and not self._broken.is_set():
            return ConnectionState.CONNECTED
        return ConnectionState.SUSPECT if self._was_connected else ConnectionState.CONNECTING

    @property
    def fresh(self) -> bool:
        """See ConnectionView."""
        return self._heart.in_time and not self._reader.behind and self.state is ConnectionState.CONNECTED

    def view(self) -> ConnectionView:
        """What is known now."""
        return ConnectionView(
            state=self.state,
            facts=self.facts,
            inventory=self.store.inventory(),
            fresh=self.fresh,
            last_seen=self._heart.last_seen,
            error=self._error,
        )

    def image_in_use(self, path: str) -> bool:
        """Whether a domain that is not off has the image at this path."""
        inventory = self.store.inventory()
        return inventory is not None and any(domain.state in ACTIVE for domain in inventory.having(path))

    def require_connected(self) -> None:
        """Raises NotConnected."""
        if self.state is not ConnectionState.CONNECTED:
            raise self._not_connected()

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
        self._disconnect()

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
        await self._reach()
        await self._list()
        self.facts = await self._ask_facts()
        self._listed = self._was_connected = True
        self._error = None
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
        self._leave()
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
        """Ask the host anew what it is. Raises HypervisorError."""
        self.require_connected()
        before = self.facts
        facts = await self._ask_facts()
        self.facts = facts
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
        self.require_connected()
        facts = await self._ask_guest(uuid)
        if facts is not None and self.store.guest(uuid, facts):
            self._listener(self.target.name, uuid)
        return facts

    async def _list(self) -> None:
        ticket = self.store.ticket(self._loop.time())
        uuids = await self._ask_uuids()
        # A host is asked more at the same time: there is room left for it.
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
            return await self._ask_domain(uuid, remembered, shallow=False)
        except HostTimeout:
            # Since libvirt 11 the document of a running domain is asked of its QEMU, which may be frozen; state is not.
            seen = await self._ask_domain(uuid, remembered, shallow=True)
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
        if seen is None:
            self._stops.pop(uuid, None)
        connected = seen is not None and seen.state is DomainState.RUNNING and seen.agent_connected
        self._watch_guest(uuid, connected=connected)
        self._listener(self.target.name, uuid)

    def _tell(self) -> None:
        """Tell of the host itself, when something about its connection is new."""
        now = (self.state, self.fresh, None if self._error is None else self._error.reason)
        if now != self._told:
            self._told = now
            self._listener(self.target.name, None)

    # Events ----------------------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        """The connection broke."""
        self._error = NotConnected("the connection broke", reason="ConnectionLost")
        self._broken.set()
        self._tell()

    def _heard(self, uuid: str) -> None:
        """There was an event of this domain. What it said is not believed, only what is read after it."""
        self._reader.request(uuid)

    def _stopped(self, uuid: str, reason: StopReason) -> None:
        """It stopped for this reason: that is known from events only, and remembered until it starts again."""
        self._stops[uuid] = reason

    def _started(self, uuid: str) -> None:
        self._stops.pop(uuid, None)

    def _device_left(self, uuid: str, alias: str, *, left: bool) -> None:
        """The guest gave a device up, or refused to."""
        waiter = self._device_waiters.get((uuid, alias))
        if waiter is not None and not waiter.done():
            waiter.set_result(left)

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
