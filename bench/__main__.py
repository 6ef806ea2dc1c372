"""`python -m bench [NAME …] [--json FILE]`: measure, print the table; exit status 1 if a figure is above its bound."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from bench import documents, figures, fleet, simulated

BENCHMARKS: dict[str, Callable[[], list[figures.Figure]]] = {
    "documents": documents.run,
    "fleet": fleet.run,
    "simulated": simulated.run,
}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Hostler. See docs/benchmarks.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(BENCHMARKS)} (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    conditions = _conditions()
    found = [figure for name in given.names or BENCHMARKS for figure in BENCHMARKS[name]()]
    print(figures.table(found))
    if given.json:
        given.json.write_text(figures.document(found, conditions) + "\n")
    return 0 if all(figure.holds for figure in found) else 1


def _conditions() -> dict[str, str]:
    return {
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kvm": "yes" if Path("/dev/kvm").exists() else "no (guests are emulated)",
    }


if __name__ == "__main__":
    sys.exit(main())
