"""A world of things that operations make and take away, for trying out operations with no kind of ours.

A thing is made by a call that takes its time, and may go on being made after that. The world looks at the token of
every call, as everything that is locked should, and judges each call that it carries out against the stored journal.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from engine.errors import EngineError
from engine.keys import Object
from engine.locks import Lockable
from engine.locks.record import Mode
from engine.operations import (
    ChildStep,
    Compensation,
    Done,
    InProgress,
    Locked,
    LockUse,
    NotDone,
    Observed,
    Operation,
    Passing,
    Permanent,
    Refusal,
    Request,
    Run,
    Step,
    Subject,
    Target,
    Unknown,
    Work,
)
from simulator.doors import Call, Door, Gate
from simulator.loop import Scope

CALL_SECONDS = 5.0
"""Deadline of one call to the world."""
_ONE_WAY = (0.001, 0.02)


class Busy(Passing):
    """The world refuses now; later it may not."""


class Silent(EngineError):
    """No answer came: what was asked may or may not be done."""


@dataclass(frozen=True)
class Token:
    """Of one lock of the operation that calls."""

    lock: str
    exclusive: bool
    number: int


@dataclass(frozen=True)
class Ask:
    """One call. `step`: for which; `maker`: uid of the operation that makes the thing; `operation`: that calls."""

    verb: str
    thing: str
    step: str
    maker: str
    operation: tuple[str, str]
    tokens: tuple[Token, ...]
    seconds: float = 0.0


@dataclass
class Thing:
    """`ready_at`: when it is whole."""

    maker: str
    ready_at: float


Trouble = Callable[[Ask], str | None]
"""What goes wrong with a call: "broken" for good, "busy", "silent" (carried out, no answer), or None."""


class Toys:
    """The truth. `journal`: the stored Operation of a name, for judging."""

    def __init__(self, journal: Callable[[str, str], Object | None]) -> None:
        self.things: dict[str, Thing] = {"others/cup": Thing("others", 0.0)}
        self.trouble: Trouble = lambda _: None
        self.fog = False
        """Nobody can say whether there is room."""
        self.slow = 0.0
        """Share of the calls that are under way for nearly as long as their deadline."""
        self.violations: list[str] = []
        self.calls = 0
        self.refused = 0
        self._journal = journal
        self._highest: dict[tuple[str, bool], int] = {}
        self._open: dict[str, tuple[str, str]] = {}

    def handle(self, ask: Ask) -> str:
        """Carry a call out, as a whole; the answer."""
        self.calls += 1
        if not all(self._fresh(token) for token in ask.tokens):
            self.refused += 1
            return "stale"
        trouble = self.trouble(ask)
        if trouble in ("broken", "busy"):
            return trouble
        answer: str = getattr(self, f"_{ask.verb}")(ask)
        return "silent" if trouble == "silent" else answer

    def _look(self, ask: Ask) -> str:
        thing = self.things.get(ask.thing)
        if thing is None:
            return "absent"
        if thing.maker != ask.maker:
            return "taken"
        return "there" if thing.ready_at <= _now() else "growing"

    def _make(self, ask: Ask) -> str:
        self._judge(ask, "Running")
        thing = self.things.get(ask.thing)
        if thing is not None and thing.maker != ask.maker:
            return "taken"
        if thing is None:
            self.things[ask.thing] = Thing(ask.maker, _now() + ask.seconds)
        return self._look(ask)

    def _remove(self, ask: Ask) -> str:
        self._judge(ask, "Undoing", "UndoFailed")
        thing = self.things.get(ask.thing)
        if thing is not None and thing.maker != ask.maker:
            self.violations.append(f"{ask}: removes what {thing.maker} has made")
        self.things.pop(ask.thing, None)
        return "absent"

    def _fresh(self, token: Token) -> bool:
        """Refuses what is older than what it has seen of those who exclude it."""
        alone = self._highest.get((token.lock, True), 0)
        if token.number < (max(alone, self._highest.get((token.lock, False), 0)) if token.exclusive else alone):
            return False
        at = token.lock, token.exclusive
        self._highest[at] = max(self._highest.get(at, 0), token.number)
        return True

    def _judge(self, ask: Ask, *states: str) -> None:
        """The intent stands in the journal, and nobody else is at work on what is locked alone."""
        found = self._journal(*ask.operation)
        steps = {step["name"]: step for step in ((found or {}).get("status") or {}).get("steps") or ()}
        state = steps.get(ask.step, {}).get("state")
        if state not in states:
            self.violations.append(f"{ask.verb} of {ask.operation}, step {ask.step}: the journal says {state}")
        root = self._root(ask.operation)
        for token in ask.tokens:
            if not token.exclusive:
                continue
            other = self._open.get(token.lock)
            if other is not None and other != root and self._unfinished(other):
                self.violations.append(f"{ask.operation} works on {token.lock}, and {other} has not ended")
            self._open[token.lock] = root

    def _root(self, operation: tuple[str, str]) -> tuple[str, str]:
        """The operation whose locks it works under, if each inherits from its parent."""
        found = self._journal(*operation)
        if found is None or found["spec"]["context"]["lock"] != "Inherit":
            return operation
        return self._root((found["spec"]["parent"]["namespace"], found["spec"]["parent"]["name"]))

    def _unfinished(self, operation: tuple[str, str]) -> bool:
        found = self._journal(*operation)
        phase = ((found or {}).get("status") or {}).get("phase")
        return found is not None and phase not in ("Succeeded", "RolledBack", "Failed")


class Hands:
    """What one process does to the world: calls that take time, and arrive whatever becomes of the caller."""

    def __init__(self, toys: Toys, scope: Scope, gate: Gate, rng: random.Random) -> None:
        self.toys = toys
        self._scope, self._gate, self._rng = scope, gate, rng

    async def ask(self, ask: Ask) -> str:
        """The answer; Busy, Silent after the deadline."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[str] = loop.create_future()
        call = Call(Door.HOST, ask.verb, "things", ask.verb != "look")
        await self._gate.enter(call, partial(self._send, ask, reply))
        try:
            answer = await asyncio.wait_for(reply, CALL_SECONDS)
        except TimeoutError as error:
            raise Silent(f"no answer to {ask.verb} {ask.thing}") from error
        if answer == "silent":
            raise Silent(f"{ask.verb} {ask.thing}: the connection broke")
        if answer == "busy":
            raise Busy(f"{ask.verb} {ask.step}: busy")
        if answer == "broken":
            raise Permanent(f"{ask.verb} {ask.step}: broken")
        return answer

    def _send(self, ask: Ask, reply: asyncio.Future[str], late: float, answered: Callable[[], None]) -> None:
        def arrive() -> None:
            answer = self.toys.handle(ask)
            answered()
            if answer != "silent":
                loop.call_later(self._rng.uniform(*_ONE_WAY), give, answer, context=Context())

        def give(answer: str) -> None:
            if not reply.done():
                reply.set_result(answer)

        loop = asyncio.get_running_loop()
        if self._rng.random() < self.toys.slow:
            late += self._rng.uniform(0.0, CALL_SECONDS * 0.95)
            if self._rng.random() < 0.5:
                # The connection breaks at once; what was sent arrives all the same.
                loop.call_later(self._rng.uniform(*_ONE_WAY), give, "silent", context=Context())
        loop.call_later(self._rng.uniform(*_ONE_WAY) + late, arrive, context=Context())


def _now() -> float:
    return asyncio.get_running_loop().time()


class Make(Step[Hands]):
    """Makes one thing. Parameters: `seconds` that it grows; `name`, if it is to have a certain one."""

    async def observe(self, run: Run[Hands]) -> Observed:
        match await self._ask(run, "look"):
            case "there":
                return Done(self.name)
            case "growing":
                return InProgress(50, 1.0)
            case "absent":
                return NotDone()
            case "taken":
                raise Permanent(f"{self.name}: somebody else's thing has that name")
            case said:
                return Unknown(said)

    async def do(self, run: Run[Hands]) -> Done | InProgress:
        said = await self._ask(run, "make")
        if said == "taken":
            raise Permanent(f"{self.name}: somebody else's thing has that name")
        if said == "stale":
            raise Busy("another process works on it")
        return Done(self.name) if said == "there" else InProgress(10, 1.0)

    async def undo(self, run: Run[Hands]) -> InProgress | None:
        match await self._ask(run, "look"):
            case "absent" | "taken":
                return None
            case "stale":
                raise Busy("another process works on it")
        await self._ask(run, "remove")
        return None

    async def _ask(self, run: Run[Hands], verb: str) -> str:
        operation = run.order.key.namespace, run.order.key.name
        seconds = float(self.parameters.get("seconds", 0.0))
        name = str(self.parameters.get("name") or f"{run.maker}/{self.name}")
        tokens = tuple(
            Token(lockable.lease_name, mode is Mode.EXCLUSIVE, run.token(lockable))
            for lockable, mode in run.order.wanted
        )
        run.check(CALL_SECONDS)
        return await run.world.ask(Ask(verb, name, self.name, run.maker, operation, tokens, seconds))


class Last(Make):
    """After it there is no way back."""

    pivot: ClassVar[bool] = True


def toy(name: str) -> Lockable:
    """A thing that can be locked."""
    return Lockable("Toy", "default", name, f"uid-{name}", rank=5)


def _locked(subject: Subject[Hands]) -> Locked:
    wanted = subject.order.parameters.get("locks", {})
    return Locked([toy(name) for name in wanted.get("alone", ())], [toy(name) for name in wanted.get("shared", ())])


class Build(Operation[Hands]):
    """All or nothing. Parameters: `steps` [{name, pivot, seconds, …}], `locks` {alone, shared}, `refuse`."""

    type: ClassVar[str] = "Build"
    kind_of_work: ClassVar[Work] = Work.SAGA
    steps: ClassVar = (Make, Last)

    def locks(self, subject: Subject[Hands]) -> Locked:
        return _locked(subject)

    async def check(self, subject: Subject[Hands]) -> Refusal | None:
        if subject.world.toys.fog:
            raise Busy("fog")
        why = subject.order.parameters.get("refuse")
        return Refusal("NoRoom", str(why)) if why else None

    async def plan(self, subject: Subject[Hands]) -> Sequence[Step[Hands]]:
        return [_step(told) for told in subject.order.parameters["steps"]]


class Mend(Build):
    """Forward only."""

    type: ClassVar[str] = "Mend"
    kind_of_work: ClassVar[Work] = Work.RESUMABLE


class Hurry(Build):
    """Waits for its locks no longer than a minute."""

    type: ClassVar[str] = "Hurry"
    wait_seconds: ClassVar[float | None] = 60.0


class Assemble(Operation[Hands]):
    """Things and other operations. `steps`: as for Build, or {name, child: its parameters, lock, compensation}."""

    type: ClassVar[str] = "Assemble"
    kind_of_work: ClassVar[Work] = Work.SAGA
    steps: ClassVar = (Make, Last, ChildStep)

    def locks(self, subject: Subject[Hands]) -> Locked:
        return _locked(subject)

    async def plan(self, subject: Subject[Hands]) -> Sequence[Step[Hands]]:
        return [
            _child(subject.order.target, told) if "child" in told else _step(told)
            for told in subject.order.parameters["steps"]
        ]


TYPES: tuple[Operation[Hands], ...] = (Build(), Mend(), Hurry(), Assemble())


def _step(told: Mapping[str, Any]) -> Step[Hands]:
    parameters = {name: told[name] for name in ("seconds", "name_of") if name in told}
    if "name_of" in parameters:
        parameters["name"] = parameters.pop("name_of")
    return (Last if told.get("pivot") else Make)(told["name"], parameters)


def _child(target: Target, told: Mapping[str, Any]) -> Step[Any]:
    lock, compensation = LockUse(told.get("lock", "Inherit")), Compensation(told.get("compensation", "Inherit"))
    return ChildStep.of(
        told["name"],
        Request(told.get("type", "Build"), target, told["child"], lock=lock, compensation=compensation),
    )


@dataclass
class Plan:
    """Parameters of a toy operation, put together in tests."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    alone: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As a request takes them."""
        return {"steps": self.steps, "locks": {"alone": list(self.alone), "shared": list(self.shared)}}


def parts(number: int, **of: Mapping[str, Any]) -> list[dict[str, Any]]:
    """So many steps, `part-1` and so on; `of`: more about some of them, as `part_2={"pivot": True}`."""
    return [{"name": f"part-{n}", **of.get(f"part_{n}", {})} for n in range(1, number + 1)]
