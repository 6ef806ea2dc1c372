"""What happened to locks, and whether it may: grants, uses and ends of work, judged against the truth of the run.

A use is *prompt* when it was sent in the very step that checked for it, else *late*: its process stood still in
between, which no lock can help. Late ones are for the guarded objects to refuse, by their tokens.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from engine.locks.record import ANNOTATION, Mode, parse
from simulator.messages import Change


@dataclass(frozen=True)
class Use:
    """One call to a locked object. `begin`, `end`: when it was sent, and its deadline (true seconds)."""

    lock: str
    operation: str
    mode: Mode
    token: int
    begin: float
    end: float
    prompt: bool

    def excludes(self, other: Use) -> bool:
        """Whether both may not happen at once: another grant's, and not both shared."""
        return self.token != other.token and Mode.EXCLUSIVE in (self.mode, other.mode)


@dataclass
class Guarded:
    """A locked object that looks at tokens."""

    highest: int = 0
    highest_exclusive: int = 0

    def accepts(self, use: Use) -> bool:
        """Refuses what is older than what it has seen of those who exclude it."""
        bound = self.highest if use.mode is Mode.EXCLUSIVE else self.highest_exclusive
        if use.token < bound:
            return False
        self.highest = max(self.highest, use.token)
        if use.mode is Mode.EXCLUSIVE:
            self.highest_exclusive = max(self.highest_exclusive, use.token)
        return True


@dataclass
class History:
    """`violations`: in words; empty is good."""

    violations: list[str] = field(default_factory=list)
    grants: int = 0
    uses: int = 0
    refused_late: int = 0
    recovered: int = 0
    _open: dict[str, dict[str, Mode]] = field(default_factory=dict)
    """Operation → what it has begun to change and not ended."""
    _uses: dict[str, list[Use]] = field(default_factory=lambda: defaultdict(list))
    _guarded: dict[str, Guarded] = field(default_factory=lambda: defaultdict(Guarded))
    _tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def stored(self, change: Change) -> None:
        """A Lease was written: tokens rise with each grant, and no two who exclude each other hold it."""
        if ANNOTATION not in (change.obj["metadata"].get("annotations") or {}):
            return
        name, record = change.obj["metadata"]["name"], parse(change.obj)
        fresh = [h.token for h in record.holders if h.token > self._tokens[name]]
        self.grants += len(fresh)
        if record.token < self._tokens[name] or len(fresh) > 1 or any(t != record.token for t in fresh):
            self.violations.append(f"{name}: token {record.token} after {self._tokens[name]}")
        if len(record.holders) > 1 and any(h.mode is Mode.EXCLUSIVE for h in record.holders):
            self.violations.append(f"{name}: held alone by one of {len(record.holders)}")
        if len({h.token for h in record.holders}) < len(record.holders):
            self.violations.append(f"{name}: one token for two grants")
        self._tokens[name] = record.token

    def used(self, use: Use) -> None:
        """A call was sent."""
        self.uses += 1
        if not self._guarded[use.lock].accepts(use):
            self.refused_late += not use.prompt
            if use.prompt:
                self.violations.append(f"{use}: refused, though its lock was valid")
            return
        if not use.prompt:
            return
        for other in self._uses[use.lock]:
            if other.excludes(use) and other.begin < use.end and use.begin < other.end:
                self.violations.append(f"{other} and {use}: at once")
        self._uses[use.lock].append(use)
        for operation, begun in self._open.items():
            if operation != use.operation and Mode.EXCLUSIVE in (begun.get(use.lock), use.mode) and use.lock in begun:
                self.violations.append(f"{use}: {operation} has begun there, and was not ended")
        self._open.setdefault(use.operation, {})[use.lock] = use.mode

    def ended(self, operation: str) -> None:
        """Nothing of it is left to do."""
        self._open.pop(operation, None)

    def begun(self, operation: str) -> bool:
        """Whether it has changed something and has not ended."""
        return operation in self._open
