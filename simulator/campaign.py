"""Campaigns: every crash point of every flow under many seeds, on all processors, in parts that add up.

Each seed of a flow is a piece of its own. What came of it is written down at once, with a fingerprint of the code, so
that a campaign which was cut short goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from simulator.findings import Campaign
from simulator.flows import FLOWS
from simulator.points import find

ROOMS = ("crds", "drivers", "engine", "placement", "reconcilers", "simulator", "xmlgen")
"""Where a change may change what comes of a run."""


class Record:
    """What is known for this version of the code, in a file: a line for each seed of a flow."""

    def __init__(self, path: Path, *, fresh: bool = True) -> None:
        """`fresh`: forget what other versions of the code have left; not while others write."""
        self._path = path
        if fresh and path.exists():
            kept = [line for line in path.read_text().splitlines() if json.loads(line)["version"] == version()]
            path.write_text("".join(f"{line}\n" for line in kept))

    def add(self, seed: int, kind: str, found: Campaign) -> None:
        """Write down what came of one seed. Several processes may do so at a time."""
        line = json.dumps({"version": version(), "seed": seed, "kind": kind, "found": found.to_json()}) + "\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def known(self, flow: str, kind: str) -> dict[int, Campaign]:
        """What came of each seed of a flow so far."""
        found: dict[int, Campaign] = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            said = json.loads(line)
            campaign = Campaign.from_json(said["found"])
            if (said["version"], said["kind"], campaign.flow) == (version(), kind, flow):
                found[said["seed"]] = campaign
        return found


@cache
def version() -> str:
    """A fingerprint of all the code that a run is made of."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def kind_of(*, every_death: bool, stride: int) -> str:
    """How a seed was gone through: what was done in one way says nothing of another."""
    return f"{'every death' if every_death else 'one death'} at each of {stride}"


def work(flow: str, seeds: Iterable[int], seconds: float, path: Path, *, every_death: bool, stride: int) -> None:
    """Go through some seeds of a flow in this process, and record each; none is begun after `seconds`."""
    until, record = time.monotonic() + seconds, Record(path, fresh=False)
    for seed in seeds:
        if time.monotonic() > until:
            return
        found = Campaign(flow)
        find(FLOWS[flow], seed, found, every_death=every_death, stride=stride)
        record.add(seed, kind_of(every_death=every_death, stride=stride), found)


def spread(
    flow: str, seeds: range, seconds: float, *, path: Path | None = None, every_death: bool = False, stride: int = 1
) -> Campaign:
    """Go through all of the seeds that are not in the record at `path` yet, on all processors; all findings."""
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            return spread(flow, seeds, seconds, path=Path(folder, "record"), every_death=every_death, stride=stride)
    record, kind = Record(path), kind_of(every_death=every_death, stride=stride)
    known = record.known(flow, kind)
    left = [seed for seed in seeds if seed not in known]
    jobs = os.cpu_count() or 1
    workers = [_worker(flow, part, seconds, path, every_death, stride) for n in range(jobs) if (part := left[n::jobs])]
    for worker in workers:
        if worker.wait() != 0:
            raise RuntimeError(f"a worker of the campaign over {flow} ended with {worker.returncode}")
    known = record.known(flow, kind)
    total = Campaign(flow, left=sum(seed not in known for seed in seeds))
    for seed in seeds:
        if seed in known:
            total.merge(known[seed])
    return total


def _worker(
    flow: str, seeds: list[int], seconds: float, path: Path, every_death: bool, stride: int
) -> subprocess.Popen[bytes]:
    given = ["--flow", flow, "--seconds", str(seconds), "--record", str(path), "--stride", str(stride)]
    given += ["--every-death"] if every_death else []
    command = [sys.executable, "-m", "simulator", "work", *given, "--seeds", *(str(seed) for seed in seeds)]
    # The order of sets hangs on it, and with it the order of what happens.
    return subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": "0"})


def soak(flows: list[str], first: int, seeds: int) -> Iterable[Campaign]:
    """Campaigns under ever new seeds, every death at every point, until nobody wants more."""
    while True:
        for flow in flows:
            yield spread(flow, range(first, first + seeds), float("inf"), every_death=True)
        first += seeds
