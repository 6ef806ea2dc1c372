"""Campaigns: every crash point of every flow under many seeds, on all processors, and a table of what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict

from simulator.flows import FLOWS
from simulator.points import Campaign, Outcome, Point, find


def work(flow: str, seeds: Iterable[int], seconds: float, *, every_death: bool) -> Campaign:
    """A campaign over one flow in this process; no kill is begun after `seconds`."""
    campaign = Campaign(flow)
    deadline = time.monotonic() + seconds
    for seed in seeds:
        if time.monotonic() > deadline:
            campaign.skipped += 1
            continue
        find(FLOWS[flow], seed, campaign, deadline=deadline, every_death=every_death)
    return campaign


def spread(flow: str, seeds: range, seconds: float, *, every_death: bool = False, jobs: int | None = None) -> Campaign:
    """The same, over several processes."""
    jobs = jobs or os.cpu_count() or 1
    parts = [seeds[number::jobs] for number in range(jobs)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "simulator", "work", "--flow", flow, "--seconds", str(seconds)]
            + (["--every-death"] if every_death else [])
            + ["--seeds", *(str(seed) for seed in part)],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in parts
        if len(part)
    ]
    total = Campaign(flow)
    for worker in workers:
        text, _ = worker.communicate()
        if worker.returncode != 0:
            raise RuntimeError(f"a worker of the campaign over {flow} ended with {worker.returncode}")
        add(total, from_json(text))
    return total


def add(total: Campaign, part: Campaign) -> None:
    """Put the findings of one part to the total."""
    total.seeds += part.seeds
    for name, kills in part.points.items():
        total.points[name] = total.points.get(name, 0) + kills
    total.killed += part.killed
    total.skipped += part.skipped
    total.virtual_seconds += part.virtual_seconds
    total.failures += part.failures


def to_json(campaign: Campaign) -> str:
    """For another process."""
    return json.dumps(asdict(campaign))


def from_json(text: str) -> Campaign:
    """What another process found."""
    said = json.loads(text)
    failures = [
        Outcome(**{**each, "point": Point(**each["point"]) if each["point"] else None}) for each in said["failures"]
    ]
    return Campaign(**{**said, "failures": failures})


def table(campaigns: Iterable[Campaign]) -> str:
    """What was done and found, a line for each flow."""
    lines = ["flow      seeds  points  kills  left out  violations  virtual hours"]
    for c in campaigns:
        hours = c.virtual_seconds / 3600
        lines.append(
            f"{c.flow:8} {c.seeds:6} {len(c.points):7} {c.killed:6} {c.skipped:9} {len(c.failures):11} {hours:14.1f}"
        )
    return "\n".join(lines)


def described(failures: Iterable[Outcome], limit: int = 10) -> str:
    """The first failures, each with the command that shows it again."""
    found = list(failures)
    lines = []
    for failure in found[:limit]:
        at = f"killed {failure.death} {failure.point.name}" if failure.point is not None else "not killed"
        lines += [f"{failure.flow}, seed {failure.seed}, {at}: {failure.repeat}"]
        lines += [f"    {problem}" for problem in failure.problems]
    if len(found) > limit:
        lines.append(f"… and {len(found) - limit} more")
    return "\n".join(lines)
