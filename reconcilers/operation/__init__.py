"""Operation: the kind that `engine.operations` works on, put together with everything that steps act on.

`TYPES` are all operations that Hostler knows; a new one is one more line here. Reconcilers of other kinds ask for one
by `request`, and are looked at again when it comes further: `reconcilers/wiring.py` wakes an operation's target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.keys import Key, Object
from engine.operations import Batch, Operation, Request, create, ordered
from engine.result import Result

if TYPE_CHECKING:
    from reconcilers.context import Context

TYPES: tuple[Operation[Any], ...] = (Batch(),)
"""Every type of operation, by which the journals of the cluster are read."""


async def reconcile(ctx: Context, key: Key) -> Result:
    """One look at an Operation."""
    return await ctx.operations.reconcile(key)


async def request(ctx: Context, wanted: Request) -> Object:
    """The Operation for this request, made if it is not there. Permanent for one that cannot be asked for."""
    return await create(ctx.operations, ordered(ctx.operations, wanted))
