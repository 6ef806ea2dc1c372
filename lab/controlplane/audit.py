"""What the API server itself says of who wrote what: the judge of every claim about API writes."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Reads are not logged, nor the control plane's own housekeeping with leases of API servers.
POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: Metadata
"""


@dataclass(frozen=True)
class Write:
    """One request that could change something, as the API server answered it.

    `verb` is create, update, patch, delete or deletecollection; `resource` is the plural name, with the group
    (`virtualmachines.hostler.dev`, `leases.coordination.k8s.io`, `events`) and the subresource after a slash.
    """

    time: datetime.datetime
    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int


def writes(log: Path, since: datetime.datetime | None = None) -> list[Write]:
    """All logged requests from `since` (an aware time) on, oldest first; also refused ones (see `code`)."""
    found = sorted(_read(log), key=lambda write: write.time)
    return [write for write in found if since is None or write.time >= since]


def parse(event: dict[str, Any]) -> Write | None:
    """One line of the audit log; None if it is about no resource (a health check, say)."""
    reference = event.get("objectRef")
    if not reference:
        return None
    resource = ".".join(filter(None, (reference["resource"], reference.get("apiGroup"))))
    return Write(
        time=datetime.datetime.fromisoformat(event["stageTimestamp"]),
        user=event["user"].get("username", ""),
        verb=event["verb"],
        resource="/".join(filter(None, (resource, reference.get("subresource")))),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=event["responseStatus"].get("code", 0),
    )


def _read(log: Path) -> Iterator[Write]:
    # Rotation leaves older files beside the log: audit-TIME.log.
    for path in log.parent.glob(f"{log.stem}*{log.suffix}"):
        for line in path.read_text().splitlines():
            # The last line may be half written.
            if line.endswith("}") and (write := parse(json.loads(line))):
                yield write
