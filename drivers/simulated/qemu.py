"""A QEMU process: what it has open, and what its guest is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.hypervisor import GuestFacts
from drivers.simulated.documents import Document
from drivers.simulated.files import File, Store

if TYPE_CHECKING:
    from drivers.simulated.wire import Request


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that a process has open."""

    store: Store
    name: str
    file: File


class Qemu:
    """One process."""

    __slots__ = (
        "agent",
        "frozen",
        "gone",
        "live",
        "memory",
        "name",
        "parked",
        "paused",
        "powering_off",
        "reads",
        "since",
        "system",
        "uuid",
        "writes",
    )

    def __init__(self, uuid: str, name: str, live: Document, memory: int, since: float, *, paused: str) -> None:
        """live: its document; memory in bytes; paused: why it is, empty while it is not."""
        self.uuid = uuid
        self.name = name
        self.live = live
        self.memory = memory
        self.since = since
        self.paused = paused
        self.writes: dict[str, Opened] = {}
        """By path."""
        self.reads: dict[str, Opened] = {}
        self.frozen = False
        self.gone = False
        self.system = False
        """Whether its guest runs something that obeys."""
        self.powering_off = False
        self.agent: GuestFacts | None = None
        self.parked: list[Request] = []
        """Calls that wait for the process to answer."""

    def disks(self) -> Iterator[Opened]:
        """What its firmware may boot from, in order."""
        yield from self.writes.values()
        yield from self.reads.values()

    def holds(self, file: File) -> bool:
        """Whether it writes this file."""
        return any(opened.file is file for opened in self.writes.values())
