"""What must never happen to machines and files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Breach(StrEnum):
    """What must never happen."""

    TWO_WRITERS = "TwoWriters"
    """Two processes write one file."""
    TWO_PROCESSES = "TwoProcesses"
    """One domain runs twice."""
    DELETED_IN_USE = "DeletedInUse"
    """A file was deleted that a process writes."""
    CHANGED_IN_USE = "ChangedInUse"
    """A file was written or resized from outside while a process writes it, or a layer while another one reads it."""


@dataclass(frozen=True)
class Violation:
    """A breach, recorded the moment it happens."""

    time: float
    breach: Breach
    machines: tuple[str, ...]
    what: str
