"""What is known of the domains of one host: pure bookkeeping in which older never overwrites newer.

Answers of a host overtake each other. Every question therefore draws a ticket *before* it is asked, and an answer
counts only if nothing was learned from a later ticket. A change on the host always causes a new question (its event
draws a later ticket), so dropping an overtaken answer loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from drivers.model import DomainObservation, DomainState, GuestFacts, Inventory


@dataclass(frozen=True)
class Ticket:
    """When a question was asked: its place in the order of questions, and the monotonic time."""

    number: int
    at: float


@dataclass(frozen=True)
class _Entry:
    number: int
    observation: DomainObservation | None
    """None: it was not there."""


class ObservationStore:
    """The observations of one host, across its connections."""

    def __init__(self) -> None:
        self._last_ticket = 0
        self._sequence = 0
        self._entries: dict[str, _Entry] = {}
        self._guests: dict[str, GuestFacts] = {}
        self._list: Ticket | None = None
        self._inventory: Inventory | None = None

    def ticket(self, now: float) -> Ticket:
        """Draw a ticket, right before the host is asked."""
        self._last_ticket += 1
        return Ticket(self._last_ticket, now)

    def get(self, uuid: str) -> DomainObservation | None:
        """The newest observation of a domain; None when it is not there or was never seen."""
        entry = self._entries.get(uuid)
        return None if entry is None else entry.observation

    def seen(self, ticket: Ticket, uuid: str, observation: DomainObservation | None) -> bool:
        """Take an answer about one domain (None: it is not there). Returns whether what is known has changed."""
        entry = self._entries.get(uuid)
        if ticket.number <= (entry.number if entry is not None else self._floor):
            return False
        return self._put(ticket, uuid, observation)

    def listed(self, ticket: Ticket, domains: Mapping[str, DomainObservation]) -> frozenset[str]:
        """Take a complete list. Returns the domains of which something has changed."""
        if ticket.number <= self._floor:
            return frozenset()
        changed = {uuid for uuid, seen in domains.items() if self.seen(ticket, uuid, seen)}
        for uuid, entry in list(self._entries.items()):
            if uuid in domains or entry.number > ticket.number:
                continue
            if entry.observation is not None:
                changed.add(uuid)
                self._sequence += 1
            self._forget(uuid)
        self._sequence += 1
        self._list = ticket
        return frozenset(changed)

    def guest(self, uuid: str, facts: GuestFacts) -> bool:
        """Take what a guest agent said. Returns whether it is news; nothing is kept of a domain that does not run."""
        entry = self._entries.get(uuid)
        if entry is None or entry.observation is None or entry.observation.state is not DomainState.RUNNING:
            return False
        self._guests[uuid] = facts
        if entry.observation.guest == facts:
            return False
        self._sequence += 1
        self._entries[uuid] = replace(entry, observation=replace(entry.observation, guest=facts))
        return True

    def inventory(self) -> Inventory | None:
        """All that is known; None until there was a complete list."""
        if self._list is None:
            return None
        if self._inventory is not None and self._inventory.sequence == self._sequence:
            return self._inventory
        domains = (entry.observation for entry in self._entries.values() if entry.observation is not None)
        self._inventory = Inventory(
            domains=tuple(sorted(domains, key=lambda domain: domain.uuid)),
            sequence=self._sequence,
            listed_at=self._list.at,
        )
        return self._inventory

    @property
    def _floor(self) -> int:
        return 0 if self._list is None else self._list.number

    def _put(self, ticket: Ticket, uuid: str, observation: DomainObservation | None) -> bool:
        before = self.get(uuid)
        if observation is None or observation.state in {DomainState.SHUT_OFF, DomainState.CRASHED}:
            self._guests.pop(uuid, None)
        if observation is not None:
            observation = replace(observation, guest=self._guests.get(uuid))
        self._entries[uuid] = _Entry(ticket.number, observation)
        if before == observation:
            return False
        self._sequence += 1
        return True

    def _forget(self, uuid: str) -> None:
        self._entries.pop(uuid, None)
        self._guests.pop(uuid, None)
