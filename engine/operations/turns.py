"""Whose turn it is: among the operations that are known, who waits for whom. In memory, from the objects alone.

Every process sees the same objects, so all of them come to the same order: those that work already, then parts of
those, then priority, age, name. Who wants something alone is not overtaken by those who would share it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine.keys import Key
from engine.locks.record import Mode
from engine.operations.order import Order

Turn = tuple[int, int, str, str]


@dataclass(frozen=True, slots=True)
class _Want:
    turn: Turn
    modes: dict[str, Mode]
    running: bool


@dataclass(slots=True)
class _Line:
    """Of one lock."""

    running: dict[Key, Mode] = field(default_factory=dict)
    waiting: list[tuple[Turn, Key]] = field(default_factory=list)


class Turns:
    """Operations that have not ended, and what they want."""

    def __init__(self) -> None:
        self._wants: dict[Key, _Want] = {}
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        return len(self._wants)

    def put(self, order: Order, *, running: bool) -> None:
        """It is there; or what is known of it has changed."""
        known = self._wants.get(order.key)
        want = _Want(_turn(order), {lockable.lease_name: mode for lockable, mode in order.wanted}, running)
        if known == want:
            return
        self._take_out(order.key)
        self._wants[order.key] = want
        for lock, mode in want.modes.items():
            line = self._lines.setdefault(lock, _Line())
            if running:
                line.running[order.key] = mode
            else:
                insort(line.waiting, (want.turn, order.key))

    def remove(self, key: Key) -> set[Key]:
        """It has ended, or is gone; those whose turn it may be now."""
        want = self._wants.get(key)
        if want is None:
            return set()
        self._take_out(key)
        return self.first(want.modes)

    def first(self, locks: Iterable[str]) -> set[Key]:
        """Those who come first of all who wait for these locks."""
        return {key for lock in locks for key in self._next(lock)}

    def ahead(self, key: Key) -> tuple[str, Key, bool] | None:
        """(lock, operation, whether it works already) that comes before; None: it may try."""
        want = self._wants.get(key)
        if want is None or want.running:
            return None
        for lock, mode in want.modes.items():
            line = self._lines[lock]
            for other, held in line.running.items():
                if _exclude(held, mode):
                    return lock, other, True
            for turn, other in line.waiting:
                if turn >= want.turn:
                    break
                if _exclude(self._wants[other].modes[lock], mode):
                    return lock, other, False
        return None

    def _next(self, lock: str) -> Iterator[Key]:
        line = self._lines.get(lock)
        if line is None:
            return
        for _, key in line.waiting:
            yield key
            if self._wants[key].modes[lock] is Mode.EXCLUSIVE:
                return

    def _take_out(self, key: Key) -> None:
        want = self._wants.pop(key, None)
        if want is None:
            return
        for lock in want.modes:
            line = self._lines[lock]
            if want.running:
                line.running.pop(key, None)
            else:
                at = bisect_left(line.waiting, (want.turn, key))
                del line.waiting[at]
            if not line.running and not line.waiting:
                del self._lines[lock]


def _turn(order: Order) -> Turn:
    # What a running operation waits for must not queue behind those who wait for that operation.
    return 0 if order.awaited else 1, -order.priority, order.since, order.name


def _exclude(one: Mode, other: Mode) -> bool:
    return Mode.EXCLUSIVE in (one, other)
