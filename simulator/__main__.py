"""`python -m simulator`: play a flow again, or look for crash points that break something."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from simulator import campaign
from simulator.findings import Campaign, Death, described, table
from simulator.flows import FLOWS
from simulator.points import one


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    again = commands.add_parser("run", help="play one flow under one seed, and say what is wrong at its end")
    again.add_argument("--flow", choices=sorted(FLOWS), required=True)
    again.add_argument("--seed", type=int, default=0)
    again.add_argument("--kill", type=int, default=None, help="number of the call at which the controller is killed")
    again.add_argument("--death", choices=[d.value for d in Death], default="before")
    again.add_argument("--verbose", action="store_true", help="log what the controllers do")
    search = commands.add_parser("find", help="kill the controller at every call, under several seeds")
    search.add_argument("--flow", choices=sorted(FLOWS), nargs="*", default=sorted(FLOWS))
    search.add_argument("--seeds", type=int, default=1, help="how many")
    search.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    search.add_argument("--seconds", type=float, default=3600.0, help="real time for each flow")
    search.add_argument("--record", type=Path, default=None, help="a file in which is kept what has been done")
    search.add_argument("--every-death", action="store_true", help="every way to die at every point of every seed")
    endless = commands.add_parser("soak", help="`find` with every death under ever new seeds, until it is stopped")
    endless.add_argument("--flow", choices=sorted(FLOWS), nargs="*", default=sorted(FLOWS))
    endless.add_argument("--from", type=int, default=None, dest="first", help="the first seed (default: by the clock)")
    work = commands.add_parser("work", help="a part of `find`")
    work.add_argument("--flow", required=True)
    work.add_argument("--seeds", type=int, nargs="*", default=[])
    work.add_argument("--seconds", type=float, required=True)
    work.add_argument("--record", type=Path, required=True)
    work.add_argument("--every-death", action="store_true")
    work.add_argument("--stride", type=int, default=1)
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets hangs on it, and with it the order of what happens.
        command = [sys.executable, "-m", "simulator", *sys.argv[1:]]
        return subprocess.call(command, env={**os.environ, "PYTHONHASHSEED": "0"})
    logging.disable(logging.CRITICAL)
    match given.command:
        case "run":
            return _run(given)
        case "find":
            return _find(given)
        case "soak":
            return _soak(given)
        case _:
            campaign.work(
                given.flow,
                given.seeds,
                given.seconds,
                given.record,
                every_death=given.every_death,
                stride=given.stride,
            )
            return 0


def _run(given: argparse.Namespace) -> int:
    if given.verbose:
        logging.disable(logging.NOTSET)
        logging.basicConfig(level=logging.DEBUG, handlers=[_Virtual()])
    outcome = one(given.flow, given.seed, given.kill, Death(given.death))
    print(f"{outcome.seconds:.1f} virtual seconds, {outcome.writes} writes, digest {outcome.digest}")
    for problem in outcome.problems:
        print(problem)
    return 1 if outcome.problems else 0


def _find(given: argparse.Namespace) -> int:
    seeds = range(given.first, given.first + given.seeds)
    found = [
        campaign.spread(flow, seeds, given.seconds, path=given.record, every_death=given.every_death)
        for flow in given.flow
    ]
    print(table(found))
    failures = [failure for each in found for failure in each.failures]
    print(described(failures))
    return 1 if failures else 0


def _soak(given: argparse.Namespace) -> int:
    first = int(time.time()) if given.first is None else given.first
    totals = {flow: Campaign(flow) for flow in given.flow}
    try:
        for found in campaign.soak(given.flow, first, os.cpu_count() or 1):
            totals[found.flow].merge(found)
            print(f"{table(list(totals.values()))}\n{described(found.failures)}", flush=True)
    except KeyboardInterrupt:
        pass
    failures = [failure for each in totals.values() for failure in each.failures]
    print(described(failures))
    return 1 if failures else 0


class _Virtual(logging.StreamHandler):  # type: ignore[type-arg]
    """Log lines with the virtual time."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:
            now = 0.0
        return f"{now:9.3f} {record.name}: {record.getMessage()}"


if __name__ == "__main__":
    sys.exit(main())
