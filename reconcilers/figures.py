"""Figures in status: rounded, and changed seldom, so that a settled fleet writes nothing."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from crds.quantity import to_bytes
from engine.cache import Cache
from engine.keys import Key
from placement import size
from reconcilers.context import Context

INTERVAL = 300.0
"""Seconds between two changes of one figure."""

_changed: WeakKeyDictionary[Cache, dict[tuple[Key, str], float]] = WeakKeyDictionary()


def settle(old: str | None, amount: int, scale: int, since_change: float) -> str:
    """The figure to show for an amount in bytes.

    `old` stays while the amount differs from it by at most 1 % of `scale` (the whole that it is a part of), and for
    300 s after its last change (`since_change` seconds ago).
    """
    if old is None:
        return size(amount)
    near = abs(to_bytes(old) - amount) * 100 <= max(scale, 1)
    return old if near or since_change < INTERVAL else size(amount)


def figure(ctx: Context, key: Key, name: str, old: str | None, amount: int, scale: int, *, now: bool = False) -> str:
    """`settle` for one figure of one object, which remembers when it last changed. `now` lets it change at once."""
    times = _changed.setdefault(ctx.cache, {})
    clock = ctx.clock.monotonic()
    since = INTERVAL if now else clock - times.get((key, name), -INTERVAL + clock)
    new = settle(old, amount, scale, since)
    if new != old:
        times[key, name] = clock
    return new


def forget(ctx: Context, key: Key) -> None:
    """The object is gone."""
    times = _changed.get(ctx.cache, {})
    for known in [k for k in times if k[0] == key]:
        del times[known]
