"""The disk's descriptive status, computed from facts in one function."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crds.disk import Disk, DiskPhase
from crds.quantity import from_bytes
from drivers.model import Volume
from reconcilers.standing import Verdict, conditions


def status_of(
    disk: Disk,
    verdict: Verdict,
    phase: DiskPhase | None,
    volume: Volume | None,
    used_by: list[str],
    progress: int | None,
    now: datetime,
) -> dict[str, Any]:
    """All descriptive fields, as the API carries them. `volume` None: it was not seen; its last known size stays."""
    known = disk.status.volume
    return {
        "phase": phase.value if phase is not None else None,
        "host": known.host if known is not None else None,
        "path": known.path if known is not None and known.provisioned_at is not None else None,
        "virtualSize": from_bytes(volume.capacity) if volume is not None else disk.status.virtual_size,
        "progress": f"{progress}%" if progress is not None else None,
        "usedBy": used_by,
        "conditions": conditions(disk, verdict, now),
    }
