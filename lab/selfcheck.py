"""Whether the lab is able to show what it is there to show: faults are planted, and each must turn its judge red.

A lab in which a second start is refused by the machine's kernel, or a power cut says goodbye, would call
every operator safe. The plants use two hosts of their own (the last two numbers), so the guests of a
running lab are left alone; without a running lab a small one is made and taken away again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from uuid import uuid4

from lab.errors import CommandFailedError, LabError
from lab.hosts import Host, down
from lab.hosts.guests import start_guest, stop_guest
from lab.hosts.host import KINDS
from lab.hosts.init import TICK_SECONDS
from lab.hosts.layout import SHARED, TLS_PORT
from lab.network import MAXIMUM_HOSTS, Fabric
from lab.oracle import Expectation, Kind, Oracle, Violation
from lab.processes import end, entering, marked, run
from lab.state import State

PLANT = "selfcheck"
SILENT_SECONDS = 5.0
IMAGE_BYTES = 1 << 20
# Runs on a host: connects to another one and tells how long the connection then stays as it is.
_LISTENER = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
print("connected", flush=True)
sys.stdin.readline()
peer.settimeout(float(sys.argv[3]))
try:
    print("ended" if not peer.recv(1) else "data")
except TimeoutError:
    print("silent")
except ConnectionError:
    print("reset")
"""


@dataclass(frozen=True)
class Finding:
    """What a plant showed: `passed` if the judge was red while it was there, and green before and after."""

    plant: str
    passed: bool
    said: str
    seconds: float


@dataclass(frozen=True)
class Bed:
    """Two hosts to plant on, and the judge."""

    state: State
    one: Host
    other: Host
    oracle: Oracle

    def image(self, suffix: str) -> tuple[Path, str]:
        """A new image on shared storage: its path here and its path on a host."""
        name = f"{PLANT}-{uuid4()}.{suffix}"
        kind = "qcow2" if suffix == "qcow2" else "raw"
        run(["qemu-img", "create", "-q", "-f", kind, str(self.state.shared / name), str(IMAGE_BYTES)])
        return self.state.shared / name, str(SHARED / name)

    def violations(self, kind: Kind, about: str) -> list[Violation]:
        """What the oracle says of this kind about a plant; others' troubles are not ours."""
        return [found for found in self.oracle.check() if found.kind == kind and about in f"{found}"]


def main(state: State) -> int:
    """Plant everything, print a table; 0 only if each plant turned its judge red and only while it was there."""
    with _bed(state) as bed:
        findings = []
        for name, plant in PLANTS.items():
            findings.append(_try(name, plant, bed))
            print(_line(findings[-1]), flush=True)
    failed = sum(not finding.passed for finding in findings)
    print(f"selfcheck: {len(findings) - failed} of {len(findings)} plants were seen" + (", NOT GOOD" if failed else ""))
    return 1 if failed else 0


def _try(name: str, plant: Callable[[Bed], str], bed: Bed) -> Finding:
    started = time.monotonic()
    try:
        said, passed = plant(bed), True
    except LabError as error:
        said, passed = str(error), False
    return Finding(name, passed, said, time.monotonic() - started)


def _line(finding: Finding) -> str:
    return f"{'ok  ' if finding.passed else 'FAIL'}  {finding.plant:<34} {finding.seconds:5.1f} s  {finding.said}"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LabError(otherwise)


# The plants: each returns what its judge said, and raises LabError if the judge was not red, or not only then.


def double_start(bed: Bed) -> str:
    """The same image started on two hosts, by two domains."""
    file, image = bed.image("qcow2")
    try:
        start_guest(bed.one, f"{PLANT}-1", str(uuid4()), image)
        _require(not bed.violations(Kind.DOUBLE_RUN, image), "one guest alone is called a double run")
        start_guest(bed.other, f"{PLANT}-2", str(uuid4()), image)
        found = bed.violations(Kind.DOUBLE_RUN, image)
        _require(bool(found), "the oracle does not see that two guests write one image")
        stop_guest(bed.other, f"{PLANT}-2")
        _require(not bed.violations(Kind.DOUBLE_RUN, image), "the oracle stays red after the second guest ended")
        return found[0].detail
    finally:
        _end_guests(bed)
        file.unlink()


def twin_domain(bed: Bed) -> str:
    """The same domain started on two hosts, each with an image of its own."""
    uuid = str(uuid4())
    images = [bed.image("raw"), bed.image("raw")]
    try:
        for host, (_, image) in zip((bed.one, bed.other), images, strict=True):
            _require(not bed.violations(Kind.DOUBLE_RUN, uuid), "one domain alone is called a double run")
            start_guest(host, f"{PLANT}-1", uuid, image)
        found = bed.violations(Kind.DOUBLE_RUN, uuid)
        _require(bool(found), "the oracle does not see that a domain runs twice")
        return found[0].detail
    finally:
        _end_guests(bed)
        for file, _ in images:
            file.unlink()


def refused_lock(bed: Bed) -> str:
    """The same image started twice on one host: QEMU itself refuses, which must not go unnoticed."""
    file, image = bed.image("qcow2")
    name = f"{PLANT}-refused"
    try:
        start_guest(bed.one, f"{PLANT}-1", str(uuid4()), image)
        try:
            start_guest(bed.one, name, str(uuid4()), image)
        except CommandFailedError:
            found = bed.violations(Kind.REFUSED_WRITE_LOCK, name)
            _require(bool(found), "the oracle does not see a refused write lock")
            return found[0].subject
        raise LabError("a second QEMU got the write lock of an image on one and the same host")
    finally:
        _end_guests(bed)
        file.unlink()


def number_went_back(bed: Bed) -> str:
    """A disk whose number is lower than it was."""
    file, image = bed.image("raw")
    try:
        for number in (7, 9):
            _write_number(file, number)
            _require(not bed.violations(Kind.SEQUENCE_WENT_BACK, image), "rising numbers are called wrong")
        _write_number(file, 8)
        found = bed.violations(Kind.SEQUENCE_WENT_BACK, image)
        _require(bool(found), "the oracle does not see that a disk went back in time")
        return found[0].detail
    finally:
        file.unlink()


def orphan(bed: Bed) -> str:
    """A guest and a file that nobody declared."""
    file, image = bed.image("raw")
    uuid = str(uuid4())
    try:
        start_guest(bed.one, f"{PLANT}-1", uuid, image)
        declared = bed.oracle.check(Expectation(domains={uuid}, files={"*"}))
        _require(not any(uuid in found.subject for found in declared), "a declared domain is called an orphan")
        subjects = {found.subject for found in bed.oracle.check(Expectation()) if found.kind == Kind.ORPHAN}
        _require({uuid, image} <= subjects, "the oracle does not see an orphan")
        return "both were named"
    finally:
        _end_guests(bed)
        file.unlink()


def spoken_cut(bed: Bed) -> str:
    """A host killed with its cables plugged in: the judge of silence must hear it."""
    heard = _hear(bed, lambda: end([bed.other.init], grace=0))
    bed.other.power_on()
    _require(heard != "silent", "killing a host with its cables plugged in was not heard: the judge is deaf")
    return f"the connection {heard}"


def silent_cut(bed: Bed) -> str:
    """A power cut: no farewell may leave the host."""
    heard = _hear(bed, bed.other.power_off)
    _require(not bed.other.alive(), "the host lives on after its power was cut")
    bed.other.power_on()
    _require(heard == "silent", f"a power cut was heard: the connection {heard}")
    return f"nothing was heard for {SILENT_SECONDS:g} s"


def empty_mount(bed: Bed) -> str:
    """Shared storage gone from under its path: an empty folder, and what is written there reaches nobody else."""
    file, image = bed.image("raw")
    stray = f"{SHARED}/{PLANT}-stray"
    try:
        _require(image in bed.one.run("ls", image), "a file on shared storage is not seen by a host")
        bed.one.unmount_shared()
        _require(bed.one.run("ls", "-A", str(SHARED)) == "", "the folder under the lost mount is not empty")
        bed.one.run("touch", stray)
        _require(not (bed.state.shared / Path(stray).name).exists(), "what is written there reaches the storage")
        bed.one.run("rm", stray)
        bed.one.mount_shared()
        _require(image in bed.one.run("ls", image), "the storage did not come back")
        return "an empty folder; a write did not reach the storage"
    finally:
        bed.one.mount_shared()
        file.unlink()


def reboot(bed: Bed) -> str:
    """A power cycle: another boot id, and processor counters that begin anew, as libvirtd reports them."""
    # The host that no other plant has switched off: it has run for much longer than a boot takes.
    host = bed.one
    before, counted = host.boot_id, _processor_nanoseconds(host)
    time.sleep(2 * TICK_SECONDS)
    later = _processor_nanoseconds(host)
    _require(later > counted, "the processor counters stand still")
    host.power_off()
    host.power_on()
    after, anew = host.boot_id, _processor_nanoseconds(host)
    said = host.run("cat", "/proc/sys/kernel/random/boot_id").strip()
    _require(said == after != before, f"boot ids: {before}, then {after}, and the host says {said}")
    _require(anew < later, f"processor counters did not begin anew: {later} ns, then {anew} ns")
    return f"another boot id; counters {later / 1e9:.1f} s, then {anew / 1e9:.1f} s"


PLANTS: dict[str, Callable[[Bed], str]] = {
    "one image on two hosts": double_start,
    "one domain on two hosts": twin_domain,
    "one image twice on one host": refused_lock,
    "a disk that went back in time": number_went_back,
    "an orphan": orphan,
    "a host killed, cables plugged in": spoken_cut,
    "a silent power cut": silent_cut,
    "an empty mount": empty_mount,
    "a reboot": reboot,
}


def _hear(bed: Bed, cut: Callable[[], None]) -> str:
    """What the first host hears on a connection to the other one when that is cut off: silent, ended, reset or data."""
    # The daemon waits for a TLS greeting that never comes, and says nothing by itself for much longer than this.
    command = [sys.executable, "-I", "-S", "-c", _LISTENER, bed.other.address, str(TLS_PORT), str(SILENT_SECONDS)]
    argv = [*entering(bed.one.init.pid, *KINDS), *command]
    with Popen(argv, stdin=PIPE, stdout=PIPE, text=True) as listener:
        assert listener.stdout
        _require(listener.stdout.readline() == "connected\n", f"no connection to {bed.other.name}")
        cut()
        heard, _ = listener.communicate("go\n", timeout=SILENT_SECONDS + 10)
    return heard.strip()


def _write_number(file: Path, number: int) -> None:
    with file.open("r+b") as opened:
        opened.write(f"{number:016d}".encode())


def _processor_nanoseconds(host: Host) -> int:
    said = host.virsh("nodecpustats")
    return sum(int(line.split()[-1]) for line in said.splitlines() if line.strip())


def _end_guests(bed: Bed) -> None:
    for host in (bed.one, bed.other):
        for qemu in host.qemus():
            stop_guest(host, qemu.name)


@contextmanager
def _bed(state: State) -> Iterator[Bed]:
    """Two spare hosts in the running lab, or in one made for this; all of it is taken away at the end."""
    if Fabric(state).is_up():
        with _spare_hosts(state) as bed:
            yield bed
        return
    with tempfile.TemporaryDirectory(prefix="lab-selfcheck-") as folder:
        own = State(folder)
        own.create()
        try:
            Fabric(own).up()
            with _spare_hosts(own) as bed:
                yield bed
        finally:
            down(own)
            end(marked(own))


@contextmanager
def _spare_hosts(state: State) -> Iterator[Bed]:
    one, other = (Host.of(state, number) for number in (MAXIMUM_HOSTS - 1, MAXIMUM_HOSTS))
    with state.lock(PLANT), _powered(state, one, other):
        yield Bed(state, one, other, Oracle(state, from_now=True))


@contextmanager
def _powered(state: State, one: Host, other: Host) -> Iterator[None]:
    """Both hosts on; afterwards as if they had never been."""
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Host.power_on, (one, other)))
        yield
    finally:
        for host in (one, other):
            host.cut()
            state.forget(host.name)
            shutil.rmtree(host.layout.folder, ignore_errors=True)
            state.log(host.name).unlink(missing_ok=True)
