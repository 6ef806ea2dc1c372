"""A large fleet: what a VM costs the controller when there are thousands, and how fast it starts over them.

The operator is the real one on a real API server, in a process of its own; its hosts are simulated ones that take as
long for each call as real ones were measured to. Runs inside a lab (`make bench` sees to it).
"""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import objects
from bench.figures import Figure
from bench.objects import NAMESPACE
from bench.yardstick import Yardstick
from lab import Lab
from tests.integration.system.cluster import Cluster, disk, firmware_vm, host, network, pool, storage
from tools.deployment import ROOT, Deployment

SMALL, LARGE = (200, 5), (2000, 50)
"""VMs, hosts."""
AT_ONCE = (40, 3)
"""VMs that are declared at once, on disks that are ready, and hosts."""
ROUNDS = 3
CALM_SECONDS = 10.0
_DEFINED = re.compile(rf"^(\S+) {NAMESPACE}\.(\S+) \(\S+\) defined by", re.MULTILINE)
_RECONCILES = re.compile(r'^hostler_reconciles_total\{kind="VirtualMachine",.*\} (\S+)$', re.MULTILINE)


@dataclass
class Fleet:
    """What one fleet showed."""

    vms: int
    cpu: float = 0.0
    """Seconds of the process, from the first apply until all VMs were Running and nothing was left to do."""
    piece: float = 0.0
    """What a piece of the yardstick took meanwhile, in seconds of CPU time."""
    idle: int = 0
    settled: int = 0
    """Bytes of the process with all hosts and no VM, and with all VMs settled."""
    world: int = 0
    """Bytes that so many simulated domains take by themselves."""
    restart: float = 0.0
    """Seconds until every VM was looked at again."""
    restart_writes: float = 0.0

    @property
    def cpu_per_vm(self) -> float:
        """What the controller needs for a VM and its disk, in seconds of CPU time."""
        return self.cpu / self.vms

    @property
    def pieces_per_vm(self) -> float:
        """The same in pieces of the yardstick."""
        return self.cpu_per_vm / self.piece

    @property
    def bytes_per_vm(self) -> float:
        """What the controller needs for a VM and its disk."""
        return (self.settled - self.idle - self.world) / self.vms


def run() -> list[Figure]:
    """All figures. Raises RuntimeError outside a lab."""
    lab = Lab()
    if not lab.control.is_inside():
        raise RuntimeError("this benchmark runs inside a lab: `make bench`")
    deployment = Deployment(lab)
    deployment.install()
    deployment.stop()
    calls = tuple(_slowest_call(Cluster(deployment, NAMESPACE), *AT_ONCE) for _ in range(ROUNDS))
    # The small one before and after the large one: a machine is not as fast in one quarter of an hour as in the next.
    before, large, after = (_measure(Cluster(deployment, NAMESPACE), *fleet) for fleet in (SMALL, LARGE, SMALL))
    small = (before, after)
    return [
        Figure(f"apply to create-call, slowest of {AT_ONCE[0]} VMs", "s", calls, must=2.0, aim=1.0),
        Figure(f"controller CPU per VM with its disk, of {SMALL[0]}", "ms", tuple(f.cpu_per_vm * 1000 for f in small)),
        Figure(f"controller CPU per VM with its disk, of {large.vms}", "ms", (large.cpu_per_vm * 1000,)),
        Figure("a piece of the yardstick beside the one", "ms", tuple(fleet.piece * 1000 for fleet in small)),
        Figure("a piece of the yardstick beside the other", "ms", (large.piece * 1000,)),
        Figure(
            "the other divided by the one (mean of both), each in pieces of the yardstick",
            "ratio",
            (large.pieces_per_vm / statistics.fmean(fleet.pieces_per_vm for fleet in small),),
            must=1.2,
            aim=1.05,
        ),
        Figure(
            f"controller memory per VM with its disk, of {large.vms}", "KiB", (large.bytes_per_vm / 1024,), 60.0, 40.0
        ),
        Figure(f"restart over {large.vms} settled VMs: all looked at after", "s", (large.restart,), must=10, aim=5),
        Figure(f"restart over {large.vms} settled VMs: object writes", "writes", (large.restart_writes,), 0, 0),
    ]


def _slowest_call(cluster: Cluster, vms: int, hosts: int) -> float:
    """Seconds from a VM's apply until its host has carried out its definition, for the slowest."""
    names = [f"vm-{number:04}" for number in range(vms)]
    log = cluster.deployment.log.with_name("simulated-hosts.log")
    _declare(cluster, hosts)
    with _operator(cluster, hosts, "--log", str(log)), objects.Phases() as phases:
        _until_up(cluster, hosts)
        cluster.apply(*(disk(name, "1Mi") for name in names))
        for name in names:
            cluster.wait_phase("disk", name, "Ready")
        applied = objects.create(_manifests(names, ready_disks=True))
        phases.wait(lambda: len(phases.running) == vms, 300)
        _remove(cluster, names, phases)
    defined = {name: float(at) for at, name in _DEFINED.findall(log.read_text())}
    return max(defined[name] - at for name, at in applied.items())


def _measure(cluster: Cluster, vms: int, hosts: int) -> Fleet:
    fleet, names = Fleet(vms, world=_world_bytes(vms, hosts)), [f"vm-{number:04}" for number in range(vms)]
    _declare(cluster, hosts)
    with _operator(cluster, hosts) as process, objects.Phases() as phases, Yardstick() as yardstick:
        _until_up(cluster, hosts)
        fleet.idle = objects.resident_bytes(process.pid)
        cpu, began = objects.cpu_seconds(process.pid), time.monotonic()
        objects.create(_manifests(names))
        phases.wait(lambda: len(phases.running) == vms, 900)
        fleet.piece = yardstick.piece(began)
        _until_quiet(cluster.lab)
        fleet.cpu = objects.cpu_seconds(process.pid) - cpu
        fleet.settled = objects.resident_bytes(process.pid)
        since, begun = objects.now(), time.monotonic()
        before = _looks(cluster.deployment)
        process.send_signal(signal.SIGTERM)
        _wait("every VM is looked at", lambda: _looks(cluster.deployment) >= before + vms, 120)
        fleet.restart = time.monotonic() - begun
        time.sleep(CALM_SECONDS)
        fleet.restart_writes = objects.writes(cluster.lab, since, names) * vms
        _remove(cluster, names, phases)
    return fleet


def _declare(cluster: Cluster, hosts: int) -> None:
    """A pool, its hosts, a network and a storage domain; nothing serves them yet."""
    cluster.apply(pool("default", placement={"overcommit": {"cpu": "2000%"}}))
    cluster.apply(*(host(f"kvm{n}", f"qemu+tls://kvm{n}.lab/system") for n in range(1, hosts + 1)))
    cluster.apply(network("lan"), storage("shared", "/srv/shared", "Shared"))
    cluster.create_namespace()


def _until_up(cluster: Cluster, hosts: int) -> None:
    cluster.wait_phase("storagedomain", "shared", "Active")
    for number in range(1, hosts + 1):
        cluster.wait_phase("host", f"kvm{number}", "Up")


def _remove(cluster: Cluster, names: list[str], phases: objects.Phases) -> None:
    objects.delete(names)
    phases.wait(lambda: len(phases.gone) == len(names), 900)
    cluster.delete_namespace()
    objects.clear(cluster.lab)


def _manifests(names: list[str], *, ready_disks: bool = False) -> Iterator[dict[str, object]]:
    for name in names:
        drives = [{"name": "root", "diskRef": {"name": name}}] if ready_disks else []
        yield {**firmware_vm(name, *drives), "metadata": {"name": name, "namespace": NAMESPACE}}


@contextmanager
def _operator(cluster: Cluster, hosts: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The operator's process over so many simulated hosts; ends it at last."""
    deployment = cluster.deployment
    command = [sys.executable, "-m", "bench.simulated_operator", str(hosts), "--kubeconfig", str(deployment.kubeconfig)]
    command += [*more, "--http-address", "127.0.0.1", "--http-port", str(deployment.port), "--log-format", "text"]
    with deployment.log.open("ab") as log:
        process = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, stdout=log, stderr=log)
    try:
        _wait("the operator is ready", deployment.ready, 60)
        yield process
    finally:
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _world_bytes(vms: int, hosts: int) -> int:
    """What the simulated domains take by themselves, in a process that has nothing else."""
    sizes = []
    for domains in (1, vms):
        command = [sys.executable, "-m", "bench.simulated_operator", str(hosts), "--fill", str(domains)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            try:
                if process.stdout is None or process.stdout.readline() != b"full\n":
                    raise RuntimeError("the simulated hosts could not be filled")
                sizes.append(objects.resident_bytes(process.pid))
            finally:
                process.kill()
    return sizes[1] - sizes[0]


def _looks(deployment: Deployment) -> float:
    """How often VMs were looked at so far; 0 while the operator is away."""
    try:
        return sum(float(value) for value in _RECONCILES.findall(deployment.metrics()))
    except OSError:
        return 0.0


def _until_quiet(lab: Lab) -> None:
    """Wait until the API server has seen no write of our objects for a while."""
    while True:
        since = objects.now()
        time.sleep(CALM_SECONDS)
        if not objects.writes_of_controller(lab, since):
            return


def _wait(what: str, holds: Callable[[], bool], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
