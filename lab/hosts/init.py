"""Process 1 of a host: makes the file tree that the host sees, starts its daemons, keeps its clocks, reaps the dead.

A program of its own for fresh network, mount, pid, uts and ipc namespaces, with nothing but the standard
library and all of it loaded early, because the tree it came from may vanish under the host's own folders:

    unshare --net --mount --uts --ipc --pid --fork --kill-child python3 -I -S init.py BOOT.json

It must reap: with a process 1 that does not, every stop of a guest lasts 40 s, because libvirt waits for
the zombie. When it dies the kernel kills whatever the host ran: that is the power cut.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import stat
import struct
import sys
import time
import uuid
from pathlib import Path
from typing import Any

MS_BIND = 0x1000
MS_NOSUID_NOEXEC = 0x2 | 0x8
# No kvm: present but unusable, it would make each definition of a domain last 6 s. And made, not borrowed:
# libvirt changes the owner of devices, and the machine's own must stay as they are.
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
TUN = (10, 200)
# Files that are bound over others live in memory, for one of them changes every second.
FACES = Path("/dev/.host")
# The view of the shared storage as it was mounted: what /srv/shared shows until it is taken away.
VIEW = Path("/run/lab/view")
TICK_SECONDS = 1.0
NETWORK_SECONDS = 60.0
UTMP = Path("/run/utmp")
UTMP_BOOT_TIME = 2

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str | Path, kind: str = "none", flags: int = 0, data: str = "") -> None:
    """The system call of this name; raises OSError."""
    if _libc.mount(source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


class Source:
    """A folder or file, held open so that it can be bound elsewhere after its path has been covered."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)

    def bind(self, target: str | Path) -> None:
        mount(f"/proc/self/fd/{self.descriptor}", target, flags=MS_BIND)


def execute(argv: list[str]) -> None:
    """Run a command to its end (daemons go to the background by themselves); raises OSError if it fails."""
    pid = os.posix_spawnp(argv[0], argv, os.environ, setsigmask=[])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(f"`{' '.join(argv)}` failed with exit status {code}")


def make_tree(boot: dict[str, Any]) -> None:
    """The host's file tree out of the machine's: its own folders and files on top, its own /dev and /sys."""
    # Before /dev is replaced (FUSE needs its device) and before the folders cover where the storage lies.
    execute([*boot["view_command"], boot["view"]])
    view = Source(boot["view"])
    files = {target: Source(source) for target, source in boot["files"].items()}
    folders = {target: Source(source) for target, source in boot["folders"].items()}
    for target, source in (files | folders).items():
        source.bind(Path(target).resolve())
    VIEW.mkdir(parents=True)
    for place in (VIEW, Path(boot["shared"])):
        view.bind(place)
    make_devices()
    mount("sysfs", "/sys", "sysfs", MS_NOSUID_NOEXEC)


def make_devices() -> None:
    """A /dev in memory with little in it."""
    mount("tmpfs", "/dev", "tmpfs", data="mode=755")
    for folder in (Path("/dev/net"), Path("/dev/pts"), Path("/dev/shm"), FACES):
        folder.mkdir(mode=0o755)
    for name, (major, minor) in {**DEVICES, "net/tun": TUN}.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR, os.makedev(major, minor))
        Path("/dev", name).chmod(0o666)
    mount("devpts", "/dev/pts", "devpts", data="newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", "/dev/shm", "tmpfs", data="mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        Path("/dev", name).symlink_to(target)


class Clocks:
    """What the host says about its boot: an identity of its own, and counters that began at zero with it."""

    def __init__(self) -> None:
        # Opened before the host has its own /proc: the machine's counters, from which ours are derived.
        self._machine = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._first = parse_counters(self._read())
        self._last = {name: [0] * len(values) for name, values in self._first.items()}
        self._booted = int(time.time())
        self.boot_id = str(uuid.uuid4())

    def install(self) -> None:
        """Mount the host's own /proc and put these faces over it."""
        (FACES / "boot_id").write_text(f"{self.boot_id}\n")
        self._stat = os.open(FACES / "stat", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o444)
        self.tick()
        UTMP.write_bytes(boot_record(self._booted))
        mount("proc", "/proc", "proc")
        mount(str(FACES / "boot_id"), "/proc/sys/kernel/random/boot_id", flags=MS_BIND)
        mount(str(FACES / "stat"), "/proc/stat", flags=MS_BIND)

    def tick(self) -> None:
        """Bring the counters up to date. In place: the file is bound, a new one would not be seen."""
        now = parse_counters(self._read())
        for name, values in self._last.items():
            first, current = self._first[name], now.get(name, self._first[name])
            self._last[name] = [max(old, new - zero) for old, new, zero in zip(values, current, first, strict=True)]
        os.pwrite(self._stat, stat_text(self._last, self._booted).encode(), 0)

    def _read(self) -> str:
        return os.pread(self._machine, 1 << 20, 0).decode()


def parse_counters(text: str) -> dict[str, list[int]]:
    """The counters of each processor, and of all (`cpu`), in clock ticks, from the text of /proc/stat."""
    rows = (line.split() for line in text.splitlines() if line.startswith("cpu"))
    return {name: [int(value) for value in values] for name, *values in rows}


def stat_text(counters: dict[str, list[int]], booted: int) -> str:
    """Text of /proc/stat with these counters; `booted` in seconds since the epoch."""
    rows = [" ".join([name, *map(str, values)]) for name, values in counters.items()]
    return "\n".join([*rows, "intr 0", "ctxt 0", f"btime {booted}", "processes 1", "procs_running 1", ""])


def boot_record(booted: int) -> bytes:
    """The record of a boot in /run/utmp (glibc, 64 bit), from which libvirt learns which owners it may remember."""
    return struct.pack(
        "<h2xi32s4s32s256shhiii16s20x", UTMP_BOOT_TIME, 0, b"~", b"~~", b"reboot", b"", 0, 0, 0, booted, 0, b""
    )


def await_cables(names: list[str]) -> None:
    """Wait until somebody has plugged the network in."""
    deadline = time.monotonic() + NETWORK_SECONDS
    while not all(Path("/sys/class/net", name).exists() for name in names):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no cable in {names} within {NETWORK_SECONDS:g} s")
        time.sleep(0.005)


def configure_network(commands: str) -> None:
    # The management network is IPv4; where the kernel has no IPv6 there is no such file.
    for switch in Path("/proc/sys/net/ipv6/conf").glob("*/disable_ipv6"):
        switch.write_text("1\n")
    batch = FACES / "network"
    batch.write_text(commands)
    execute(["ip", "-batch", str(batch)])


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main(path: str) -> int:
    boot = json.loads(Path(path).read_text())
    # /proc is still the machine's: this is our pid as the machine knows it.
    outer_pid = Path("/proc/self").readlink()
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    report(folder, "pid", str(outer_pid))
    awaited = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    socket.sethostname(boot["hostname"])
    clocks = Clocks()
    make_tree(boot)
    clocks.install()
    await_cables(boot["interfaces"])
    configure_network(boot["network"])
    for command in boot["daemons"]:
        execute(command)
    report(folder, "booted", clocks.boot_id)
    while True:
        received = signal.sigtimedwait(awaited, TICK_SECONDS)
        if received and received.si_signo == signal.SIGTERM:
            return 0
        reap()
        clocks.tick()


def report(folder: int, name: str, content: str) -> None:
    """Tell the machine something: a file in the host's folder, there as a whole or not at all."""
    descriptor = os.open(f".{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644, dir_fd=folder)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    os.rename(f".{name}", name, src_dir_fd=folder, dst_dir_fd=folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
