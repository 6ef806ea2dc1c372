"""Domain calls, blocking: each takes a connection, may be made again, and raises libvirtError or HypervisorError."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import libvirt

from drivers.errors import Refused
from drivers.libvirt.states import STATES, paused_reason, stop_reason
from drivers.model import DomainObservation, DomainState, StopReason
from drivers.xmlread import METADATA_KEY, METADATA_URI, read_observation


@dataclass(frozen=True)
class Reading:
    """A domain as a daemon told it: its document, and the state's two numbers."""

    uuid: str
    xml: str
    state: DomainState
    reason: int
    persistent: bool

    def observation(self, remembered: StopReason | None) -> DomainObservation:
        """The contract's view of it; remembered: what its last STOPPED event said."""
        return read_observation(
            self.uuid,
            self.xml,
            self.state,
            stop_reason=stop_reason(self.state, self.reason, remembered),
            persistent=self.persistent,
            paused_reason=paused_reason(self.state, self.reason),
        )


def _optional(call: Callable[[], object], *codes: int) -> bool:
    """Make a call that may find its work done already (one of these codes); whether it was made."""
    try:
        call()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in codes:
            raise
        return False
    return True


def lookup(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain | None:
    """The domain, None when there is none."""
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def list_uuids(connection: libvirt.virConnect) -> tuple[str, ...]:
    """UUIDs of all domains, running or not."""
    return tuple(domain.UUIDString() for domain in connection.listAllDomains(0))


def read(connection: libvirt.virConnect, uuid: str, *, shallow: bool = False) -> Reading | None:
    """Read a domain; None when there is none.

    shallow: take the inactive document, which a daemon knows without asking a QEMU that may be frozen.
    """
    domain = lookup(connection, uuid)
    if domain is None:
        return None
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE if shallow else 0
    try:
        # The state is asked first: it can only be older than the document, and its change sends another event.
        state, reason = domain.state()[:2]
        return Reading(uuid, domain.XMLDesc(flags), STATES[state], reason, bool(domain.isPersistent()))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def define(connection: libvirt.virConnect, xml: str) -> str:
    """Define, and return the UUID."""
    return connection.defineXMLFlags(xml, 0).UUIDString()


def start(connection: libvirt.virConnect, uuid: str, *, paused: bool) -> None:
    """Start from power-on, never from a saved image; a running domain is left as it is."""
    domain = connection.lookupByUUIDString(uuid)
    if domain.isActive():
        return
    flags = libvirt.VIR_DOMAIN_START_FORCE_BOOT | (libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
    try:
        domain.createWithFlags(flags)
    except libvirt.libvirtError as error:
        # Another start was faster.
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not domain.isActive():
            raise


def press_power(connection: libvirt.virConnect, uuid: str) -> None:
    """The ACPI power button; nothing to do for a domain that is off."""
    domain = connection.lookupByUUIDString(uuid)
    if domain.isActive():
        _optional(
            lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN), libvirt.VIR_ERR_OPERATION_INVALID
        )


def shutdown_by_agent(connection: libvirt.virConnect, uuid: str) -> None:
    """Have the guest agent power the guest off. Raises when the agent does not answer."""
    domain = connection.lookupByUUIDString(uuid)
    if domain.isActive():
        domain.agentSetResponseTimeout(AGENT_TIMEOUT)
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)


AGENT_TIMEOUT = 5
"""Seconds that a guest agent has for an answer."""


def destroy(connection: libvirt.virConnect, uuid: str) -> None:
    """Cut the power. Off or absent is done."""
    domain = lookup(connection, uuid)
    if domain is not None:
        _optional(domain.destroyFlags, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)


def reboot(connection: libvirt.virConnect, uuid: str) -> None:
    """Ask the guest to reboot, by the way that libvirt finds best."""
    connection.lookupByUUIDString(uuid).reboot(0)


def reset(connection: libvirt.virConnect, uuid: str) -> None:
    """Press the reset button."""
    connection.lookupByUUIDString(uuid).reset(0)


def suspend(connection: libvirt.virConnect, uuid: str) -> None:
    """Pause the virtual CPUs; a paused domain is left as it is."""
    domain = connection.lookupByUUIDString(uuid)
    if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
        domain.suspend()


def resume(connection: libvirt.virConnect, uuid: str) -> None:
    """Run the virtual CPUs; a running domain is left as it is."""
    domain = connection.lookupByUUIDString(uuid)
    if domain.state()[0] not in {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED}:
        domain.resume()


def undefine(connection: libvirt.virConnect, uuid: str, *, remove_nvram: bool) -> None:
    """Remove the definition of a domain that is off; absent is done. Raises Refused for a running one."""
    domain = lookup(connection, uuid)
    if domain is None or not domain.isPersistent():
        return
    if domain.isActive():
        raise _still_running(uuid)
    definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | (libvirt.VIR_DOMAIN_UNDEFINE_NVRAM if remove_nvram else libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    )
    if _optional(lambda: domain.undefineFlags(flags), libvirt.VIR_ERR_NO_DOMAIN) and lookup(connection, uuid):
        # Somebody started it in between: it runs on, transient. It gets its definition back.
        connection.defineXMLFlags(definition, 0)
        raise _still_running(uuid)


def _still_running(uuid: str) -> Refused:
    return Refused(f"domain {uuid} is running: it is undefined only once it is off", reason="AlreadyRunning")


def domain_xml(connection: libvirt.virConnect, uuid: str, *, inactive: bool) -> str:
    """The document as libvirt keeps it."""
    return connection.lookupByUUIDString(uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0)


def set_metadata(connection: libvirt.virConnect, uuid: str, xml: str) -> None:
    """Replace our metadata element wherever the domain has a document."""
    domain = connection.lookupByUUIDString(uuid)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, METADATA_KEY, METADATA_URI, affected(domain))


def affected(domain: libvirt.virDomain) -> int:
    """Flags for a change to the running domain, to its definition, or to both, whatever there is."""
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
    return live | (libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0)
