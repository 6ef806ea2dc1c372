"""One host of the lab: what it is, and everything that can happen to it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.hosts.init import VIEW
from lab.hosts.layout import SHARED, TCP_PORT, Layout, libvirtd_command
from lab.hosts.power import CABLES, await_boot, begin_power_on, socket_uri
from lab.hosts.qemus import Qemu, commands_of, qemus_of
from lab.network import GUESTS, MGMT, Fabric, Link
from lab.processes import end, entering, run, send, wait_until
from lab.state import Process, State

DAEMON = "libvirtd"
# Every kind of namespace that a host has of its own.
KINDS = ("net", "mount", "uts", "ipc", "pid")


@dataclass(frozen=True)
class Host:
    """Host `kvmN`. The object is a handle: it may be made at any time and by several processes at once.

    Every verb may be repeated. Verbs that need the host running raise LabError when it is off.
    """

    layout: Layout
    fabric: Fabric

    @classmethod
    def of(cls, state: State, number: int) -> Host:
        return cls(Layout(state, number), Fabric(state))

    # What it is

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def address(self) -> str:
        """Address in the management network."""
        return self.layout.address

    @property
    def uuid(self) -> str:
        """System UUID, the same for the life of the lab."""
        return self.layout.uuid

    @property
    def local(self) -> Path:
        """The machine's folder behind the host's /srv/local."""
        return self.layout.local

    @property
    def uri_tls(self) -> str:
        """Needs the identity in pki/client."""
        return f"qemu+tls://{self.layout.full_name}/system"

    @property
    def uri_ssh(self) -> str | None:
        """Needs the key and known_hosts in pki/ssh. None where no SSH server runs."""
        return f"qemu+ssh://root@{self.layout.full_name}/system" if self.layout.has_ssh_and_tcp else None

    @property
    def uri_tcp(self) -> str | None:
        """Without any protection. None where it is not offered."""
        return f"qemu+tcp://{self.layout.full_name}:{TCP_PORT}/system" if self.layout.has_ssh_and_tcp else None

    @property
    def uri_unix(self) -> str:
        """Usable by root from any namespace of the machine, while the host runs."""
        return socket_uri(self.layout, self.init)

    @property
    def boot_id(self) -> str:
        """What the host's kernel claims as its boot id; another one after each power on."""
        assert self.init.alive()
        return self.layout.booted.read_text()

    # Power

    @property
    def init(self) -> Process:
        """The host's first process. Raises LabError when the host does not run."""
        if process := self.layout.state.process(self.name):
            return process
        raise LabError(f"{self.name} is off: `python -m lab host {self.name} power on`")

    def alive(self) -> bool:
        """Whether the host runs: on, and not crashed."""
        return self.layout.state.process(self.name) is not None

    def powered(self) -> bool:
        """Whether its switch is on; a host that crashed is on and not alive."""
        return not self.layout.powered_off.exists()

    def power_on(self) -> None:
        """Switch on and wait until it has booted."""
        if first := self.begin_power_on():
            await_boot(self.layout, first)

    def begin_power_on(self) -> Process | None:
        """Switch on; returns the first process of the boot that begins, None if the host runs already."""
        with self.layout.state.lock(f"power-{self.name}"):
            self.layout.powered_off.unlink(missing_ok=True)
            return None if self.alive() else begin_power_on(self.layout, self.fabric)

    def power_off(self) -> None:
        """Cut the power: silent for everyone outside, and nothing of the host runs on."""
        with self.layout.state.lock(f"power-{self.name}"):
            self.layout.folder.mkdir(parents=True, exist_ok=True)
            self.layout.powered_off.touch()
            self.cut()

    def cut(self) -> None:
        """End the host without touching its switch: cables down first, then everything dies at once."""
        process = self.layout.state.process(self.name)
        if process is None:
            return
        for link in self._links(process).values():
            link.down()
        end([process], grace=0)
        for bridge in CABLES:
            self.fabric.disconnect(self.name, bridge)

    # Network

    def partition(self, *, guests: bool = False) -> None:
        """Pull the cable of the management network (or of the guests'): silent, and the host runs on."""
        self._links(self.init)[GUESTS if guests else MGMT].down()

    def heal(self, *, guests: bool = False) -> None:
        """Plug the cable in again."""
        self._links(self.init)[GUESTS if guests else MGMT].up()

    def slow(self, milliseconds: int) -> None:
        """Delay everything on the management network by this much in each direction; 0 ends it."""
        self._links(self.init)[MGMT].slow(milliseconds)

    def connected(self, *, guests: bool = False) -> bool:
        """Whether that cable is plugged in."""
        return self._links(self.init)[GUESTS if guests else MGMT].is_up()

    # Storage

    def unmount_shared(self) -> None:
        """Take the shared storage away from under its path: an empty folder of the host's own is left there."""
        if self.shared_is_mounted():
            self.run("umount", "--lazy", str(SHARED))

    def mount_shared(self) -> None:
        """Give the shared storage back."""
        if not self.shared_is_mounted():
            self.run("mount", "--bind", str(VIEW), str(SHARED))

    def shared_is_mounted(self) -> bool:
        mounts = Path(f"/proc/{self.init.pid}/mounts").read_text().splitlines()
        return any(line.split()[1] == str(SHARED) for line in mounts)

    # The daemon

    def daemon(self) -> Process | None:
        """The libvirtd that serves, None if there is none."""
        # libvirtd forks to look at QEMU's capabilities and the like: the oldest one is the daemon.
        found = [pid for pid, argv in commands_of(self.init) if argv[0].rpartition(b"/")[2] == DAEMON.encode()]
        return Process.of(min(found)) if found else None

    def daemon_start(self) -> None:
        """Start libvirtd unless it runs; returns when it answers."""
        if self.daemon() is None:
            self.run(*libvirtd_command())

    def daemon_stop(self) -> None:
        """End libvirtd in an orderly way; guests run on."""
        if process := self.daemon():
            end([process], grace=10)

    def daemon_kill(self) -> None:
        """End libvirtd with SIGKILL; guests run on."""
        if process := self.daemon():
            end([process], grace=0)

    def hang(self) -> None:
        """Freeze libvirtd: its connections stay open and nothing answers."""
        if process := self.daemon():
            self._stop_and_wait(process)

    def resume(self) -> None:
        """Let a frozen libvirtd go on."""
        if process := self.daemon():
            send(process, signal.SIGCONT)

    def hung(self) -> bool:
        """Whether libvirtd is frozen."""
        process = self.daemon()
        return process is not None and _stopped(process)

    # QEMUs

    def qemus(self) -> list[Qemu]:
        """The QEMUs that run here, from /proc; none when the host is off."""
        process = self.layout.state.process(self.name)
        return qemus_of(process) if process else []

    def qemu(self, name: str) -> Qemu:
        """The QEMU of the domain with this name. Raises LabError when there is none."""
        for qemu in self.qemus():
            if qemu.name == name:
                return qemu
        raise LabError(f"no QEMU of a domain {name!r} on {self.name}: {[qemu.name for qemu in self.qemus()]}")

    def qemu_kill(self, name: str) -> None:
        """End that QEMU with SIGKILL and wait until it is gone."""
        end([self._process(name)], grace=0)

    def qemu_stop(self, name: str) -> None:
        """Freeze that QEMU."""
        self._stop_and_wait(self._process(name))

    def qemu_cont(self, name: str) -> None:
        """Let a frozen QEMU go on."""
        send(self._process(name), signal.SIGCONT)

    # Inside

    def run(self, *argv: str, timeout: float = 60) -> str:
        """Run a command on the host and return its stdout. Raises CommandFailedError."""
        return run(argv, inside=self.init.pid, kinds=KINDS, timeout=timeout)

    def virsh(self, *words: str, timeout: float = 60) -> str:
        """Run virsh against the host's own libvirtd and return its stdout. Raises CommandFailedError."""
        return self.run("virsh", "--connect", "qemu:///system", "--quiet", *words, timeout=timeout)

    def exec(self, argv: Sequence[str]) -> int:
        """Run a command on the host with our own stdin, stdout and stderr; returns its exit status."""
        return subprocess.run([*entering(self.init.pid, *KINDS), *argv], check=False).returncode

    def _links(self, process: Process) -> dict[str, Link]:
        return {
            bridge: self.fabric.link(process.pid, self.name, bridge, interface) for bridge, interface in CABLES.items()
        }

    def _process(self, name: str) -> Process:
        process = Process.of(self.qemu(name).pid)
        if process is None:
            raise LabError(f"the QEMU of {name} on {self.name} has just ended")
        return process

    def _stop_and_wait(self, process: Process) -> None:
        send(process, signal.SIGSTOP)
        wait_until(f"{process.pid} to stop", lambda: not process.alive() or _stopped(process), 5)


def _stopped(process: Process) -> bool:
    """Whether the process is in the state T (all its threads have stopped)."""
    tasks = Path(f"/proc/{process.pid}/task")
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt" for task in tasks.iterdir())
