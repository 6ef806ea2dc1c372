"""What the cache knows of operations, kept beside it: whose turn it is, who is whose child, who has ended when.

It listens to the cache, and has looked at whoever is concerned: an operation that somebody changed, the parent of one
that has come further, the children of one that rolls back or has ended, and those whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from engine import metrics
from engine.cache import Cache
from engine.keys import Key, Object
from engine.operations import journal as book
from engine.operations import order as orders
from engine.operations.journal import ENDED, Phase
from engine.operations.order import KIND, LockUse, Order
from engine.operations.turns import Turns


@dataclass(frozen=True, slots=True)
class _Fact:
    uid: str
    type: str
    phase: Phase
    finished_at: str
    parent: Key | None
    parent_uid: str
    awaited: bool


class Known:
    """Everything in one event loop."""

    def __init__(self, cache: Cache, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._facts: dict[Key, _Fact] = {}
        self._children: dict[Key, set[Key]] = {}
        self._turns = Turns()
        cache.watch(self._changed)

    def ahead(self, key: Key) -> tuple[str, Key, bool] | None:
        """See Turns.ahead."""
        return self._turns.ahead(key)

    def freed(self, locks: Iterable[str]) -> None:
        """They are free now, not only about to be: those whose turn it may be are looked at."""
        self._wake_all(self._turns.first(locks))

    def has_ended(self, name: str) -> bool:
        """Whether the operation that locks know by this name has ended, or is not there."""
        fact = self._facts.get(Key(KIND, *name.split("/", 1)))
        return fact is None or fact.phase in ENDED

    def part_of_open(self, key: Key) -> bool:
        """Whether an operation that it is a part of has not ended: that one may still want to know of it."""
        return any(self._facts[above].phase not in ENDED for above in self.above(key))

    def awaited_by(self, key: Key) -> set[Key]:
        """The operations that wait for it: its parent, and those that wait for that one."""
        waiting: set[Key] = set()
        below = key
        for above in self.above(key):
            if not self._facts[below].awaited:
                break
            waiting.add(above)
            below = above
        return waiting

    def wake_children(self, key: Key) -> None:
        """They may go now."""
        self._wake_all(self._children.get(key, set()))

    def above(self, key: Key) -> Iterator[Key]:
        """Its parent, and that one's, as far as they are there."""
        fact = self._facts.get(key)
        while fact is not None and fact.parent is not None:
            above = self._facts.get(fact.parent)
            if above is None or above.uid != fact.parent_uid:
                return
            yield fact.parent
            fact = above

    def ended(self, namespace: str, *, good: bool) -> list[tuple[str, Key]]:
        """(when, key) of all that have ended well, or not well, the oldest first."""
        return sorted(
            (fact.finished_at, key)
            for key, fact in self._facts.items()
            if key.namespace == namespace and fact.phase in ENDED and (fact.phase is Phase.SUCCEEDED) is good
        )

    def _changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        if key.kind != KIND:
            return
        if new is None:
            self._gone(key)
            return
        try:
            order, journal = orders.parse(new), book.parse(new)
        except (LookupError, ValueError, TypeError):
            return
        parent = order.parent.key if order.parent is not None else None
        parent_uid = order.parent.uid if order.parent is not None else ""
        before = self._facts.get(key)
        fact = _Fact(order.uid, order.type, journal.phase, journal.finished_at or "", parent, parent_uid, order.awaited)
        self._count(before, fact)
        self._facts[key] = fact
        if parent is not None:
            self._children.setdefault(parent, set()).add(key)
        self._take_turn(order, journal.phase)
        if old is None or _declared(old) != _declared(new):
            self._wake(key)
        if before is None or before.phase is not fact.phase:
            self._tell(key, parent)

    def _take_turn(self, order: Order, phase: Phase) -> None:
        if phase in ENDED:
            self._wake_all(self._turns.remove(order.key))
        elif order.context.lock is LockUse.OWN:
            self._turns.put(order, running=phase is not Phase.PENDING)

    def _gone(self, key: Key) -> None:
        fact = self._facts.pop(key, None)
        self._count(fact, None)
        if fact is not None and fact.parent is not None:
            self._children.get(fact.parent, set()).discard(key)
        self._wake_all(self._turns.remove(key))
        self._wake(key)
        self._tell(key, fact.parent if fact is not None else None)
        if not self._children.get(key):
            self._children.pop(key, None)

    def _tell(self, key: Key, parent: Key | None) -> None:
        self._wake_all(self._children.get(key, set()) | ({parent} if parent is not None else set()))

    def _wake_all(self, keys: set[Key]) -> None:
        for key in sorted(keys):
            self._wake(key)

    @staticmethod
    def _count(before: _Fact | None, after: _Fact | None) -> None:
        if before is not None and before.phase not in ENDED:
            metrics.operations_running.labels(before.type).dec()
        if after is not None and after.phase not in ENDED:
            metrics.operations_running.labels(after.type).inc()


def _declared(obj: Object) -> Any:
    """What others than the one who works on it write."""
    metadata = obj["metadata"]
    return [metadata.get(name) for name in ("uid", "generation", "deletionTimestamp", "annotations")]
