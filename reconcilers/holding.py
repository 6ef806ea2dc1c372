"""Our finalizer: no object of ours goes away before what hangs on it is settled."""

from __future__ import annotations

from typing import Any, TypeVar

from crds.base import FINALIZER, Resource
from engine import finalizers
from reconcilers.context import FIELD_MANAGER, Context
from reconcilers.objects import API, key_of

R = TypeVar("R", bound=Resource[Any, Any])


async def hold(ctx: Context, obj: R) -> R:
    """Have our finalizer on the object; the newest object comes back.

    Raises engine.errors.Conflict when it changed meanwhile, and NotFound when it is gone.
    """
    raw = ctx.cache.get(key_of(obj))
    if raw is None or obj.metadata.deleting or FINALIZER in obj.metadata.finalizers:
        return obj
    await finalizers.ensure(ctx.client, ctx.cache, API[obj.kind], raw, FINALIZER, manager=FIELD_MANAGER)
    return ctx.objects.get(type(obj), obj.metadata.name, obj.metadata.namespace) or obj


async def let_go(ctx: Context, obj: Resource[Any, Any]) -> None:
    """Take our finalizer off the object; it may be gone already."""
    raw = ctx.cache.get(key_of(obj))
    if raw is not None:
        await finalizers.remove(ctx.client, ctx.cache, API[obj.kind], raw, FINALIZER, manager=FIELD_MANAGER)
