"""The lab as programs see it: tests, benchmarks and the demo hold one `Lab`."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import forward, hosts, lifecycle
from lab.apifaults import ApiFaults
from lab.control import Control
from lab.controlplane import audit, binaries, run, snapshots
from lab.controlplane.audit import Write
from lab.errors import LabError
from lab.hosts import Host
from lab.images import URL
from lab.progress import Progress
from lab.state import State


class Lab:
    """A handle on the lab in a state folder (default: LAB_STATE, else `.lab`). Making it touches nothing.

    It works inside and outside the control namespaces.
    """

    images_url = URL

    def __init__(self, state_folder: Path | str | None = None) -> None:
        self.state = State(state_folder)
        self.control = Control(self.state)

    def up(self, host_count: int = lifecycle.DEFAULT_HOSTS, *, control_plane: bool = True) -> None:
        """Bring the lab up, or repair it. Raises LabError."""
        lifecycle.up(self.state, Progress(), host_count=host_count, control_plane=control_plane)

    def down(self) -> None:
        """End everything and remove what it stored. Raises LabError if something stays."""
        lifecycle.down(self.state, Progress())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state.kubeconfig

    @property
    def shared(self) -> Path:
        """The machine's folder behind every host's /srv/shared."""
        return self.state.shared

    @property
    def hosts(self) -> list[Host]:
        """All hosts, on or off."""
        return hosts.all_hosts(self.state)

    def host(self, name: str) -> Host:
        """The host of this name. Raises LabError if there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"the lab in {self.state.folder} has no host {name}: {[host.name for host in self.hosts]}")

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = 120) -> str:  # noqa: A002
        """What kubectl says on stdout, run as administrator. Raises CommandFailedError with its complaint."""
        return run.kubectl(self.state, *arguments, stdin=input, timeout=timeout)

    def service_account_kubeconfig(self, namespace: str, account: str) -> str:
        """A kubeconfig with a token of this ServiceAccount, good for a year."""
        return run.service_account_kubeconfig(self.state, namespace, account)

    def writes(self, since: datetime.datetime | None = None) -> list[Write]:
        """Every write that the API server answered since then (an aware time), by its own audit log."""
        return audit.writes(self.state.log("audit"), since)

    def exec(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the control namespaces, with stdout and stderr captured; never raises on its status."""
        variables = {**self.control.environment(), **(environment or {})}
        return subprocess.run(
            self.control.command(command),
            env=variables,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def api_faults(self) -> ApiFaults:
        """The proxy before the API server, and the faults it makes."""
        return ApiFaults(self.state)

    def etcd_snapshot(self, name: str = "default") -> None:
        """Keep the present state of the Kubernetes API."""
        snapshots.take(self.state, name)

    def etcd_restore(self, name: str = "default") -> None:
        """Set the Kubernetes API back to a kept state; it restarts. Raises LabError."""
        snapshots.restore(self.state, name)

    def control_plane_down(self) -> None:
        """End API server, controllers and etcd, as a power cut would. `control_plane_up` begins where they were."""
        run.down(self.state)

    def control_plane_up(self) -> None:
        """Start what does not run of the control plane and wait until the API answers. Raises LabError."""
        run.up(self.state, self.control, binaries.ensure(Progress()))

    def forward(self, port: int) -> None:
        """Make 127.0.0.1:`port` of the control namespaces reachable outside them."""
        forward.forward(self.state, port)

    def ping(self, address: str, timeout: float = 1.0) -> bool:
        """Whether the address answers one ICMP echo from the control namespaces (both networks) in time."""
        return self.control.ping(address, timeout)
