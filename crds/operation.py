"""Operation: work on several objects, or longer than one look at them; what Hostler is doing, and what became of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crds.base import (
    AGE_COLUMN,
    LIST_ATOMIC,
    MAX_OBJECT_NAME,
    Column,
    Kind,
    Model,
    Resource,
    Rule,
    Status,
    list_map,
    reason_column,
)

Word = Annotated[str, Field(min_length=1, max_length=63, json_schema_extra={"pattern": "^[A-Za-z][A-Za-z0-9]*$"})]
"""A CamelCase word: a kind, a type of operation."""
Name = Annotated[str, Field(min_length=1, max_length=MAX_OBJECT_NAME)]
Uid = Annotated[str, Field(min_length=1, max_length=128)]
Json = Annotated[str, Field(max_length=65536)]


class OperationTarget(Model):
    """The object that an operation is about."""

    kind: Word
    """Kind of the object."""
    namespace: Name | None = None
    """Its namespace; absent for a cluster-scoped object."""
    name: Name
    """Its name."""
    uid: Uid
    """Its uid, as it was asked for."""


class OperationRef(Model):
    """Another operation."""

    namespace: Name
    """Its namespace."""
    name: Name
    """Its name."""
    uid: Uid
    """Its uid."""


class ExecutionReason(StrEnum):
    """Whether work goes forward or takes back."""

    REGULAR = "Regular"
    ROLLBACK = "Rollback"


class OperationMode(StrEnum):
    """Whether it is still wanted."""

    RUN = "Run"
    CANCEL = "Cancel"


class LockUse(StrEnum):
    """Under whose locks an operation works."""

    INHERIT = "Inherit"
    OWN = "Own"
    NONE = "None"


class Compensation(StrEnum):
    """What becomes of an operation when its parent rolls back."""

    INHERIT = "Inherit"
    OWN = "Own"
    DETACHED = "Detached"


class OperationContext(Model):
    """In what connection an operation is done."""

    correlation_id: str = Field(min_length=1, max_length=128)
    """The same for everything that came of one request; also in the logs."""
    requested_by: str = Field(max_length=256)
    """Who asked for it, where that is known."""
    lock: LockUse
    """Own: it takes locks of its own. Inherit: it works under those of its parent. None: it takes none."""
    compensation: Compensation
    """When its parent rolls back: Inherit, it is undone too, also after it has succeeded; Own, it is cancelled while it
    runs, and stays once it has succeeded; Detached, it is left alone.
    """


class LockMode(StrEnum):
    """Alone, or together with others who share."""

    EXCLUSIVE = "Exclusive"
    SHARED = "Shared"


class OperationLock(OperationTarget):
    """A lock that an operation needs."""

    mode: LockMode
    """Exclusive: nobody else may work on that object. Shared: others who share may."""
    rank: int = Field(ge=0, le=1000)
    """Where its kind stands in the one order in which locks are taken."""
    floor: int = Field(ge=0, le=9007199254740991)
    """The highest token of the lock that the object itself remembers."""


class OperationSpec(Model):
    """What is to be done; only `mode` ever changes."""

    type: Word
    """What is done, for example CloneDisk."""
    target: OperationTarget
    """What it is done to."""
    parameters: Json
    """What it needs to know besides, as JSON."""
    execution_reason: ExecutionReason
    """Regular, or Rollback: it takes back what another one has done, and can itself neither be cancelled nor undone."""
    mode: OperationMode
    """Run. Cancel: it is rolled back if it has not passed the point of no return; deleting it says the same."""
    priority: int = Field(ge=-1000, le=1000)
    """Among those who wait for the same locks the highest comes first, then the oldest."""
    locks: list[OperationLock] = Field(max_length=64, json_schema_extra=LIST_ATOMIC)
    """What it locks while it works: all of it or nothing."""
    parent: OperationRef | None = None
    """The operation that it is a part of."""
    undoes: OperationRef | None = None
    """The operation whose work a Rollback takes back."""
    context: OperationContext
    """In what connection it is done."""


class OperationPhase(StrEnum):
    """Where an operation stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    ROLLING_BACK = "RollingBack"
    SUCCEEDED = "Succeeded"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"


class StepState(StrEnum):
    """Where a step stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    DONE = "Done"
    UNDOING = "Undoing"
    UNDONE = "Undone"
    UNDO_FAILED = "UndoFailed"


class OperationStep(Model):
    """One step."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the step, the only one of that name in the operation."""
    does: Word
    """What kind of step it is."""
    parameters: Json
    """What it was planned with, as JSON."""
    pivot: bool
    """Whether the operation can only go forward once this is done."""
    state: StepState
    """Running and Undoing are written before anything is done; UndoFailed is tried again for ever."""
    started_at: datetime | None = None
    """When it was begun."""
    finished_at: datetime | None = None
    """When it was seen to be done, or undone."""
    progress: int | None = Field(default=None, ge=0, le=100)
    """Percent, where that is known."""
    result: str | None = Field(default=None, max_length=1024)
    """What came of it."""
    attempts: int | None = Field(default=None, ge=0)
    """How often it has failed so far."""
    message: str | None = Field(default=None, max_length=1024)
    """Why it failed last."""


class HeldLock(Model):
    """A lock that the operation holds."""

    kind: Word
    """Kind of the object."""
    namespace: Name | None = None
    """Its namespace; absent for a cluster-scoped object."""
    name: Name
    """Its name."""
    mode: LockMode
    """Alone, or together with others."""
    token: int
    """Number of this grant among all grants of the lock."""


class OperationStatus(Status):
    """How far the work has come: its journal."""

    phase: OperationPhase | None = None
    """Pending (waits for locks), Running, RollingBack, Succeeded, RolledBack (nothing of it is left), Failed (refused
    before anything was done).
    """
    step: str | None = Field(default=None, max_length=300)
    """The step that is under way, as "2/5 copy"."""
    progress: int | None = Field(default=None, ge=0, le=100)
    """Percent of all steps."""
    started_at: datetime | None = None
    """When it had its locks and began."""
    finished_at: datetime | None = None
    """When it ended."""
    steps: list[OperationStep] = Field(default_factory=list, max_length=64, json_schema_extra=list_map("name"))
    """The plan, written once, and where each step stands."""
    locks: list[HeldLock] = Field(default_factory=list, max_length=64, json_schema_extra=LIST_ATOMIC)
    """What it has locked now."""
    first_cause: str | None = Field(default=None, max_length=1024)
    """Why it is rolled back: what went wrong first, whatever went wrong later."""


class Operation(Resource[OperationSpec, OperationStatus]):
    """Work on several objects, or longer than one look at them."""


_FIXED = ("type", "target", "parameters", "executionReason", "priority", "locks", "context")
_FIXED_IF_THERE = ("parent", "undoes")

OPERATION = Kind(
    kind="Operation",
    plural="operations",
    model=Operation,
    namespaced=True,
    short_names=("op",),
    columns=(
        Column("Type", ".spec.type"),
        Column("Target", ".spec.target.name"),
        Column("Phase", ".status.phase"),
        Column("Step", ".status.step"),
        Column("Progress", ".status.progress", type="integer"),
        Column("Kind", ".spec.target.kind", priority=1),
        reason_column(),
        AGE_COLUMN,
    ),
    description=(
        "What Hostler is doing, and what became of it. Written by Hostler only: people read it; deleting it cancels it."
    ),
    rules=(
        Rule(
            " && ".join(
                [f"self.spec.{name} == oldSelf.spec.{name}" for name in _FIXED]
                + [
                    f"has(self.spec.{name}) == has(oldSelf.spec.{name})"
                    f" && (!has(self.spec.{name}) || self.spec.{name} == oldSelf.spec.{name})"
                    for name in _FIXED_IF_THERE
                ]
            ),
            "cannot be changed: an operation is what it was when it was asked for. Delete it to cancel it",
            field_path=".spec",
            reason="FieldValueForbidden",
        ),
        Rule(
            "self.spec.mode == 'Cancel' || oldSelf.spec.mode == 'Run'",
            "cannot be taken back: what was cancelled stays cancelled",
            field_path=".spec.mode",
            reason="FieldValueForbidden",
        ),
    ),
    selectable_fields=(".spec.type", ".status.phase"),
)
