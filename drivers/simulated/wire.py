"""What travels between a driver and a daemon: requests, answers, events, and when each arrives."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from drivers.errors import ConnectFailed, HostUnavailable, HypervisorError
from drivers.model import StopReason
from drivers.simulated.faults import Delay, LoseReply, LoseRequest, Raise

if TYPE_CHECKING:
    from drivers.simulated.daemon import Daemon
    from drivers.simulated.machine import Machine

T = TypeVar("T")


class Happening(StrEnum):
    """What an event is about."""

    CHANGED = "changed"
    STARTED = "started"
    STOPPED = "stopped"
    DEVICE_REMOVED = "device-removed"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a domain."""

    happening: Happening
    uuid: str
    stop_reason: StopReason | None = None
    """Of STOPPED."""
    alias: str = ""
    """Of DEVICE_REMOVED."""


@dataclass(frozen=True, slots=True)
class Later(Generic[T]):
    """What an effect that takes its time returns: call `finish` after seconds for the answer."""

    seconds: float
    finish: Callable[[], T]


Effect = Callable[["Daemon"], Any]
"""What a call does on the host: returns its answer, or a Later; raises HypervisorError."""
Answer = Callable[[Any, HypervisorError | None], None]
"""Takes the answer, at the caller."""


class Sender:
    """The process that calls."""

    __slots__ = ("dead", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        """It sends nothing and hears nothing any more."""


class Connection:
    """A client's connection to one run of a daemon."""

    __slots__ = ("_context", "_event", "_lost", "_pending", "_quiet_until", "generation", "machine", "open", "sender")

    def __init__(
        self, machine: Machine, sender: Sender, event: Callable[[Event], None], lost: Callable[[], None]
    ) -> None:
        """event, lost: called at the client, in the context in which this is made."""
        self.machine = machine
        self.sender = sender
        self.generation = -1
        """Which run of the daemon it belongs to, once it is accepted."""
        self.open = True
        self._event = event
        self._lost = lost
        self._context: Context = copy_context()
        self._pending: dict[Request, None] = {}
        self._quiet_until = 0.0

    def call(
        self, method: str, effect: Effect, answer: Answer, *, uuid: str | None = None, guest: bool = False
    ) -> Request:
        """Send a call. uuid: the domain that it is about; guest: it needs the domain's QEMU."""
        request = Request(self, method, effect, answer, uuid, guest)
        self._pending[request] = None
        request.send()
        return request

    def tell(self, event: Event) -> None:
        """Send an event to the client; events arrive in their order."""
        world = self.machine.world
        at = max(world.now + world.latency("event"), self._quiet_until)
        self._quiet_until = at
        self.machine.transmit(at - world.now, lambda: self._hear(event))

    def answered(self, request: Request) -> None:
        """A call has got its answer, or nobody waits for one any more."""
        self._pending.pop(request, None)

    def close(self) -> None:
        """The client closes it: what was sent takes effect all the same."""
        self.open = False
        self.machine.daemon.forget(self)

    def broken(self) -> None:
        """The client finds the connection broken: nothing that was asked on it will be answered."""
        if not self.open or self.sender.dead:
            return
        self.close()
        for request in list(self._pending):
            request.settle(None, HostUnavailable(f"{request.method}: the connection broke", reason="ConnectionLost"))
        self._enter(self._lost)

    def _hear(self, event: Event) -> None:
        if self.open and not self.sender.dead:
            self._enter(self._event, event)

    def _enter(self, call: Callable[..., None], *arguments: object) -> None:
        """Have the client's code run in the client's context: it stops when its process does."""
        self.machine.world.soon(self._context, call, *arguments)


class Request:
    """One call, from its caller to the daemon and back."""

    __slots__ = ("_answer", "_back", "_reply_lost", "connection", "effect", "guest", "method", "uuid")

    def __init__(
        self, connection: Connection, method: str, effect: Effect, answer: Answer, uuid: str | None, guest: bool
    ) -> None:
        self.connection = connection
        self.method = method
        self.effect = effect
        self.uuid = uuid
        self.guest = guest
        self._answer = answer
        self._back = 0.0
        self._reply_lost = False

    @property
    def who(self) -> str:
        """The process that called."""
        return self.connection.sender.name

    def send(self) -> None:
        """Put it on its way."""
        machine, world = self.connection.machine, self.connection.machine.world
        seconds = world.latency(self.method)
        there = seconds * world.random.uniform(0.2, 0.8)
        self._back = seconds - there
        for fault in world.faults.of(machine.name, self.method):
            match fault:
                case Delay(more):
                    there += more
                case LoseRequest():
                    world.note(machine.name, f"fault: {self.method} of {self.who} lost")
                    return
                case LoseReply():
                    world.note(machine.name, f"fault: reply to {self.method} of {self.who} lost")
                    self._reply_lost = True
                case Raise(error):
                    world.note(machine.name, f"fault: {self.method} of {self.who} refused: {error.reason}")
                    self.effect = _raising(error)
        machine.transmit(there, lambda: machine.daemon.receive(self))

    def reply(self, result: Any, error: HypervisorError | None) -> None:
        """The daemon answers."""
        if not self._reply_lost:
            self.connection.machine.transmit(self._back, lambda: self.settle(result, error))

    def refuse(self) -> None:
        """Nobody listens there: the machine itself says so."""
        machine = self.connection.machine
        if self.method == "connect":
            error = ConnectFailed(f"nothing answers at {machine.name}; is its daemon running?", reason="Unreachable")
            self.reply(None, error)
        else:
            machine.transmit(self._back, self.connection.broken)

    def settle(self, result: Any, error: HypervisorError | None) -> None:
        """The answer has arrived."""
        self.connection.answered(self)
        if not self.connection.sender.dead:
            self._answer(result, error)


def _raising(error: HypervisorError) -> Effect:
    def effect(daemon: Daemon) -> None:
        del daemon
        raise error

    return effect
