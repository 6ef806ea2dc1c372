"""Which QEMUs run on a host: read from /proc, so that nobody's opinion comes between us and the processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.processes import namespace, pids
from lab.state import Process

_PREFIX = b"qemu-system-"
# Commas inside a value are doubled in QEMU's options.
_GUEST_NAME = re.compile(r"(?:^|,)guest=((?:[^,]|,,)*)")


@dataclass(frozen=True)
class Qemu:
    """A QEMU that libvirt started: its pid as the machine knows it, and the name and UUID of its domain."""

    pid: int
    name: str
    uuid: str
    argv: tuple[str, ...]


def qemus_of(init: Process) -> list[Qemu]:
    """All QEMUs in the pid namespace of this process, in order of their pids."""
    found = (parse(pid, argv) for pid, argv in commands_of(init) if _is_qemu(argv))
    return sorted((qemu for qemu in found if qemu), key=lambda qemu: qemu.pid)


def commands_of(init: Process) -> Iterator[tuple[int, list[bytes]]]:
    """Pid and command line of each process in the pid namespace of this one."""
    home = namespace(init.pid, "pid")
    if home is None:
        return
    for pid in pids():
        if _lives_in(pid, home) and (argv := _command_line(pid)):
            yield pid, argv


def parse(pid: int, argv: list[bytes]) -> Qemu | None:
    """The QEMU behind a command line; None for one without a domain (libvirt asking for capabilities)."""
    words = [word.decode(errors="replace") for word in argv]
    uuid, name = _option(words, "-uuid"), _option(words, "-name")
    if uuid is None or name is None:
        return None
    match = _GUEST_NAME.search(name)
    guest = match.group(1) if match else name.partition(",")[0]
    return Qemu(pid, guest.replace(",,", ","), uuid, tuple(words))


def _lives_in(pid: int, home: str) -> bool:
    try:
        return namespace(pid, "pid") == home
    except PermissionError:
        # Some processes of the machine may not be looked at even by root: those are none of ours.
        return False


def _is_qemu(argv: list[bytes]) -> bool:
    return argv[0].rpartition(b"/")[2].startswith(_PREFIX)


def _option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words[:-1] else None


def _command_line(pid: int) -> list[bytes]:
    """Empty for a process that has ended or is a kernel's own."""
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return content.rstrip(b"\0").split(b"\0") if content else []
