"""What libvirt itself says that happened to a VM's domains: the judge of "once, and never twice"."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

from tests.integration.system.cluster import Cluster

_LINE = re.compile(r"event '(?P<event>[^']+)' for domain '(?P<domain>[^']+)'(: (?P<detail>.*))?")


class Happenings:
    """The events of one VM's domains, on all hosts, oldest first a host."""

    def __init__(self, domain: str, outputs: list[IO[bytes]]) -> None:
        self._domain = domain
        self._outputs = outputs

    def all(self) -> list[str]:
        """Each as `lifecycle Stopped Destroyed` or `reboot`."""
        found = []
        for output in self._outputs:
            for line in _said(output).splitlines():
                match = _LINE.search(line)
                if match is not None and match["domain"] == self._domain:
                    found.append(f"{match['event']} {match['detail'] or ''}".strip())
        return found

    def count(self, happening: str) -> int:
        """How often this has happened."""
        return self.all().count(happening)


def _said(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode()


@contextmanager
def happenings(cluster: Cluster, name: str) -> Iterator[Happenings]:
    """Listen to every host of the lab until the block ends."""
    outputs: list[IO[bytes]] = []
    listeners = []
    for host in cluster.lab.hosts:
        output = TemporaryFile()  # noqa: SIM115 - closed below
        virsh = ["stdbuf", "--output=L", "virsh", "--connect", host.uri_unix, "echo listening; event --all --loop"]
        listeners.append(subprocess.Popen(virsh, stdin=subprocess.DEVNULL, stdout=output, stderr=output))
        outputs.append(output)
    cluster.wait("all listeners listen", lambda: all(_said(output) for output in outputs))
    time.sleep(0.5)  # It says so right before it asks for the events.
    try:
        yield Happenings(f"{cluster.namespace}.{name}", outputs)
    finally:
        for listener in listeners:
            listener.terminate()
            listener.wait()
        for output in outputs:
            output.close()
