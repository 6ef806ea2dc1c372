"""The judge: what really happened on the hosts, whoever claims what.

It reads processes (/proc), disks (guests write increasing numbers) and the logs that QEMU writes; never
Kubernetes, never libvirt. A migration is not known to it: two QEMUs of one domain are a double run.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from lab.hosts import Host, Qemu, all_hosts
from lab.hosts.diskimage import UnreadableImageError, first_bytes
from lab.hosts.layout import LOCAL, PRIVATE_FOLDERS, SHARED
from lab.hosts.openfiles import Devices, FileIdentity, OpenFile, open_files
from lab.hosts.qemus import qemus_of
from lab.state import State

SEQUENCE_DIGITS = 16
REFUSED = 'Failed to get "write" lock'
LOOK_SECONDS = 0.2
# The ioctl FS_IOC_GETVERSION: tells a file from another one that got its inode number later.
_GET_VERSION = 0x80087601
# Folders of libvirt's own in which something is left behind for each domain, as the host sees them.
_REMAINS = ("/var/lib/libvirt/qemu/nvram", "/var/lib/libvirt/qemu/save", "/etc/libvirt/qemu/autostart")
_DEFINITIONS = "/etc/libvirt/qemu"
_UUID = re.compile(r"<uuid>([0-9a-fA-F-]{36})</uuid>")


class Kind(StrEnum):
    """What can be wrong. Each of the first three may have cost data."""

    DOUBLE_RUN = "DoubleRun"
    REFUSED_WRITE_LOCK = "RefusedWriteLock"
    SEQUENCE_WENT_BACK = "SequenceWentBack"
    ORPHAN = "Orphan"


@dataclass(frozen=True, order=True)
class Violation:
    """One thing that must not be: `subject` is the domain, file or log line it is about, `detail` who and what."""

    kind: Kind
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Expectation:
    """What has been declared. Everything else that is found is an orphan.

    `domains`: UUIDs that may run or be defined. `files`: labels of files (`Volume.label`) or shell patterns of them.
    """

    domains: Collection[str] = ()
    files: Collection[str] = ()

    def allows_domain(self, uuid: str) -> bool:
        return uuid.lower() in {domain.lower() for domain in self.domains}

    def allows_file(self, label: str) -> bool:
        return any(fnmatchcase(label, pattern) for pattern in self.files)


@dataclass(frozen=True)
class Volume:
    """A file on storage. `label`: `/srv/shared/…`, or `kvmN:/srv/local/…` for a host's own; `file`: where it lies here.

    `sequence` is the number that its guest wrote last (None: not a disk that a guest counts on).
    `writers` are the hosts on which a QEMU has it open for writing.
    """

    label: str
    file: Path
    sequence: int | None
    writers: tuple[str, ...]


@dataclass(frozen=True)
class Holder:
    """A QEMU that runs, and the files it has open."""

    host: str
    qemu: Qemu
    files: tuple[OpenFile, ...]

    def __str__(self) -> str:
        return f"{self.qemu.name} on {self.host} (pid {self.qemu.pid})"


@dataclass
class Oracle:
    """Looks at one lab. It remembers the numbers of guests between looks, so keep it as long as the trial lasts.

    `from_now=True` forgives what the logs said before it was made.
    """

    state: State
    from_now: bool = False
    _forgiven: set[Violation] = field(default_factory=set)
    _numbers: dict[tuple[Path, FileIdentity, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.from_now:
            self._forgiven = set(self._refused_locks())

    def check(self, expected: Expectation | None = None) -> list[Violation]:
        """Everything that is wrong now; orphans only if it is said what should be there."""
        found = {*self._double_runs(), *(set(self._refused_locks()) - self._forgiven), *self._went_back()}
        if expected is not None:
            found |= {*self._orphan_domains(expected), *self._orphan_files(expected)}
        return sorted(found)

    def watch(self, seconds: float, expected: Expectation | None = None) -> list[Violation]:
        """Look again and again for this long; returns each violation once."""
        found: set[Violation] = set()
        deadline = time.monotonic() + seconds
        while True:
            found |= set(self.check(expected))
            if time.monotonic() >= deadline:
                return sorted(found)
            time.sleep(LOOK_SECONDS)

    def domains(self) -> dict[str, list[str]]:
        """UUID of each domain that has a QEMU, and the hosts on which (one name per QEMU)."""
        found: dict[str, list[str]] = defaultdict(list)
        for host in all_hosts(self.state):
            for qemu in host.qemus():
                found[qemu.uuid].append(host.name)
        return dict(found)

    def volumes(self) -> list[Volume]:
        """Every file on shared and local storage."""
        writers: dict[FileIdentity, set[str]] = defaultdict(set)
        for holder in self._holders():
            for file in holder.files:
                if file.writable:
                    writers[file.identity].add(holder.host)
        return [
            Volume(label, file, self._sequence(host, file), tuple(sorted(writers[identity])))
            for host, label, file in self._stored()
            if (identity := _identity(file))
        ]

    # Double runs

    def _double_runs(self) -> set[Violation]:
        """Seen in two looks with the same processes: one look is not an instant, and a domain may move meanwhile."""
        first = double_runs(self._holders())
        return first & double_runs(self._holders()) if first else first

    def _holders(self) -> list[Holder]:
        found = []
        for host in all_hosts(self.state):
            if init := self.state.process(host.name):
                devices = Devices(self.state.shared, init)
                qemus = qemus_of(init)
                found += [Holder(host.name, qemu, tuple(open_files(qemu.pid, devices))) for qemu in qemus]
        return found

    # Logs

    def _refused_locks(self) -> Iterator[Violation]:
        for host in all_hosts(self.state):
            for log in sorted((host.layout.path("log") / "qemu").glob("*.log*")):
                for number, line in enumerate(_text(log).splitlines(), 1):
                    if REFUSED in line:
                        yield Violation(Kind.REFUSED_WRITE_LOCK, f"{host.name} {log.stem}", f"{log}:{number}: {line}")

    # Numbers

    def _went_back(self) -> Iterator[Violation]:
        for host, label, file in self._stored():
            now = self._sequence(host, file)
            key = _lasting_identity(file)
            if now is None or key is None:
                continue
            before = self._numbers.get(key, 0)
            self._numbers[key] = max(now, before)
            if now < before:
                yield Violation(Kind.SEQUENCE_WENT_BACK, label, f"its guest had written {before}; now it holds {now}")

    def _sequence(self, host: Host | None, file: Path) -> int | None:
        try:
            start = first_bytes(file, SEQUENCE_DIGITS, lambda name: machine_path(self.state, host, name))
        except (OSError, UnreadableImageError):
            # Deleted in between, or half made: no guest runs on it.
            return None
        return int(start) if start.isdigit() else None

    def _stored(self) -> Iterator[tuple[Host | None, str, Path]]:
        """Host (None: shared), label and machine's path of every file on storage."""
        yield from ((None, label, file) for label, file in _files(self.state.shared, str(SHARED)))
        for host in all_hosts(self.state):
            yield from ((host, label, file) for label, file in _files(host.local, f"{host.name}:{LOCAL}"))

    # Orphans

    def _orphan_domains(self, expected: Expectation) -> Iterator[Violation]:
        for uuid, hosts in self.domains().items():
            if not expected.allows_domain(uuid):
                yield Violation(Kind.ORPHAN, uuid, f"a QEMU runs on {', '.join(hosts)}")
        for host in all_hosts(self.state):
            for file in sorted(machine_path(self.state, host, _DEFINITIONS).glob("*.xml")):
                match = _UUID.search(_text(file))
                if match and not expected.allows_domain(match.group(1)):
                    yield Violation(Kind.ORPHAN, match.group(1), f"{file.stem} is defined on {host.name}")

    def _orphan_files(self, expected: Expectation) -> Iterator[Violation]:
        labels = [label for _, label, _ in self._stored()]
        for host in all_hosts(self.state):
            for folder in _REMAINS:
                found = _files(machine_path(self.state, host, folder), f"{host.name}:{folder}")
                labels += [label for label, _ in found]
        for label in labels:
            if not expected.allows_file(label):
                yield Violation(Kind.ORPHAN, label, "a file that nobody declared")


def double_runs(holders: Iterable[Holder]) -> set[Violation]:
    """Domains with two QEMUs, and files that one QEMU may write while another one has them open at all."""
    domains: dict[str, list[Holder]] = defaultdict(list)
    files: dict[FileIdentity, dict[int, tuple[Holder, OpenFile]]] = defaultdict(dict)
    for holder in holders:
        domains[holder.qemu.uuid].append(holder)
        # A QEMU may have a file open twice: what counts is whether it may write.
        for file in sorted(holder.files, key=lambda file: file.writable):
            files[file.identity][holder.qemu.pid] = (holder, file)
    found = {
        Violation(Kind.DOUBLE_RUN, uuid, " and ".join(sorted(map(str, several))))
        for uuid, several in domains.items()
        if len(several) > 1
    }
    for users in files.values():
        if len(users) > 1 and any(file.writable for _, file in users.values()):
            said = sorted(f"{holder} {'writes' if file.writable else 'reads'}" for holder, file in users.values())
            path = min(file.path for _, file in users.values())
            found.add(Violation(Kind.DOUBLE_RUN, path, " and ".join(said)))
    return found


def machine_path(state: State, host: Host | None, seen: str) -> Path:
    """Where a path that a host sees lies on the machine. Without a host: a path that all see alike (shared storage)."""
    path = Path(seen)
    if path.is_relative_to(SHARED):
        return state.shared / path.relative_to(SHARED)
    if host is None:
        return path
    for room, place in PRIVATE_FOLDERS.items():
        if path.is_relative_to(place):
            return host.layout.path(room) / path.relative_to(place)
    return path


def main(state: State, arguments: Sequence[str]) -> int:
    """`lab oracle`: print what runs, what is stored and what is wrong; exit status 1 if anything is."""
    parser = argparse.ArgumentParser(prog="lab oracle", description=__doc__)
    parser.add_argument("--watch", type=float, default=0, metavar="SECONDS", help="look for this long")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    oracle = Oracle(state)
    violations = oracle.watch(options.watch)
    domains, volumes = oracle.domains(), oracle.volumes()
    if options.json:
        document = {
            "domains": domains,
            "volumes": [{**asdict(volume), "file": str(volume.file)} for volume in volumes],
            "violations": [asdict(violation) for violation in violations],
        }
        print(json.dumps(document, indent=2))
        return 1 if violations else 0
    for uuid, hosts in domains.items():
        print(f"domain  {uuid}  on {', '.join(hosts)}")
    for volume in volumes:
        sequence = "" if volume.sequence is None else f"  sequence {volume.sequence}"
        writers = f"  written on {', '.join(volume.writers)}" if volume.writers else ""
        print(f"file    {volume.label}{sequence}{writers}")
    for violation in violations:
        print(f"WRONG   {violation}")
    print(f"{len(violations)} violations")
    return 1 if violations else 0


def _files(folder: Path, label: str) -> Iterator[tuple[str, Path]]:
    """Label and path of every file below a folder; files may come and go meanwhile."""
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            file = Path(place, name)
            yield f"{label}/{file.relative_to(folder)}", file


def _text(file: Path) -> str:
    """What the file says; nothing if it is gone."""
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _identity(file: Path) -> FileIdentity | None:
    """Device and inode; None if it is gone."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def _lasting_identity(file: Path) -> tuple[Path, FileIdentity, int] | None:
    """What tells this file from a later one of the same name. None if it is gone."""
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            version = bytearray(8)
            try:
                fcntl.ioctl(opened, _GET_VERSION, version)
            except OSError:
                # A file system without it: the inode number has to do.
                version = bytearray(8)
    except FileNotFoundError:
        return None
    return file, (status.st_dev, status.st_ino), int.from_bytes(version, "little")
