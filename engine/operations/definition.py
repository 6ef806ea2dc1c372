"""What an operation is made of: the classes that a new one derives from. See the package for an example."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from engine.clock import Clock
from engine.locks import Grant, Lockable
from engine.locks.record import Mode, Wanted
from engine.operations.decide import Work
from engine.operations.journal import Entry, Journal
from engine.operations.order import OWNED_LABEL, Order
from engine.operations.outcomes import Done, InProgress, Observed, Permanent, Refusal

if TYPE_CHECKING:
    from engine.operations.manager import Operations

W = TypeVar("W")
"""The world that steps act on: whatever the process hands to all of them."""


@dataclass(frozen=True)
class Locked:
    """What an operation locks; nobody else may touch `exclusive`, others who share may touch `shared`."""

    exclusive: Sequence[Lockable] = ()
    shared: Sequence[Lockable] = ()

    def wanted(self) -> tuple[Wanted, ...]:
        modes = [(lockable, Mode.EXCLUSIVE) for lockable in self.exclusive]
        modes += [(lockable, Mode.SHARED) for lockable in self.shared]
        return tuple(sorted(modes, key=lambda wanted: wanted[0].place))


@dataclass
class Subject(Generic[W]):
    """What a check and a plan go by. `order.uid` is "" for one that was only asked about."""

    world: W
    order: Order
    operations: Operations[W]


@dataclass
class Run(Subject[W]):
    """One step at work: what it may use."""

    grant: Grant
    journal: Journal
    clock: Clock
    sent_until: float | None = None
    """Monotonic time by which every call that was sent has ended."""

    def check(self, seconds: float = 0.0) -> None:
        """Right before each call to the world, with that call's deadline in seconds; nothing is awaited in between.

        SessionLost, GrantOver, CallTooLong: let them pass; the step is looked at anew, here or elsewhere.
        """
        self.grant.check(seconds)
        self.sent_until = max(self.sent_until or 0.0, self.clock.monotonic() + seconds)

    def token(self, lockable: Lockable) -> int:
        """The token of a lock of this operation: what is written to that object carries it."""
        return self.grant.token(lockable)

    @property
    def maker(self) -> str:
        """Uid of the operation that makes what this step makes; in a rollback, of the one that is taken back.

        Whatever is made carries it, or a name made of it; what does not is another's, and is never undone.
        """
        return self.order.undoes.uid if self.order.undoes is not None else self.order.uid

    @property
    def labels(self) -> dict[str, str]:
        """For whatever is made in the API: whose it is."""
        return {OWNED_LABEL: self.maker}

    def result(self, step: str) -> str:
        """What came of an earlier step; "" if it is not done."""
        return self.journal.result(step)


@dataclass(frozen=True)
class Step(ABC, Generic[W]):
    """One step: its name, and parameters that JSON can say. Nothing else of it outlives the process.

    Every method may be called again, also when it has succeeded before, and by another process. Long work is begun by
    `do`, goes on by itself, and is seen by `observe`; nothing sleeps.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    pivot: ClassVar[bool] = False
    """Once this step is done, the operation can only go forward."""
    bound_seconds: ClassVar[float] = 600.0
    """How long it may take before people are told that it takes long."""

    @abstractmethod
    async def observe(self, run: Run[W]) -> Observed:
        """What became of it, if it was begun. It changes nothing."""

    @abstractmethod
    async def do(self, run: Run[W]) -> Done | InProgress:
        """Do it, or begin to."""

    async def undo(self, run: Run[W]) -> InProgress | None:
        """Leave nothing of it. What is absent is done; what this operation did not surely make stays."""
        return None


StepTypes = tuple[type[Step[Any]], ...]


class Operation(ABC, Generic[W]):
    """One type of operation."""

    type: ClassVar[str]
    """Its name, one CamelCase word."""
    kind_of_work: ClassVar[Work]
    steps: ClassVar[StepTypes]
    """Every class of which its plans are made; a journal names them."""
    tries: ClassVar[int] = 6
    patience_seconds: ClassVar[float] = 300.0
    """A step of a saga that has failed so often, and not come about in that time, has failed for good."""
    wait_seconds: ClassVar[float | None] = None
    """How long it may wait for its locks before it fails; None: until it has them."""

    @abstractmethod
    def locks(self, subject: Subject[W]) -> Locked:
        """What it locks, asked once when it is requested."""

    async def check(self, subject: Subject[W]) -> Refusal | None:
        """Why it cannot be done, as far as that can be said before anything is written; also asked of whole batches."""
        return None

    @abstractmethod
    async def plan(self, subject: Subject[W]) -> Sequence[Step[W]]:
        """The steps. Names and parameters follow from what is recorded: ids, never chance or the time."""

    def doing(self, order: Order) -> str:
        """What it does, in words for those in whose way it stands."""
        return f"{self.type} of {order.target}"

    def entries(self, steps: Sequence[Step[W]]) -> tuple[Entry, ...]:
        """The plan as the journal has it. Permanent for a plan that no journal can hold."""
        names = [step.name for step in steps]
        if len(set(names)) < len(names):
            raise Permanent(f"{self.type} planned two steps of one name")
        strange = [type(step).__name__ for step in steps if type(step) not in self.steps]
        if strange:
            raise Permanent(f"{self.type} planned {strange[0]}, which its steps do not name")
        return tuple(
            Entry(s.name, type(s).__name__, json.dumps(s.parameters, separators=(",", ":")), s.pivot) for s in steps
        )

    def step(self, entry: Entry) -> Step[W] | None:
        """The step that a journal speaks of; None when this version has none of that kind."""
        made = next((one for one in self.steps if one.__name__ == entry.does), None)
        return None if made is None else made(entry.name, json.loads(entry.parameters))
