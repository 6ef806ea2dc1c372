"""What this process remembers of a storage domain between two looks, and can do without after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from crds.storage_domain import StorageDomain
from engine.cache import Cache
from reconcilers.context import Context
from reconcilers.storage_domain.marker import Marker


@dataclass
class Memory:
    """All times are monotonic."""

    first_connected: float | None = None
    pending: tuple[str, Marker, float] | None = None
    """A marker that was written here: host, marker, when. After a restart such a marker is adopted instead."""
    refused: tuple[str, ...] = ()
    """Hosts that did not see it."""
    refused_at: float = float("-inf")
    swept_at: float = float("-inf")
    trash_due: float | None = None


_memories: WeakKeyDictionary[Cache, dict[str, Memory]] = WeakKeyDictionary()


def memory_of(ctx: Context, domain: StorageDomain) -> Memory:
    """The memory of this very object; a new one of the same name begins anew."""
    return _memories.setdefault(ctx.cache, {}).setdefault(domain.metadata.uid, Memory())


def forget(ctx: Context, domain: StorageDomain) -> None:
    """The object goes."""
    _memories.get(ctx.cache, {}).pop(domain.metadata.uid, None)
