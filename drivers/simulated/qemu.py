"""A QEMU process: what it has open, and what its guest is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.model import GuestFacts, JobKind
from drivers.simulated.documents import Document
from drivers.simulated.files import File, Store
from drivers.simulated.layers import Layer

if TYPE_CHECKING:
    from drivers.simulated.wire import Request


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that a process has open."""

    store: Store
    name: str
    file: File


@dataclass(eq=False, slots=True)
class Job:
    """A block job of a drive."""

    kind: JobKind
    alias: str
    top: str
    """Path of the topmost layer that is moved or copied."""
    target: str
    """Path of the layer that is written: base, or the copy."""
    form: str
    """Its format."""
    shallow: bool
    """Of a copy: only the topmost layer."""
    total: int
    """Bytes."""
    bandwidth: int
    """Bytes per second; 0: no limit."""
    since: float
    """When `done` was so."""
    done: float = 0.0
    ready: bool = False


class Qemu:
    """One process."""

    __slots__ = (
        "agent",
        "below",
        "boots",
        "frozen",
        "gone",
        "jobs",
        "live",
        "locked_trays",
        "machine",
        "memory",
        "name",
        "parked",
        "paused",
        "powering_off",
        "quiesced",
        "reads",
        "sequence",
        "since",
        "system",
        "trayless",
        "uuid",
        "writes",
    )

    def __init__(
        self, machine: str, uuid: str, name: str, live: Document, memory: int, since: float, *, paused: str
    ) -> None:
        """machine: where it runs; live: its document; memory in bytes; paused: why it is, empty while it is not."""
        self.machine = machine
        self.uuid = uuid
        self.name = name
        self.live = live
        self.memory = memory
        self.since = since
        self.paused = paused
        self.writes: dict[str, Opened] = {}
        """By path."""
        self.reads: dict[str, Opened] = {}
        self.below: dict[str, tuple[Layer, ...]] = {}
        """By path of an image that it has open: the layers below that."""
        self.jobs: dict[str, Job] = {}
        """Block jobs, by alias of their drive."""
        self.quiesced = False
        """Whether the guest's file systems are frozen."""
        self.sequence = 0
        """What a guest that counts has written last (see `guests`)."""
        self.boots = 0
        """How often its firmware began anew."""
        self.frozen = False
        self.gone = False
        self.system = False
        """Whether its guest runs something that obeys."""
        self.powering_off = False
        self.agent: GuestFacts | None = None
        self.locked_trays: frozenset[str] = frozenset()
        """Aliases of the CD-ROM drives whose medium the guest has in use."""
        self.trayless: frozenset[str] = frozenset()
        """Aliases of drives that were plugged in since the daemon last looked at the process."""
        self.parked: list[Request] = []
        """Calls that wait for the process to answer."""

    def only_read(self) -> Iterator[File]:
        """What it has open and does not write: media, and layers below its images."""
        yield from (opened.file for opened in self.reads.values())
        yield from (layer.file for layers in self.below.values() for layer in layers)

    def open(self, path: str, opened: Opened, *, writes: bool) -> None:
        """Have a file open from now on."""
        if writes:
            self.writes[path] = opened
            opened.file.writers += (self,)
        else:
            self.reads[path] = opened

    def close(self, path: str) -> None:
        """Have the file of this path, and the layers below it, open no more."""
        self.reads.pop(path, None)
        self.below.pop(path, None)
        if opened := self.writes.pop(path, None):
            opened.file.writers = tuple(writer for writer in opened.file.writers if writer is not self)

    def end(self) -> None:
        """The process is gone, and nothing that it had open is any more."""
        self.gone = True
        for path in [*self.reads, *self.writes]:
            self.close(path)
