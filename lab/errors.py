"""What can go wrong in the lab, in words a person can act on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

TAIL_LINES = 15


class LabError(Exception):
    """A step of the lab failed. The message says which one, why, and where its log is."""


class CommandFailedError(LabError):
    """A command that should have succeeded did not.

    `code` is its exit status (negative: killed by that signal), `output` what it said on stdout and stderr.
    """

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"`{shlex.join(argv)}` failed with exit status {code}: {output.strip() or '(no output)'}")
        self.argv = list(argv)
        self.code = code
        self.output = output


class DeadlineError(LabError):
    """Something did not become true in time. The message carries the end of the log that should explain it."""


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file, or a word on why there are none."""
    try:
        content = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return f"(no log at {log})"
    return "\n".join(content[-lines:]) if content else f"({log} is empty)"
