"""Operations: work on several objects, or longer than one look at them, that ends complete or undone.

What is to be done is an Operation object; how far it has come is the journal in its status. A new type of operation is
one small class, and one for each kind of step:

    class CopyDisk(Operation[World]):
        type = "CopyDisk"
        kind_of_work = Work.SAGA                 # all or nothing; RESUMABLE: forward only
        steps = (MakeVolume, CopyData)

        def locks(self, subject): ...            # Locked(exclusive=[…], shared=[…])
        async def check(self, subject): ...      # Refusal, or None: all that can be said before anything is written
        async def plan(self, subject): ...       # [MakeVolume("volume", {...}), CopyData("copy", {...})]

    class MakeVolume(Step[World]):
        async def observe(self, run): ...        # Done, NotDone, InProgress or Unknown; changes nothing
        async def do(self, run): ...             # Done or InProgress; run.check(seconds) right before each call
        async def undo(self, run): ...           # leaves nothing that this operation has made; None, or InProgress

`Operations` runs them: its `reconcile` is the reconciler of the kind. Others ask for one with `create(operations,
ordered(operations, Request(…)))`, or for several, all checked before the first is made, with `batch`. A step that is an
operation of its own is a `ChildStep`. When an object that is locked goes for good: `operations.forget(lockable)`.
docs/tasks.md has an example that runs, and says what holds.

    order, journal        what an object says: what is asked for, and how far it has come. Pure
    decide                the next move. Pure
    runner                one pass over one operation
    turns, known          who waits for whom, from the objects alone
    manager               locks, waiting, ends
    requests, children    operations that are asked for, by reconcilers and by one another
    keeper                the session that all locks of this process live by
    standing, retention   what people see, and how long
"""

from engine.operations.children import ChildStep
from engine.operations.decide import Work
from engine.operations.definition import Locked, Operation, Run, Step, Subject
from engine.operations.journal import Journal, Phase, State
from engine.operations.keeper import Alive, Keeper
from engine.operations.manager import FIELDS, Operations
from engine.operations.order import (
    OPERATIONS,
    OWNED_LABEL,
    Compensation,
    Context,
    LockUse,
    Order,
    Ref,
    Target,
)
from engine.operations.outcomes import Done, InProgress, NotDone, Observed, Passing, Permanent, Refusal, Unknown
from engine.operations.requests import Batch, Request, batch, cancel, create, ordered, refusals
from engine.operations.retention import Retention

__all__ = [
    "FIELDS",
    "OPERATIONS",
    "OWNED_LABEL",
    "Alive",
    "Batch",
    "ChildStep",
    "Compensation",
    "Context",
    "Done",
    "InProgress",
    "Journal",
    "Keeper",
    "LockUse",
    "Locked",
    "NotDone",
    "Observed",
    "Operation",
    "Operations",
    "Order",
    "Passing",
    "Permanent",
    "Phase",
    "Ref",
    "Refusal",
    "Request",
    "Retention",
    "Run",
    "State",
    "Step",
    "Subject",
    "Target",
    "Unknown",
    "Work",
    "batch",
    "cancel",
    "create",
    "ordered",
    "refusals",
]
