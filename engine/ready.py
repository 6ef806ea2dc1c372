"""Which waiting key is worked on next: the order inside the queue, with no time of its own and no waiting.

Apart from `queue` because this is where the rules are (priority, fairness, limits, patience), and rules are easier
to trust as plain data structures that a test can drive step by step.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from engine.keys import Key

Group = str | None


class Priority(IntEnum):
    """Lower is sooner."""

    URGENT = 0
    """High availability, and power-off that somebody asked for."""
    USER = 1
    """Somebody changed something and is looking."""
    PERIODIC = 2
    """A second look that nobody waits for."""


@dataclass(slots=True)
class Waiting:
    """One key that waits: since when (clock seconds), for what priority, in which group."""

    key: Key
    priority: Priority
    group: Group
    since: float


class Bucket:
    """The keys of one priority: first in first out inside a group, round robin over groups."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Group, OrderedDict[Key, Waiting]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __len__(self) -> int:
        return sum(len(members) for members in self._groups.values())

    def add(self, entry: Waiting) -> None:
        self._groups.setdefault(entry.group, OrderedDict())[entry.key] = entry

    def remove(self, entry: Waiting) -> None:
        members = self._groups[entry.group]
        del members[entry.key]
        if not members:
            del self._groups[entry.group]

    def take(self, full: "FullGroups") -> Waiting | None:
        """The first key of the group whose turn it is; that group then goes to the back of the row."""
        for group, members in self._groups.items():
            if not full(group):
                entry = next(iter(members.values()))
                self._groups.move_to_end(group)
                self.remove(entry)
                return entry
        return None

    def offers(self, full: "FullGroups") -> bool:
        """Whether `take` would find something."""
        return any(not full(group) for group in self._groups)

    def take_oldest(self, full: "FullGroups", before: float) -> Waiting | None:
        """The first-in-row key that has waited longest, if it has waited since `before` or longer."""
        heads = (next(iter(members.values())) for group, members in self._groups.items() if not full(group))
        oldest = min(heads, key=lambda entry: entry.since, default=None)
        if oldest is None or oldest.since > before:
            return None
        self._groups.move_to_end(oldest.group)
        self.remove(oldest)
        return oldest


@dataclass(slots=True)
class FullGroups:
    """Answers whether a group has as many keys in work as it may; a group of None is never full."""

    in_work: dict[Group, int]
    limit: int

    def __call__(self, group: Group) -> bool:
        return group is not None and self.limit > 0 and self.in_work.get(group, 0) >= self.limit


class ReadyList:
    """All waiting keys of all priorities, and the choice between them.

    Strict priority, except that after `share` hand-outs in a row each of which went past keys of a lower priority,
    one goes to such a key that has waited longer than `patience` seconds: what nobody waits for is slow during a
    storm, but never stands still. `group_limit` holds per group, once for URGENT keys and once for all others, so
    that ordinary work which hangs on a dead host never keeps urgent work on that host waiting.
    """

    def __init__(self, *, group_limit: int, patience: float, share: int) -> None:
        self._entries: dict[Key, Waiting] = {}
        self._buckets = {priority: Bucket() for priority in Priority}
        self._in_work: dict[bool, dict[Group, int]] = {True: {}, False: {}}
        self._limit = group_limit
        self._patience = patience
        self._share = share
        self._passed_over = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._entries.values())

    def depth(self, priority: Priority) -> int:
        return len(self._buckets[priority])

    def put(self, key: Key, priority: Priority, group: Group, now: float) -> bool:
        """Adds a key, or raises the priority and renews the group of one that waits. True when it was not waiting."""
        held = self._entries.get(key)
        if held is not None and held.priority <= priority and held.group == group:
            return False
        if held is not None:
            self._buckets[held.priority].remove(held)
            priority = min(priority, held.priority)
        entry = Waiting(key, priority, group, held.since if held is not None else now)
        self._entries[key] = entry
        self._buckets[priority].add(entry)
        return held is None

    def take(self, now: float, lowest: Priority) -> Waiting | None:
        """The next key to work on with `lowest` priority or a higher one; counts it as in work for its group."""
        entry = self._take_patient(now, lowest) or self._take_strict(lowest)
        if entry is None:
            return None
        del self._entries[entry.key]
        self._count(entry, +1)
        return entry

    def offers(self, lowest: Priority) -> bool:
        """Whether `take` would find something."""
        return any(self._buckets[each].offers(self._full(each)) for each in self._waiting(lowest))

    def release(self, entry: Waiting) -> None:
        """The work that `take` handed out has ended."""
        self._count(entry, -1)

    def _waiting(self, lowest: Priority) -> list[Priority]:
        """The priorities down to that one of which something waits, the highest first."""
        return [each for each, bucket in self._buckets.items() if each <= lowest and bucket]

    def _take_strict(self, lowest: Priority) -> Waiting | None:
        for priority in self._waiting(lowest):
            entry = self._buckets[priority].take(self._full(priority))
            if entry is not None:
                lower = any(self.depth(other) for other in Priority if other > priority)
                self._passed_over = self._passed_over + 1 if lower else 0
                return entry
        return None

    def _take_patient(self, now: float, lowest: Priority) -> Waiting | None:
        if self._passed_over < self._share:
            return None
        for priority in reversed(Priority):
            if priority > lowest or priority is Priority.URGENT:
                continue
            entry = self._buckets[priority].take_oldest(self._full(priority), now - self._patience)
            if entry is not None:
                self._passed_over = 0
                return entry
        return None

    def _full(self, priority: Priority) -> FullGroups:
        return FullGroups(self._in_work[priority is Priority.URGENT], self._limit)

    def _count(self, entry: Waiting, step: int) -> None:
        counts = self._in_work[entry.priority is Priority.URGENT]
        count = counts.get(entry.group, 0) + step
        if count:
            counts[entry.group] = count
        else:
            counts.pop(entry.group, None)
