"""The state folder: everything one lab remembers, so that another process can find, repair or end it.

Facts (ports, addresses) are one small JSON document; each long-lived process has a record of its own,
so that parts of the lab that come up in parallel never write the same file.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_FOLDER = ".lab"
ENVIRONMENT_VARIABLE = "LAB_STATE"


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for another one.

    `started` is field 22 of /proc/PID/stat (clock ticks since boot): a recycled pid has another value.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now, or None if there is none (a zombie counts as none)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(fields[18]))

    def alive(self) -> bool:
        _reap(self.pid)
        return Process.of(self.pid) == self


# Children that nobody else waits for; the exit status of any other child belongs to who started it.
_detached: set[int] = set()


def adopt(pid: int) -> None:
    """Leave it to `Process.alive` to collect the exit status of this child of ours, once it has one."""
    _detached.add(pid)


def _reap(pid: int) -> None:
    """Collect the exit status of a dead adopted child, so that no zombie stays behind."""
    if pid not in _detached:
        return
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        ended = pid
    if ended:
        _detached.discard(pid)


class State:
    """One lab's folder. Making the object touches nothing; `create()` makes the folders."""

    def __init__(self, folder: Path | str | None = None) -> None:
        chosen = folder or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_FOLDER
        self.folder = Path(chosen).absolute()

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.folder / "pki"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that everything in the lab trusts."""
        return self.pki / "ca.crt"

    @property
    def hosts(self) -> Path:
        """One folder per host."""
        return self.folder / "hosts"

    @property
    def shared(self) -> Path:
        """What lies behind the shared storage of all hosts."""
        return self.folder / "shared"

    @property
    def images(self) -> Path:
        """What the image server serves."""
        return self.folder / "images"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig: valid in and outside the lab's namespaces."""
        return self.folder / "kubeconfig"

    @property
    def records(self) -> Path:
        return self.folder / "run"

    def log(self, name: str) -> Path:
        """Where the process or step of this name writes what it has to say."""
        return self.folder / "logs" / f"{name}.log"

    def create(self) -> None:
        """Make the folder and its rooms; harmless when they are there."""
        for folder in (self.records, self.folder / "logs", self.pki, self.hosts, self.shared, self.images):
            folder.mkdir(parents=True, exist_ok=True)
        self.pki.chmod(0o755)

    # Facts

    @property
    def facts(self) -> dict[str, Any]:
        """A copy of everything remembered; change it with `remember`."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        except FileNotFoundError:
            return {}
        return facts

    def remember(self, **facts: Any) -> None:
        """Add facts (JSON values); a value of None forgets the fact. Safe between threads and processes."""
        with self.lock("facts"):
            merged = {name: value for name, value in {**self.facts, **facts}.items() if value is not None}
            write_atomically(self.folder / "facts.json", json.dumps(merged, indent=2, sort_keys=True) + "\n")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of this name against every other process and thread; waits for it."""
        self.records.mkdir(parents=True, exist_ok=True)
        with locked(self.records / f"{name}.lock"):
            yield

    # Processes

    def record(self, name: str, process: Process) -> None:
        """Remember a long-lived process under its name; replaces the one of that name."""
        self.records.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"pid": process.pid, "started": process.started})
        write_atomically(self.records / f"{name}.json", content)

    def process(self, name: str) -> Process | None:
        """The recorded process of this name if it still runs, else None."""
        try:
            record = json.loads((self.records / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        process = Process(record["pid"], record["started"])
        return process if process.alive() else None

    def recorded(self) -> list[str]:
        """Names of all recorded processes, alive or not."""
        return sorted(path.stem for path in self.records.glob("*.json"))

    def forget(self, name: str) -> None:
        (self.records / f"{name}.json").unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on this file (made if absent) against every other process and thread; waits."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, content: str, mode: int = 0o644) -> None:
    """Replace a file as a whole: readers see the old or the new content, never a part."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
    Path(temporary).replace(path)
