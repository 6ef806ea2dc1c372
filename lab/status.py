"""`lab status`: what runs, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from lab import hosts
from lab.control import Control
from lab.controlplane import run
from lab.network import Fabric
from lab.state import State


def report(state: State) -> str:
    """Tables of networks, control plane and hosts."""
    control = Control(state)
    parts = [(name, "up" if up else "down") for name, up in _networks(state, control)]
    parts += run.status(state, control)
    parts.append(("images", run.describe(state, control, "images")))
    text = table([{"part": name, "state": says} for name, says in parts])
    rows = hosts.status(state)
    return f"{text}\n\n{table(rows)}" if rows else text


def table(rows: Sequence[dict[str, str]]) -> str:
    """Rows with the same keys as columns of text under their names in capitals."""
    lines = [[name.upper() for name in rows[0]], *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _networks(state: State, control: Control) -> list[tuple[str, bool]]:
    return [("fabric", Fabric(state).is_up()), ("control namespaces", control.is_up())]
