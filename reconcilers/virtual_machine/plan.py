"""The words in which a VM's next step is said: what `decide` goes by, and what it answers. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crds.virtual_machine import PowerAction, VMPhase
from reconcilers.ownership import Ownership
from reconcilers.standing import Verdict
from xmlgen.sections import Changes


@dataclass(frozen=True)
class Nothing:
    """Nothing to do."""


@dataclass(frozen=True)
class Start:
    """Place the VM and start it; on one of these hosts only, where an earlier start may be under way."""

    only: frozenset[str] | None


@dataclass(frozen=True)
class Shutdown:
    """Ask the guest to power off."""

    host: str
    uuid: str


@dataclass(frozen=True)
class Destroy:
    """Cut the power of these domains."""

    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Undefine:
    """Remove definitions of the VM that is off."""

    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Act:
    """Do what a power request asks of the running guest."""

    host: str
    uuid: str
    action: PowerAction


@dataclass(frozen=True)
class Apply:
    """Change the running domain."""

    host: str
    uuid: str
    changes: Changes
    force: frozenset[str] = frozenset()
    """Aliases of the drives whose tray is opened though the guest holds it."""


@dataclass(frozen=True)
class Stamp:
    """Write our identity anew into the running domain: its object was made again, or its epoch rebuilt."""

    host: str
    uuid: str


@dataclass(frozen=True)
class Release:
    """Let the object go: remove what is left of the VM (or leave it all, for an orphan), then our finalizer."""

    orphan: bool
    hosts: tuple[str, ...] = ()


OneCall = Shutdown | Destroy | Undefine | Act | Apply | Stamp
"""Steps that are carried out as they are said; the world is observed again right after."""
Step = Nothing | Start | Release | OneCall


@dataclass(frozen=True)
class Plan:
    """One step, the facts to write down before it, and how the VM stands meanwhile."""

    step: Step
    verdict: Verdict | None
    """None: nothing new is known, the status stays as it is."""
    phase: VMPhase | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Critical status fields to compare-and-set before the step."""
    again: float | None = None
    """Seconds after which to look again, if nothing happens before."""


@dataclass(frozen=True)
class Tray:
    """How long ago, in seconds, a guest was first and last asked for the tray of a drive, which it holds."""

    first: float
    last: float


@dataclass(frozen=True)
class Observed:
    """What `decide` goes by."""

    now: datetime
    ownership: Ownership
    lost: frozenset[str]
    """Hosts that count as lost (NonResponsive, or not reachable since we started)."""
    needs: Verdict | None = None
    """What is missing before the VM can run."""
    lacking: bool = False
    """Whether the running domain lacks a declared drive or card, or has another image than declared in a drive."""
    changes: Changes | None = None
    """How the running domain differs from the spec; None while that cannot be said."""
    trays: Mapping[str, Tray] = field(default_factory=dict)
    """By alias: drives of which the guest holds the tray."""
    running_since: datetime | None = None
    last_shutdown: float | None = None
    """Seconds since the guest was last asked to shut down, by this process."""
