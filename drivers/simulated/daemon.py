"""libvirtd of one machine: what it knows, whom it tells, and what waits while it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from drivers.errors import HypervisorError, Refused
from drivers.model import DomainState, StopReason
from drivers.simulated import documents
from drivers.simulated.documents import Document
from drivers.simulated.drives import redraw
from drivers.simulated.qemu import Qemu
from drivers.simulated.wire import Connection, Event, Happening, Later, Request

if TYPE_CHECKING:
    from drivers.simulated.machine import Machine


class Domain:
    """A domain as its daemon knows it."""

    __slots__ = ("definition", "name", "qemu", "stop_reason", "uuid")

    def __init__(self, uuid: str, name: str, definition: Document) -> None:
        self.uuid = uuid
        self.name = name
        self.definition = definition
        self.stop_reason = StopReason.UNKNOWN
        """Why it is off, as long as it is."""
        self.qemu: Qemu | None = None
        """Its process, as far as the daemon has noticed."""

    @property
    def state(self) -> DomainState:
        """As libvirt says it."""
        if self.qemu is None:
            return DomainState.SHUT_OFF
        return DomainState.PAUSED if self.qemu.paused else DomainState.RUNNING


class Daemon:
    """A daemon. What reaches it is done in order; while it is stopped, it waits."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.domains: dict[str, Domain] = {}
        self.pools: dict[str, str] = {}
        """Name of each storage pool by its directory."""
        self.generation = 0
        """Which run of the daemon this is."""
        self.alive = True
        self.hung = False
        self.starts = 0
        """How many domains were started here."""
        self._connections: dict[Connection, None] = {}
        self._waiting: list[Callable[[], None]] = []

    # Life ------------------------------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Stop."""
        self.hung = True
        self._note("daemon stopped")

    def resume(self) -> None:
        """Go on, with all that waits."""
        if not self.hung:
            return
        self.hung = False
        self._note("daemon goes on")
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()

    def kill(self) -> None:
        """End. What waits is lost, and so is why domains are off."""
        if not self.alive:
            return
        self.vanish()
        self._note("daemon killed")
        connections, self._connections = self._connections, {}
        for connection in connections:
            self.machine.transmit(self.machine.world.latency("event"), connection.broken)

    def vanish(self) -> None:
        """End, with nobody to say so."""
        self.alive = False
        self.hung = False
        self._waiting.clear()

    def start(self) -> None:
        """Begin anew, and look at which processes are there."""
        if self.alive:
            return
        self.alive = True
        self.generation += 1
        self._connections.clear()
        self._note("daemon started")
        for domain in self.domains.values():
            domain.stop_reason = StopReason.UNKNOWN
            if domain.qemu is not None and domain.qemu.gone:
                domain.qemu, domain.stop_reason = None, StopReason.CRASHED
            elif domain.qemu is not None:
                domain.qemu.trayless = frozenset()
                redraw(domain.qemu)

    def boot(self) -> None:
        """Begin anew after a reboot: domains are defined, none runs, and pools that were not defined are gone."""
        for domain in self.domains.values():
            domain.qemu = None
        self.pools.clear()
        self.start()

    # Calls -----------------------------------------------------------------------------------------------------------

    def receive(self, request: Request) -> None:
        """A call has arrived at the machine."""
        if not self.machine.powered:
            return
        if not self.alive:
            request.refuse()
            return
        self._when_running(lambda: self._serve(request))

    def accept(self, connection: Connection) -> None:
        """Take a new client; it hears of all that happens from now on."""
        connection.generation = self.generation
        self._connections[connection] = None

    def forget(self, connection: Connection) -> None:
        """A client has gone."""
        self._connections.pop(connection, None)

    def go_on(self, qemu: Qemu) -> None:
        """Serve what waited for a process."""
        parked, qemu.parked = qemu.parked, []
        for request in parked:
            self._when_running(lambda request=request: self._serve(request))  # type: ignore[misc]

    def _when_running(self, work: Callable[[], None]) -> None:
        if self.hung:
            self._waiting.append(work)
        elif self.alive:
            work()

    def _serve(self, request: Request) -> None:
        if request.method != "connect" and request.connection.generation != self.generation:
            request.refuse()
            return
        qemu = self.machine.qemus.get(request.uuid or "") if request.guest else None
        if qemu is not None and qemu.frozen:
            qemu.parked.append(request)
            return
        self._answer(request, lambda: request.effect(self))

    def _answer(self, request: Request, work: Callable[[], object]) -> None:
        try:
            result = work()
        except HypervisorError as error:
            request.reply(None, error)
            return
        if isinstance(result, Later):
            self.machine.world.later(result.seconds, self._finish, request, result, self.machine.boot_id)
        else:
            request.reply(result, None)

    def _finish(self, request: Request, work: Later[object], boot_id: str) -> None:
        """Whatever became of the daemon meanwhile, the work itself ends as long as the machine runs."""
        if not self.machine.powered or self.machine.boot_id != boot_id:
            return
        result, refused = None, None
        try:
            result = work.finish()
        except HypervisorError as error:
            refused = error
        if request.connection.generation == self.generation:
            self._when_running(lambda: request.reply(result, refused))

    # What happens to domains -----------------------------------------------------------------------------------------

    def noticed(self, work: Callable[[], None]) -> None:
        """Something happened that the daemon notices, once it runs; one that is not there never does."""
        self._when_running(work)

    def tell(self, event: Event) -> None:
        """Tell all clients."""
        for connection in self._connections:
            connection.tell(event)

    def changed(self, uuid: str) -> None:
        """Tell all clients that a domain is to be read anew."""
        self.tell(Event(Happening.CHANGED, uuid))

    def qemu_ended(self, qemu: Qemu, cause: StopReason) -> None:
        """A process is gone."""
        for request in qemu.parked:
            request.reply(None, Refused(f"{request.method}: domain is not running", reason="NotRunning"))
        qemu.parked.clear()
        domain = self.domains.get(qemu.uuid)
        if domain is not None and domain.qemu is qemu:
            domain.qemu, domain.stop_reason = None, cause
            self.tell(Event(Happening.STOPPED, qemu.uuid, stop_reason=cause))

    def agent_changed(self, qemu: Qemu) -> None:
        """A guest agent has come or gone."""
        root = qemu.live.root
        documents.set_agent(root, connected=qemu.agent is not None)
        qemu.live = documents.to_document(root)
        self.changed(qemu.uuid)

    def _note(self, what: str) -> None:
        self.machine.world.note(self.machine.name, what)
