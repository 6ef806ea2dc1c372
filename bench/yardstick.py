"""What a second of CPU time is worth now: a piece of work that is always the same, done twice a second.

A core takes longer for the same work while its twin, its caches or its memory serve others too. So what is measured at
different times, beside different neighbours, is compared in pieces of this work and not in seconds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

PAUSE_SECONDS = 0.5
OBJECTS = 2000
EACH_TIME = 100
"""Of the objects: some milliseconds of work."""


class Yardstick:
    """Does the work in a process of its own while it is entered."""

    def __enter__(self) -> Yardstick:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "pieces"
        with self._file.open("wb") as out:
            self._process = subprocess.Popen([sys.executable, "-m", "bench.yardstick"], stdout=out)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def piece(self, since: float) -> float:
        """CPU seconds that one piece has taken since that monotonic time, on average. StatisticsError without any."""
        lines = (line.split() for line in self._file.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return statistics.fmean(float(seconds) for at, seconds in lines if float(at) >= since)


def main() -> None:
    """The process: prints monotonic time and CPU seconds of each piece."""
    held = [json.dumps(_document(number)) for number in range(OBJECTS)]
    at = 0
    while True:
        time.sleep(PAUSE_SECONDS)
        begun = time.process_time()
        for _ in range(EACH_TIME):
            # From one end of the memory to the other, as the controller goes from object to object.
            at = (at + 617) % OBJECTS
            document = json.loads(held[at])
            document["status"]["generation"] += 1
            held[at] = json.dumps(document)
        print(time.monotonic(), time.process_time() - begun, flush=True)


def _document(number: int) -> dict[str, object]:
    """About as large as an object of ours."""
    conditions = [
        {"type": f"Condition{n}", "status": "True", "reason": "Reason", "message": f"message {n} of {number}"}
        for n in range(9)
    ]
    drives = [
        {"name": f"disk-{n}", "target": f"vd{n}", "address": f"pci:0000:{number % 256:02x}:{n:02x}"} for n in range(8)
    ]
    status = {"generation": 0, "conditions": conditions, "devices": drives}
    return {"kind": "VirtualMachine", "metadata": {"name": f"vm-{number}", "uid": f"uid-{number}"}, "status": status}


if __name__ == "__main__":
    main()
