"""Conditions in the shape of `metav1.Condition`, as pure functions.

Kept apart from the status writer because a reconciler computes its conditions long before it writes, and because
the one rule that is easy to get wrong (when `lastTransitionTime` moves) lives here once.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from engine.clock import timestamp

Condition = dict[str, Any]


def condition(type: str, status: bool | None, reason: str, message: str, generation: int) -> Condition:  # noqa: A002
    """A condition without `lastTransitionTime`, which `merge` gives it. `status` None means Unknown."""
    word = "Unknown" if status is None else str(bool(status))
    return {"type": type, "status": word, "reason": reason, "message": message, "observedGeneration": generation}


def merge(
    old: Iterable[Mapping[str, Any]],
    new: Iterable[Mapping[str, Any]],
    now: datetime,
    *,
    keep_others: bool = False,
) -> list[Condition]:
    """The conditions to write, sorted by type.

    `lastTransitionTime` is the old one while the status is the same, else `now`. Types that `new` does not name are
    dropped, or kept as they were with `keep_others`. Of several in `new` with one type the last counts.
    """
    before = {entry["type"]: entry for entry in old}
    merged = {kind: dict(entry) for kind, entry in before.items()} if keep_others else {}
    for entry in new:
        previous = before.get(entry["type"], {})
        unchanged = previous.get("status") == entry["status"] and previous.get("lastTransitionTime")
        since = previous["lastTransitionTime"] if unchanged else timestamp(now)
        merged[entry["type"]] = {**entry, "lastTransitionTime": since}
    return [merged[kind] for kind in sorted(merged)]
