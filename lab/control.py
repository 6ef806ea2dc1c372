"""The namespaces of the control plane: where API server, operator and tests live, on the lab's networks.

They see the files of the machine, but their own network, their own /etc/hosts with every name of the lab,
and no DNS at all, so that no name ever waits for an answer that cannot come.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lab.errors import LabError
from lab.network import CONTROL_GUESTS_ADDRESS, CONTROL_MGMT_ADDRESS, GUESTS, MGMT, PREFIX_LENGTH, Fabric, hosts_file
from lab.processes import entering, namespace, run, spawn, wait_until
from lab.state import ENVIRONMENT_VARIABLE, Process, State

_HOLDER = "control"
_NAME = "control"
_INTERFACES = {MGMT: ("mgmt0", CONTROL_MGMT_ADDRESS), GUESTS: ("guests0", CONTROL_GUESTS_ADDRESS)}

# $1: the folder with the files that take the place of those in /etc.
_HOLD_CONTROL = """
set -e
for name in hosts resolv.conf; do
    if [ -e "/etc/$name" ]; then mount --bind "$1/$name" "/etc/$name"; fi
done
ip link set lo up
exec sleep infinity
"""


class Control:
    """The control namespaces of a lab. Making the object touches nothing."""

    def __init__(self, state: State) -> None:
        self.state = state

    @property
    def process(self) -> Process:
        """The process that keeps the namespaces. Raises LabError when they are not up."""
        if process := self.state.process(_HOLDER):
            return process
        raise LabError(f"the lab in {self.state.folder} is not up: run `python -m lab up`")

    def is_up(self) -> bool:
        return self.state.process(_HOLDER) is not None

    def up(self, fabric: Fabric) -> None:
        """Make the namespaces and their links to the fabric, or repair what is missing of them."""
        process = self.state.process(_HOLDER)
        if process and self._is_wired(process) and self._is_linked(fabric, process):
            return
        if not process:
            process = self._hold()
        for bridge, (interface, address) in _INTERFACES.items():
            link = fabric.connect(process.pid, _NAME, bridge, interface)
            configure = ["ip", "addr", "replace", f"{address}/{PREFIX_LENGTH}", "dev", interface]
            run(configure, inside=process.pid, kinds=["net"])
            link.up()

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside, in the caller's working directory."""
        return [*entering(self.process.pid, "net", "mount"), "env", "-C", os.getcwd(), *argv]  # noqa: PTH109

    def environment(self) -> dict[str, str]:
        """The caller's environment, and what programs of the lab look for: LAB_STATE, KUBECONFIG, kubectl in PATH.

        A KUBECONFIG that the caller has set is kept.
        """
        return with_lab_variables(self.state, os.environ)

    def exec(self, argv: Sequence[str]) -> NoReturn:
        """Become the command, inside: terminal, stdin, exit status and signals are its own."""
        if self.is_inside():
            os.execvpe(argv[0], list(argv), self.environment())
        command = self.command(argv)
        os.execvpe(command[0], command, self.environment())

    def is_inside(self) -> bool:
        """Whether the caller lives in these namespaces."""
        process = self.state.process(_HOLDER)
        return process is not None and namespace(os.getpid(), "net") == namespace(process.pid, "net")

    def lives_here(self, process: Process | None) -> bool:
        """Whether this process is alive and lives in the present control namespaces (not in earlier ones)."""
        return process is not None and namespace(process.pid, "net") == namespace(self.process.pid, "net")

    def ping(self, address: str, timeout: float) -> bool:
        """Whether the address answers one ICMP echo request within `timeout` seconds, asked from inside."""
        probe = ["sh", "-c", 'ping -n -q -c 1 -W "$1" "$2" >/dev/null 2>&1 && echo yes || echo no', "ping"]
        return run([*probe, f"{timeout:g}", address], inside=self.process.pid, timeout=timeout + 10).strip() == "yes"

    def _hold(self) -> Process:
        etc = self.state.folder / "control"
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "hosts").write_text(hosts_file())
        (etc / "resolv.conf").write_text("")
        script = ["sh", "-c", _HOLD_CONTROL, "control", str(etc)]
        process = spawn(self.state, _HOLDER, ["unshare", "--net", "--mount", "--propagation", "private", *script])
        log = self.state.log(_HOLDER)
        wait_until("the control namespaces", lambda: _is_settled(process), 10, process=process, log=log)
        return process

    def _is_wired(self, process: Process) -> bool:
        shown = run(["ip", "-4", "-oneline", "addr", "show"], inside=process.pid, kinds=["net"])
        return all(f" {address}/" in shown for _, address in _INTERFACES.values())

    def _is_linked(self, fabric: Fabric, process: Process) -> bool:
        links = (fabric.link(process.pid, _NAME, bridge, interface) for bridge, (interface, _) in _INTERFACES.items())
        return all(link.is_up() for link in links)


def with_lab_variables(state: State, variables: Mapping[str, str]) -> dict[str, str]:
    """These variables, and LAB_STATE, KUBECONFIG (unless set) and the lab's programs first in PATH."""
    programs = str(state.folder / "bin")
    path = variables.get("PATH", os.defpath)
    return {
        "KUBECONFIG": str(state.kubeconfig),
        **variables,
        ENVIRONMENT_VARIABLE: str(state.folder),
        "PATH": path if path.startswith(f"{programs}:") else f"{programs}:{path}",
    }


def _is_settled(process: Process) -> bool:
    """The script is over when the process has become `sleep`, in namespaces of its own."""
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip() == "sleep"
    except FileNotFoundError:
        return False
