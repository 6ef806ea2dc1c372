"""How long operations that have ended are kept for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.keys import Key
from engine.operations.journal import Journal, Phase


@dataclass(frozen=True)
class Retention:
    """Seconds and numbers; whichever comes first."""

    succeeded_seconds: float = 3600.0
    failed_seconds: float = 86400.0
    """Also of those that were rolled back."""
    succeeded_count: int = 100
    """In each namespace."""
    failed_count: int = 100

    def due(self, journal: Journal, now: datetime) -> float:
        """Seconds until one that has ended is deleted; 0 or less: now."""
        seconds = self.succeeded_seconds if journal.phase is Phase.SUCCEEDED else self.failed_seconds
        finished = datetime.fromisoformat(journal.finished_at) if journal.finished_at is not None else now
        return (finished + timedelta(seconds=seconds) - now).total_seconds()

    def surplus(self, phase: Phase, ended: Sequence[tuple[str, Key]]) -> list[Key]:
        """Those of them, the oldest first, that are too many."""
        count = self.succeeded_count if phase is Phase.SUCCEEDED else self.failed_count
        return [key for _, key in ended[: max(0, len(ended) - count)]]
