"""The first seconds of a process, in which hosts are known from the status only and not yet from a connection.

What the process before this one wrote still stands then: to write that every host is lost, and a second later that none
is, would wake everything and tell people of a fault that never was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from crds.base import Resource
from drivers.model import ConnectionState, ConnectionView
from engine.cache import Cache
from reconcilers.context import Context

SECONDS = 10.0
AGAIN = 0.5

_started: WeakKeyDictionary[Cache, float] = WeakKeyDictionary()


def settling(ctx: Context, obj: Resource[Any, Any], hosts: Iterable[str]) -> bool:
    """Whether to leave the object's status as it is for now: this process is new, and has not heard of these hosts yet.

    Never so for a spec that nobody has looked at, and for 10 seconds at most. A host that refuses is heard of.
    """
    now = ctx.clock.monotonic()
    if now - _started.setdefault(ctx.cache, now) >= SECONDS:
        return False
    looked_at = obj.status.observed_generation == obj.metadata.generation
    return looked_at and any(is_unheard(ctx.view(host)) for host in hosts)


def is_unheard(view: ConnectionView | None) -> bool:
    """Whether a host is about to be heard of: neither listed yet nor known to refuse."""
    if view is None:
        return True
    if view.state is ConnectionState.CONNECTED:
        return not view.fresh
    # A heartbeat may have been answered already, while the first list is still being read.
    return view.state is ConnectionState.CONNECTING and view.error is None
