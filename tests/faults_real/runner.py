"""The real operator, which ends or stops itself at one of its calls: `python tests/faults_real/runner.py` in its place.

Both doors to the world are watched: requests to the API server that write, and calls to hosts that change something.
CRASH_TOKENS: calls count whose arguments contain one of them (separated by commas), or the UUID of a domain whose
document does. CRASH_POINT: the number of the call, from 1, at which the process ends (0: never). CRASH_WHEN: `before`
it, or `after` its effect and before anybody hears of it. CRASH_SIGNAL: KILL or
STOP. CRASH_RECORD: a file to which a line is added for each call that counts.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "operator"), str(ROOT)]

from main import main  # noqa: E402

from drivers.libvirt.host import LibvirtHost  # noqa: E402
from engine.transport import Transport  # noqa: E402

CHANGING = (
    "define",
    "start",
    "shutdown",
    "destroy",
    "reset",
    "undefine",
    "set_metadata",
    "attach_device",
    "detach_device",
    "update_device",
    "freeze",
    "thaw",
    "snapshot",
    "commit",
    "copy_block",
    "pivot",
    "cancel_job",
    "create_volume",
    "copy_volume",
    "resize_volume",
    "delete_volume",
    "upload",
)
_UUID = re.compile(r"<uuid>([0-9a-f-]{36})</uuid>")


class Doors:
    """Counts, records, and ends the process at its point."""

    def __init__(self, tokens: Iterable[str], point: int, when: str, number: signal.Signals, record: Path) -> None:
        self.tokens = set(tokens)
        self.point = point
        self.when = when
        self.signal = number
        self.record = record
        self.count = 0

    def watch(self, owner: type, method: str, describe: Callable[..., str | None]) -> None:
        """Watch a method; `describe` names a call, or says None for one that does not count."""
        carried_out: Callable[..., Awaitable[Any]] = getattr(owner, method)

        @functools.wraps(carried_out)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            call = describe(*args, **kwargs)
            if call is None or not self._counts(repr((args[1:], kwargs))):
                return await carried_out(*args, **kwargs)
            self.count += 1
            number = self.count
            with self.record.open("a") as file:
                file.write(f"{call}\n")
            self._end(number, "before")
            try:
                return await carried_out(*args, **kwargs)
            finally:
                self._end(number, "after")

        setattr(owner, method, watched)

    def _counts(self, arguments: str) -> bool:
        counts = any(token in arguments for token in self.tokens)
        if counts:
            self.tokens |= set(_UUID.findall(arguments))
        return counts

    def _end(self, number: int, when: str) -> None:
        if number == self.point and when == self.when:
            os.kill(os.getpid(), self.signal)


def api_write(_: Transport, method: str, path: str, **said: Any) -> str | None:
    """A request that writes, but for Events, which nothing depends on."""
    return None if method == "GET" or said["kind"] == "Event" else f"{said['verb']} {said['kind']}"


def host_call(method: str) -> Callable[..., str | None]:
    """Every call of this method."""
    return lambda *_, **__: f"host: {method}"


if __name__ == "__main__":
    doors = Doors(
        os.environ["CRASH_TOKENS"].split(","),
        int(os.environ["CRASH_POINT"]),
        os.environ["CRASH_WHEN"],
        signal.Signals[f"SIG{os.environ['CRASH_SIGNAL']}"],
        Path(os.environ["CRASH_RECORD"]),
    )
    doors.watch(Transport, "request", api_write)
    for name in CHANGING:
        doors.watch(LibvirtHost, name, host_call(name))
    sys.exit(main())
