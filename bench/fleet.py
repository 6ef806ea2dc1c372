"""Forty VMs on three hosts: Hostler beside a loop that only calls libvirt, and what each VM costs the controller.

Runs inside a lab (`make bench` sees to it). The VMs run their firmware only, on disks that are ready; the loop defines
and starts the very documents that Hostler made, over the same transport, with as many calls at once. Rounds alternate,
so that both meet the same machine.
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import libvirt

from bench import objects
from bench.figures import Figure
from bench.objects import NAMESPACE
from lab import Lab
from lab.hosts import Host
from tests.integration.system.cluster import Cluster, disk, firmware_vm, pool
from tools.deployment import Deployment

VMS = 40
ROUNDS = 3
PER_HOST = 12
"""Starts at once of one host: what Hostler does."""
CALM_SECONDS = 20.0


@dataclass
class Round:
    """What one round of Hostler showed. Times are monotonic."""

    applied: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    defined: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0
    """Seconds of the controller, from the first apply until all run."""
    writes: dict[str, float] = field(default_factory=dict)
    """Object writes per VM, by phase of its life."""
    documents: dict[str, list[str]] = field(default_factory=dict)
    """Host name → the documents that it was given."""

    @property
    def seconds(self) -> float:
        """First apply to last Running."""
        return max(self.running.values()) - min(self.applied.values())

    @property
    def slowest_call(self) -> float:
        """The longest time from a VM's apply until its host had its definition: more than until the call was sent."""
        return max(self.defined[name] - at for name, at in self.applied.items())


def run() -> list[Figure]:
    """All figures. Raises RuntimeError outside a lab."""
    lab = Lab()
    if not lab.control.is_inside():
        raise RuntimeError("this benchmark runs inside a lab: `make bench`")
    deployment = Deployment(lab)
    deployment.install()
    deployment.stop()
    deployment.start()
    cluster = Cluster(deployment, NAMESPACE)
    cluster.declare_infrastructure()
    cluster.apply(pool("default", placement={"overcommit": {"cpu": "2000%"}}))
    cluster.create_namespace()
    try:
        return _figures(cluster)
    finally:
        deployment.start()
        cluster.delete_namespace()
        objects.clear(lab)
        deployment.stop()


def _figures(cluster: Cluster) -> list[Figure]:
    names = [f"vm-{number:02}" for number in range(VMS)]
    cluster.apply(*(disk(name, "1Mi") for name in names))
    for name in names:
        cluster.wait_phase("disk", name, "Ready")
    _hostler(cluster, names)  # warms both sides up
    rounds, loops = [], []
    for _ in range(ROUNDS):
        done = _hostler(cluster, names)
        rounds.append(done)
        cluster.deployment.stop()
        loops.append(_loop(cluster.lab.hosts, done.documents))
        cluster.deployment.start()
        cluster.whole()
    ratios = [done.seconds / loop for done, loop in zip(rounds, loops, strict=True)]
    return [
        Figure(f"{VMS} VMs: first apply to last Running", "s", tuple(done.seconds for done in rounds)),
        Figure(f"{VMS} VMs: the same documents, libvirt-python alone", "s", tuple(loops)),
        Figure(f"{VMS} VMs: the one divided by the other", "ratio", tuple(ratios), must=1.5, aim=1.2),
        Figure("apply to create-call, slowest VM", "s", tuple(done.slowest_call for done in rounds)),
        Figure("controller CPU per VM, create to Running", "ms", tuple(d.cpu / VMS * 1000 for d in rounds), aim=60.0),
        *(
            Figure(f"object writes per VM, {phase}", "writes", tuple(d.writes[phase] for d in rounds), must, aim)
            for phase, must, aim in (("create to Running", 8, 5), ("settled", 0, 0), ("delete", 6, 4))
        ),
    ]


# Hostler -------------------------------------------------------------------------------------------------------------


def _hostler(cluster: Cluster, names: list[str]) -> Round:
    """Create all VMs, wait until they run, leave them alone for a while, delete them."""
    done, since = Round(), objects.now()
    process = cluster.deployment.process()
    if process is None:
        raise RuntimeError(f"the operator does not run: see {cluster.deployment.log}")
    manifests = [_manifest(name) for name in names]
    with _Definitions(cluster.lab.hosts) as definitions, objects.Phases() as phases:
        cpu = objects.cpu_seconds(process.pid)
        done.applied = objects.create(manifests)
        phases.wait(lambda: len(phases.running) == len(names), 300)
        done.cpu = objects.cpu_seconds(process.pid) - cpu
        done.running = dict(phases.running)
        done.defined = definitions.found(NAMESPACE)
        done.documents = {host.name: _documents(host) for host in cluster.lab.hosts}
        done.writes["create to Running"] = objects.writes(cluster.lab, since, names)
        time.sleep(3)
        since = objects.now()
        time.sleep(CALM_SECONDS)
        done.writes["settled"] = objects.writes(cluster.lab, since, names)
        since = objects.now()
        objects.delete(names)
        phases.wait(lambda: len(phases.gone) == len(names), 300)
    done.writes["delete"] = objects.writes(cluster.lab, since, names)
    return done


def _manifest(name: str) -> dict[str, Any]:
    found = firmware_vm(name, {"name": "root", "diskRef": {"name": name}}, memory={"size": "16Mi"})
    return {**found, "metadata": {"name": name, "namespace": NAMESPACE}}


class _Definitions:
    """When each domain was defined, by the events of the hosts themselves."""

    def __init__(self, hosts: list[Host]) -> None:
        self._hosts = hosts
        self._seen: dict[str, float] = {}
        self._ended = threading.Event()
        self._connections: list[libvirt.virConnect] = []

    def __enter__(self) -> _Definitions:
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=self._serve, daemon=True).start()
        for host in self._hosts:
            connection = libvirt.open(host.uri_unix)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._happened, None)
            self._connections.append(connection)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for connection in self._connections:
            connection.close()

    def found(self, namespace: str) -> dict[str, float]:
        """VM name → monotonic time."""
        return {name.partition(".")[2]: at for name, at in self._seen.items() if name.startswith(f"{namespace}.")}

    def _serve(self) -> None:
        while not self._ended.is_set():
            libvirt.virEventRunDefaultImpl()

    def _happened(self, _: Any, domain: libvirt.virDomain, event: int, *__: Any) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_DEFINED:
            self._seen.setdefault(domain.name(), time.monotonic())


def _documents(host: Host) -> list[str]:
    connection = libvirt.open(host.uri_unix)
    try:
        found = [domain for domain in connection.listAllDomains() if domain.name().startswith(f"{NAMESPACE}.")]
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return [domain.XMLDesc(flags) for domain in found]
    finally:
        connection.close()


# libvirt alone -------------------------------------------------------------------------------------------------------


def _loop(hosts: list[Host], documents: dict[str, list[str]]) -> float:
    """Seconds from the first define until every domain runs; afterwards all of them are gone again."""
    work = [(host, text) for host in hosts for text in documents[host.name]]
    # Hosts take turns, as the VMs of a fleet do.
    work.sort(key=lambda item: documents[item[0].name].index(item[1]))
    with _Ways(hosts) as ways, ThreadPoolExecutor(len(hosts) * PER_HOST) as pool:
        begun = time.monotonic()
        domains = list(pool.map(lambda item: ways.start(*item), work))
        took = time.monotonic() - begun
        for domain in domains:
            domain.destroyFlags()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    return took


class _Ways:
    """Connections to hosts, over the same transport as Hostler's: as many a host as it may have calls under way."""

    def __init__(self, hosts: list[Host]) -> None:
        pki = Lab().state.pki / "client"
        self._hosts = {
            host.name: [libvirt.open(f"{host.uri_tls}?pkipath={pki}") for _ in range(PER_HOST)] for host in hosts
        }
        self._free = {name: threading.Semaphore(PER_HOST) for name in self._hosts}

    def __enter__(self) -> _Ways:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in itertools.chain.from_iterable(self._hosts.values()):
            connection.close()

    def start(self, host: Host, document: str) -> libvirt.virDomain:
        with self._free[host.name]:
            connection = self._hosts[host.name].pop()
            try:
                domain = connection.defineXMLFlags(document)
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_FORCE_BOOT)
                return domain
            finally:
                self._hosts[host.name].append(connection)
