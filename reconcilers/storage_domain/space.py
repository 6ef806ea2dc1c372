"""Free space of a storage domain: what is shown of it, when it is low, and when no more may be put there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crds.quantity import to_bytes
from crds.storage_domain import StorageDomain
from drivers.model import PoolInfo
from placement import size

_HYSTERESIS_PERCENT = 1


@dataclass(frozen=True)
class Low:
    """The SpaceLow condition."""

    is_low: bool
    message: str


def low(domain: StorageDomain, spaces: Mapping[str, PoolInfo]) -> Low:
    """Whether free space is short on any of these file systems (by host). Once low, it must rise 1 % above."""
    before = domain.status.condition("SpaceLow")
    was_low = before is not None and before.status == "True"
    percent = int(domain.spec.thresholds.warn_free.removesuffix("%"))
    limit = percent + (_HYSTERESIS_PERCENT if was_low else 0)
    short = sorted(host for host, space in spaces.items() if space.available * 100 < limit * space.capacity)
    if not short:
        return Low(is_low=False, message="")
    return Low(is_low=True, message=f"less than {percent}% is free (seen on host {', '.join(short[:10])})")


def may_allocate(domain: StorageDomain, amount: int, space: PoolInfo | None = None) -> str | None:
    """Why a volume that takes `amount` bytes may not be made on the domain; None when it may.

    Goes by `space`, the file system as just seen, or else by the domain's status, which is rounded and may be 5 minutes
    old. A thin volume takes 0 bytes when it is made.
    """
    if space is None and domain.status.available is None:
        return None
    available = space.available if space is not None else to_bytes(domain.status.available or "0")
    reserve = to_bytes(domain.spec.thresholds.block_free)
    if available - amount >= reserve:
        return None
    name, needed = domain.metadata.name, f" and {size(amount)} are needed" if amount else ""
    return (
        f"storage domain {name} has {size(available)} free{needed}; {size(reserve)} must stay free "
        "(spec.thresholds.blockFree): free some space, or use another one"
    )
