"""How the lab starts, awaits and ends processes, in whichever namespaces they belong.

Every process that the lab starts carries its state folder in the variable PROCESS_MARK. Children inherit
it, so `down` finds what an interrupted `up` left even if no record was written. The mark is not
LAB_STATE: that one is also set in the shells of people, which must survive.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lab.errors import CommandFailedError, DeadlineError, LabError, tail
from lab.state import Process, State, adopt

PROCESS_MARK = "LAB_PROCESS_OF"
OUTSIDE = "outside"
POLL_SECONDS = 0.02

T = TypeVar("T")


def entering(pid: int | None, *kinds: str) -> list[str]:
    """The beginning of a command line that enters namespaces of a process: nsenter and its options.

    Kinds are nsenter's long names (`net`, `mount`, `uts`, `ipc`, `pid`, or `all`); none given means net and mount.
    Only with `pid` (and `all`) does nsenter stay as the parent of the command; else it becomes the command.
    No pid: an empty beginning, that is, the caller's own namespaces.
    """
    if pid is None:
        return []
    return ["nsenter", "--target", str(pid), *(f"--{kind}" for kind in kinds or ("net", "mount")), "--"]


def run(
    argv: Sequence[str],
    *,
    inside: int | None = None,
    kinds: Sequence[str] = (),
    stdin: str | None = None,
    timeout: float = 60,
) -> str:
    """Run a short command (in the namespaces of process `inside`, if given) and return its stdout.

    Raises CommandFailedError on a non-zero exit status and DeadlineError after `timeout` seconds.
    """
    command = [*entering(inside, *kinds), *argv]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise DeadlineError(f"`{' '.join(argv)}` did not end within {timeout:g} s") from None
    except FileNotFoundError as error:
        raise LabError(f"{error.filename} is not installed: run `python3 lab/setup.py`") from None
    if done.returncode:
        raise CommandFailedError(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def spawn(
    state: State,
    name: str,
    argv: Sequence[str],
    *,
    inside: int | None = None,
    kinds: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start a long-lived process that outlives us: own session, no terminal, output added to `state.log(name)`.

    Records it under `name`. The environment is ours plus `environment`. Starts from the namespaces in which the
    lab came up (see `outside`), also for a caller inside the lab: a mount made in there would be seen nowhere else.
    """
    command = [*entering(outside(state)), *entering(inside, *kinds), *argv]
    log = state.log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), PROCESS_MARK: str(state.folder)}
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawnp(command[0], command, variables, file_actions=actions, setsid=True)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed: run `python3 lab/setup.py`") from None
    adopt(pid)
    process = Process.of(pid)
    if process is None:
        raise LabError(f"{name} ended as soon as it began; {log}:\n{tail(log)}")
    state.record(name, process)
    return process


def outside(state: State) -> int | None:
    """A process in the namespaces where the lab came up, if the caller's own are others; None if they are the same.

    For `inside=` of commands that must act on the machine as everyone outside the lab sees it.
    """
    process = state.process(OUTSIDE)
    if process is None or namespace(process.pid, "mnt") == namespace(os.getpid(), "mnt"):
        return None
    return process.pid


def python(*arguments: str) -> list[str]:
    """A command line that runs a module of the lab with this very interpreter, from any folder."""
    root = str(Path(__file__).resolve().parent.parent)
    return ["env", f"PYTHONPATH={root}", sys.executable, "-m", *arguments]


def wait_until(
    what: str,
    probe: Callable[[], T | None],
    timeout: float,
    *,
    process: Process | None = None,
    log: Path | None = None,
    pause: float = POLL_SECONDS,
) -> T:
    """Poll, every `pause` seconds, until `probe` gives something true, and return that.

    Raises DeadlineError after `timeout` seconds, or at once when `process` has ended; the message ends with the log.
    """
    deadline = time.monotonic() + timeout
    while True:
        if found := probe():
            return found
        dead = process is not None and not process.alive()
        if dead or time.monotonic() > deadline:
            why = "its process ended" if dead else f"not within {timeout:g} s"
            raise DeadlineError(f"{what}: {why}" + (f"; {log}:\n{tail(log)}" if log else ""))
        time.sleep(pause)


def children(pid: int) -> list[int]:
    """Pids of all descendants, parents before children."""
    parents: dict[int, list[int]] = {}
    for candidate in pids():
        parents.setdefault(parent(candidate), []).append(candidate)
    found = [pid]
    for one in found:
        found.extend(parents.get(one, []))
    return found[1:]


def end(processes: Iterable[Process], grace: float = 3.0) -> None:
    """End processes: SIGTERM, then SIGKILL for those still there after `grace` seconds; returns when all are gone.

    A stopped process is continued, so that it can obey. Raises DeadlineError if one survives even SIGKILL.
    """
    remaining = [process for process in processes if process.alive()]
    if grace > 0:
        for process in remaining:
            send(process, signal.SIGTERM)
            send(process, signal.SIGCONT)
        remaining = _gone(remaining, grace)
    for process in remaining:
        send(process, signal.SIGKILL)
    if survivors := _gone(remaining, 10):
        raise DeadlineError(f"processes {[process.pid for process in survivors]} survive SIGKILL")


def end_tree(process: Process, grace: float = 3.0) -> None:
    """End a process and all its descendants."""
    tree = [process, *filter(None, (Process.of(pid) for pid in children(process.pid)))]
    end(tree, grace)


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False if it has ended (never reaches a recycled pid)."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not process.alive():
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def namespace(pid: int, kind: str) -> str | None:
    """A namespace of a process, like `net:[4026531840]`; kinds as in /proc/PID/ns.

    None: there is no such process, or it is none of our business (a container's first process may be hidden).
    """
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - a hot path


def marked(state: State) -> list[Process]:
    """All living processes that carry this lab's mark, whoever started them."""
    mark = f"{PROCESS_MARK}={state.folder}".encode()
    return [process for pid in pids() if mark in _environment(pid) and (process := Process.of(pid))]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def parent(pid: int) -> int:
    """Pid of the parent; 0 if there is none, or no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _gone(processes: list[Process], timeout: float) -> list[Process]:
    """Wait up to `timeout` seconds for all to end; returns those that did not."""
    deadline = time.monotonic() + timeout
    while (processes := [process for process in processes if process.alive()]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return processes
