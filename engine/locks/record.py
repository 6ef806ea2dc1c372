"""What the Lease of a lock says, and every rule about who may have it: pure.

A record is the token, those who hold the lock and those who wait for it. Each is one entry: `id` names this one claim,
`operation` the work that it is for. An operation has a lock at most once.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from engine.keys import Object
from engine.locks.errors import Unreadable

ANNOTATION = "hostler.dev/lock"
SUBJECT = "hostler.dev/lock-of"
LEFT = ""
"""The session of an entry whose holder has left it to whoever goes on with its work."""


class Mode(StrEnum):
    """Alone, or together with others who share."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Lockable:
    """An object that can be locked; no such object needs to exist.

    `rank`: where its kind stands in the one order in which locks are taken, the lowest first. `floor`: the highest
    token that the object itself remembers, so that tokens rise also when the Lease was deleted.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    rank: int = field(compare=False)
    floor: int = field(default=0, compare=False)

    @property
    def lease_name(self) -> str:
        return f"lock.{self.kind.lower()}.{self.uid}"

    @property
    def place(self) -> tuple[int, str, str, str, str]:
        """Its place in the one order."""
        return self.rank, self.kind, self.namespace, self.name, self.uid

    def __str__(self) -> str:
        return f"{self.kind} " + "/".join(part for part in (self.namespace, self.name) if part)


Wanted = tuple[Lockable, Mode]


@dataclass(frozen=True, slots=True)
class Entry:
    """One who holds or waits.

    `session`, `process`: whose, by identity and in words. `operation`, `doing`: for what, by name and in words.
    `since`: RFC 3339; since when it holds, or the age that it waits by. `grace`: seconds from the last sign of life of
    its session after which it may be taken over. `token`: of its grant; 0 while it waits. `wanted`: all that the claim
    is about.
    """

    id: str
    session: str
    process: str
    operation: str
    doing: str
    mode: Mode
    since: str
    grace: float
    priority: int = 0
    token: int = 0
    wanted: tuple[Wanted, ...] = ()

    @property
    def turn(self) -> tuple[int, str, str]:
        """Whose turn it is: priority, then age, then id; the same order in every lock, so nobody waits in a circle."""
        return -self.priority, self.since, self.id

    def described(self, subject: Lockable) -> str:
        """For the user whom it stands in the way of."""
        how = f"is held {'alone' if self.mode is Mode.EXCLUSIVE else 'together with others'} by"
        if not self.token:
            how = "is waited for by"
        who = f"in process {self.process}" if self.session != LEFT else f"left unfinished by process {self.process}"
        return f"{subject} {how} {self.operation} ({self.doing}), {who}, since {self.since}"


@dataclass(frozen=True, slots=True)
class Record:
    """Everything about one lock. `token`: that of the latest grant, 0 before the first."""

    token: int = 0
    holders: tuple[Entry, ...] = ()
    waiters: tuple[Entry, ...] = ()

    def holds(self, id_: str) -> Entry | None:
        return next((entry for entry in self.holders if entry.id == id_), None)

    def blockers(self, entry: Entry, lapsed: Collection[str] = ()) -> tuple[Entry, ...]:
        """Those who keep it from being granted.

        `lapsed`: ids whose sessions are dead for long enough; such a holder makes room for its own operation only.
        """
        holders = [h for h in self.holders if h.id != entry.id and not _resumes(entry, h, lapsed)]
        blocking = [h for h in holders if _exclude(h, entry) or h.operation == entry.operation]
        if len(holders) == len(self.holders):
            blocking += [w for w in self.waiters if w.id != entry.id and _exclude(w, entry) and w.turn < entry.turn]
        # Who goes on with what it held does not queue behind those who wait for it to end.
        return tuple(blocking)

    def granted(self, entry: Entry, floor: int = 0, lapsed: Collection[str] = ()) -> "Record":
        """With the entry as a holder; what nobody blocks only. Done already: the same record."""
        if self.holds(entry.id):
            return self
        token = max(self.token, floor) + 1
        holders = tuple(h for h in self.holders if not _resumes(entry, h, lapsed))
        waiters = tuple(w for w in self.waiters if w.id != entry.id)
        return Record(token, (*holders, replace(entry, token=token)), waiters)

    def queued(self, entry: Entry) -> "Record":
        """With the entry among those who wait, and no longer among the holders."""
        holders = tuple(h for h in self.holders if h.id != entry.id)
        waiters = (*(w for w in self.waiters if w.id != entry.id), entry)
        return Record(self.token, holders, tuple(sorted(waiters, key=lambda w: w.turn)))

    def without(self, id_: str) -> "Record":
        """Without that claim, whether it holds or waits; the token stays."""
        return Record(
            self.token, tuple(h for h in self.holders if h.id != id_), tuple(w for w in self.waiters if w.id != id_)
        )

    def left(self, id_: str) -> "Record":
        """With what that claim holds left to whoever goes on with its operation, at once; it waits no longer."""
        holders = tuple(replace(h, session=LEFT) if h.id == id_ else h for h in self.holders)
        return Record(self.token, holders, tuple(w for w in self.waiters if w.id != id_))


_ENTRY = tuple(one.name for one in fields(Entry) if one.name != "wanted")
_LOCKABLE = tuple(one.name for one in fields(Lockable))


def _exclude(one: Entry, other: Entry) -> bool:
    return Mode.EXCLUSIVE in (one.mode, other.mode)


def _resumes(entry: Entry, holder: Entry, lapsed: Collection[str]) -> bool:
    return holder.operation == entry.operation and holder.id != entry.id and holder.id in lapsed


def parse(lease: Object) -> Record:
    """The record in a Lease. Unreadable when it is not what `render` wrote."""
    metadata = lease["metadata"]
    try:
        told = json.loads((metadata.get("annotations") or {})[ANNOTATION])
        holders, waiters = (tuple(_entry(entry) for entry in told[part]) for part in ("holders", "waiters"))
        return Record(int(lease["spec"]["leaseTransitions"]), holders, waiters)
    except (ValueError, LookupError, TypeError) as error:
        raise Unreadable(f"the Lease {metadata['name']} is no record of a lock: {error!r}") from error


def render(record: Record) -> tuple[str, str]:
    """(the annotation, `holderIdentity` for people: "" when nobody holds it)."""
    told = {part: [_told(entry) for entry in getattr(record, part)] for part in ("holders", "waiters")}
    names = ", ".join(f"{h.operation} ({h.mode})" for h in record.holders[:3])
    more = len(record.holders) - 3
    return json.dumps(told, separators=(",", ":")), names + (f" and {more} more" if more > 0 else "")


def _told(entry: Entry) -> dict[str, Any]:
    told = {name: getattr(entry, name) for name in _ENTRY}
    return told | {"wanted": [[{name: getattr(of, name) for name in _LOCKABLE}, mode] for of, mode in entry.wanted]}


def _entry(told: dict[str, Any]) -> Entry:
    wanted = tuple((Lockable(**lockable), Mode(mode)) for lockable, mode in told["wanted"])
    return Entry(**(told | {"mode": Mode(told["mode"]), "wanted": wanted}))
