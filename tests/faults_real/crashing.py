"""An operator that ends, or stands still, at a chosen call of its own."""

from __future__ import annotations

from pathlib import Path

from tests.integration.system.cluster import Cluster, Object, firmware_vm

Point = tuple[int, str]
"""Number of the call, from 1 (0: none), and `before` or `after` it."""


class Crashing:
    """Runs such an operator in the place of the usual one."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder

    def start(self, name: str, point: Point, signal: str = "KILL") -> None:
        """Run it in the place of the one that runs; `point` is one of the flow of this VM and its disk."""
        number, when = point
        known = self._cluster.get("hvm", name) or {}
        tokens = [name, *filter(None, [known.get("status", {}).get("uuid")])]
        environment = {
            "CRASH_TOKENS": ",".join(tokens),
            "CRASH_POINT": str(number),
            "CRASH_WHEN": when,
            "CRASH_SIGNAL": signal,
            "CRASH_RECORD": str(self._folder / name),
        }
        self._cluster.deployment.kill()
        self._cluster.deployment.start(program="tests/faults_real/runner.py", environment=environment)

    def calls(self, name: str) -> list[str]:
        """What it has done for this VM, in order."""
        record = self._folder / name
        return record.read_text().splitlines() if record.exists() else []

    def died(self) -> bool:
        """Whether it has ended."""
        return self._cluster.deployment.process() is None


def vm(name: str) -> Object:
    """With a disk that has a structure to be broken."""
    template = {"size": "16Mi", "storageDomain": "shared", "format": "qcow2"}
    return firmware_vm(name, {"name": "root", "template": template})
