"""Domain calls as a daemon carries them out: at one instant each, and as libvirt answers them."""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lxml import etree

from drivers.errors import AlreadyExists, HypervisorError, NotFound, Refused
from drivers.model import DomainObservation, DomainState, GuestFacts, StopReason
from drivers.simulated import documents, platform
from drivers.simulated.breaches import Breach
from drivers.simulated.daemon import Daemon, Domain
from drivers.simulated.documents import to_document
from drivers.simulated.drives import look_for_writers, open_image, redraw
from drivers.simulated.files import File
from drivers.simulated.qemu import Qemu
from drivers.simulated.sparse import SparseBytes
from drivers.simulated.wire import Event, Happening, Later
from drivers.xmlread import read_domain, read_observation

if TYPE_CHECKING:
    from drivers.simulated.machine import Machine

SIGTERM_SECONDS = 10.0
"""How long a daemon waits for a process to end by itself before it kills it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A domain as a daemon tells it."""

    uuid: str
    xml: str
    state: DomainState
    stop_reason: StopReason | None
    paused_reason: str

    def observation(self, remembered: StopReason | None) -> DomainObservation:
        """The contract's view of it; remembered: what its last STOPPED event said."""
        reason = self.stop_reason
        if reason is StopReason.UNKNOWN and remembered is not None:
            reason = remembered
        return read_observation(
            self.uuid,
            self.xml,
            self.state,
            stop_reason=reason,
            persistent=True,
            paused_reason=self.paused_reason,
        )


def find(daemon: Daemon, uuid: str) -> Domain:
    """The domain. Raises NotFound."""
    domain = daemon.domains.get(uuid)
    if domain is None:
        raise NotFound(f"no domain with matching uuid '{uuid}'", reason="NoDomain")
    return domain


def running(daemon: Daemon, uuid: str) -> tuple[Domain, Qemu]:
    """The domain and its process. Raises NotFound, Refused(NotRunning)."""
    domain = find(daemon, uuid)
    if domain.qemu is None or domain.qemu.gone:
        raise Refused("Requested operation is not valid: domain is not running", reason="NotRunning")
    return domain, domain.qemu


def list_uuids(daemon: Daemon) -> tuple[str, ...]:
    """All domains."""
    return tuple(daemon.domains)


def read(daemon: Daemon, uuid: str, *, shallow: bool = False) -> Reading | None:
    """Read a domain; None when there is none. shallow: only what the daemon knows without asking the QEMU."""
    domain = daemon.domains.get(uuid)
    if domain is None:
        return None
    qemu = domain.qemu
    document = domain.definition if qemu is None or shallow else qemu.live
    reason = domain.stop_reason if qemu is None else None
    return Reading(uuid, document.text, domain.state, reason, "" if qemu is None else qemu.paused)


def define(daemon: Daemon, xml: str, who: str) -> str:
    """Define, and return the UUID."""
    root = documents.parse(xml)
    documents.check(root, daemon.machine.facts.machines)
    name = root.findtext("name", "")
    try:
        uuid = str(uuids.UUID(root.findtext("uuid", "")))
    except ValueError as error:
        raise documents.invalid("malformed uuid element") from error
    for other in daemon.domains.values():
        if (other.name == name) != (other.uuid == uuid):
            raise AlreadyExists(
                f"operation failed: domain '{other.name}' already exists with uuid {other.uuid}", reason="AlreadyExists"
            )
    known = daemon.domains.get(uuid)
    _keep_places(known, root)
    documents.complete(root, daemon.machine.world.random)
    if known is None:
        daemon.domains[uuid] = Domain(uuid, name, to_document(root))
    else:
        known.definition = to_document(root)
    note(daemon.machine, f"{name} ({uuid}) defined by {who}")
    daemon.changed(uuid)
    return uuid


def _keep_places(known: Domain | None, root: etree._Element) -> None:
    """A network card that gets no MAC address keeps the one that it has, so that defining twice changes nothing."""
    if known is None:
        return
    before = known.definition.root.findall("devices/interface")
    for old, new in zip(before, root.findall("devices/interface"), strict=False):
        mac = old.find("mac")
        if mac is not None and new.find("mac") is None:
            new.append(mac)


def start(daemon: Daemon, uuid: str, who: str, *, paused: bool) -> None:
    """Start; a running domain is left as it is."""
    domain, machine = find(daemon, uuid), daemon.machine
    if domain.qemu is not None:
        return
    if machine.qemus.get(uuid) is not None:
        raise Refused("the process of before has not been taken over", reason="OperationFailed")
    root = domain.definition.root
    daemon.starts += 1
    documents.live(root, daemon.starts)
    memory = read_domain(domain.definition.text).memory
    qemu = Qemu(
        machine.name, uuid, domain.name, to_document(root), memory, machine.world.now, paused="user" if paused else ""
    )
    try:
        _check_memory(machine, memory)
        check_bridges(machine, root)
        _make_variables(machine, root)
        for image in documents.images(root):
            open_image(machine, qemu, *image)
        redraw(qemu)
    except HypervisorError:
        qemu.end()
        domain.stop_reason = StopReason.FAILED
        daemon.tell(Event(Happening.STOPPED, uuid, stop_reason=StopReason.FAILED))
        raise
    domain.qemu = machine.qemus[uuid] = qemu
    note(machine, f"QEMU of {domain.name} ({uuid}) started by {who}")
    _look_for_twins(machine, qemu)
    look_for_writers(machine, qemu)
    machine.boot_guest(qemu)
    daemon.tell(Event(Happening.STARTED, uuid))


def _check_memory(machine: Machine, memory: int) -> None:
    if memory + sum(qemu.memory for qemu in machine.qemus.values()) > machine.memory:
        raise Refused("cannot set up guest memory: Cannot allocate memory", reason="NoMemory")


def check_bridges(machine: Machine, root: etree._Element) -> None:
    """Raises Refused(NoSuchBridge)."""
    for bridge in documents.bridges(root):
        if bridge not in machine.bridges:
            raise Refused(f"Cannot get interface MTU on '{bridge}': No such device", reason="NoSuchBridge")


def _make_variables(machine: Machine, root: etree._Element) -> None:
    """Libvirt makes the file of the UEFI variables from its template when it is not there."""
    path = documents.nvram(root)
    if path:
        store, name, file = machine.find(path)
        if file is None:
            store.create(name, File(SparseBytes(b"NVRAM", platform.NVRAM_BYTES)))


def _look_for_twins(machine: Machine, qemu: Qemu) -> None:
    for other in machine.world.machines.values():
        if other is not machine and qemu.uuid in other.qemus:
            machine.world.violate(Breach.TWO_PROCESSES, (other.name, machine.name), f"{qemu.name} ({qemu.uuid})")


def destroy(daemon: Daemon, uuid: str, who: str) -> Later[None] | None:
    """Cut the power. Off or absent is done; a process that is stopped takes longer."""
    domain = daemon.domains.get(uuid)
    qemu = None if domain is None else domain.qemu
    if qemu is None:
        return None
    note(daemon.machine, f"{qemu.name} ({uuid}) destroyed by {who}")

    def kill() -> None:
        daemon.machine.end_qemu(qemu, StopReason.DESTROYED)

    if qemu.frozen:
        return Later(SIGTERM_SECONDS, kill)
    kill()
    return None


def press_power(daemon: Daemon, uuid: str) -> None:
    """The power button; nothing to do for a domain that is off."""
    domain = find(daemon, uuid)
    if domain.qemu is not None:
        daemon.machine.press_power_button(domain.qemu)


def shutdown_by_agent(daemon: Daemon, uuid: str) -> None:
    """Have the guest agent power the guest off."""
    domain = find(daemon, uuid)
    if domain.qemu is not None:
        if domain.qemu.agent is None:
            raise Refused("Guest agent is not responding", reason="AgentUnresponsive")
        domain.qemu.system = True
        daemon.machine.press_power_button(domain.qemu)


def reset(daemon: Daemon, uuid: str) -> None:
    """Press the reset button, or reboot: the guest begins anew."""
    _, qemu = running(daemon, uuid)
    daemon.machine.boot_guest(qemu)
    daemon.changed(uuid)


def suspend(daemon: Daemon, uuid: str) -> None:
    """Pause; a paused domain is left as it is."""
    _, qemu = running(daemon, uuid)
    if not qemu.paused:
        qemu.paused = "user"
        daemon.changed(uuid)


def resume(daemon: Daemon, uuid: str) -> None:
    """Run; a running domain is left as it is."""
    _, qemu = running(daemon, uuid)
    if qemu.paused:
        qemu.paused = ""
        daemon.changed(uuid)
        daemon.machine.settle_guest(qemu)


def undefine(daemon: Daemon, uuid: str, who: str, *, remove_nvram: bool) -> None:
    """Remove the definition of a domain that is off; absent is done."""
    domain = daemon.domains.get(uuid)
    if domain is None:
        return
    if domain.qemu is not None:
        raise Refused(f"domain {uuid} is running: it is undefined only once it is off", reason="AlreadyRunning")
    variables = documents.nvram(domain.definition.root)
    if remove_nvram and variables:
        store, name, file = daemon.machine.find(variables)
        if file is not None:
            store.delete(name)
    del daemon.domains[uuid]
    note(daemon.machine, f"{domain.name} ({uuid}) undefined by {who}")
    daemon.changed(uuid)


def domain_xml(daemon: Daemon, uuid: str, *, inactive: bool) -> str:
    """The document as libvirt keeps it."""
    domain = find(daemon, uuid)
    return (domain.definition if inactive or domain.qemu is None else domain.qemu.live).text


def set_metadata(daemon: Daemon, uuid: str, xml: str) -> None:
    """Replace our metadata element wherever the domain has a document."""
    domain = find(daemon, uuid)
    root = domain.definition.root
    documents.set_metadata(root, documents.parse(xml))
    domain.definition = to_document(root)
    if domain.qemu is not None:
        root = domain.qemu.live.root
        documents.set_metadata(root, documents.parse(xml))
        domain.qemu.live = to_document(root)
    note(daemon.machine, f"{domain.name} ({uuid}) stamped anew")
    daemon.changed(uuid)


def query_guest(daemon: Daemon, uuid: str) -> GuestFacts | None:
    """What the guest agent says."""
    domain = daemon.domains.get(uuid)
    return None if domain is None or domain.qemu is None else domain.qemu.agent


def note(machine: Machine, what: str) -> None:
    """Add to the world's log."""
    machine.world.note(machine.name, what)
