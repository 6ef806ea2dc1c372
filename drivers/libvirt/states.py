"""libvirt's numbers for states, reasons and events, in the words of the contract. Pure."""

from __future__ import annotations

import libvirt

from drivers.model import DomainState, StopReason

STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUT_OFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.SUSPENDED,
}

_SHUTOFF_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: StopReason.GUEST_SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: StopReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: StopReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: StopReason.MIGRATED,
    # Saved to a file: somebody took it off the host on purpose.
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: StopReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: StopReason.FAILED,
    # The daemon found its QEMU gone, or could not take it over, when it started.
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: StopReason.CRASHED,
}

_STOP_EVENTS = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: StopReason.GUEST_SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: StopReason.DESTROYED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: StopReason.CRASHED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: StopReason.MIGRATED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: StopReason.DESTROYED,
}

_PAUSED_REASONS = {
    libvirt.VIR_DOMAIN_PAUSED_UNKNOWN: "unknown",
    libvirt.VIR_DOMAIN_PAUSED_USER: "user",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migration",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "save",
    libvirt.VIR_DOMAIN_PAUSED_DUMP: "dump",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "ioerror",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
    libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: "from snapshot",
    libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: "shutting down",
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: "snapshot",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "starting up",
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: "postcopy",
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: "postcopy failed",
}


def stop_reason(state: DomainState, reason: int, remembered: StopReason | None) -> StopReason | None:
    """Why a domain is off; remembered: what its last STOPPED event said, for a daemon that has forgotten.

    A daemon forgets when it restarts: shut off, reason unknown.
    """
    if state is DomainState.CRASHED:
        return StopReason.CRASHED
    if state is not DomainState.SHUT_OFF:
        return None
    return _SHUTOFF_REASONS.get(reason) or remembered or StopReason.UNKNOWN


def stop_event(detail: int, *, was_running: bool) -> StopReason:
    """What a STOPPED event says. `FAILED` is sent for a QEMU that died as well as for one that never came up."""
    if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED:
        return StopReason.CRASHED if was_running else StopReason.FAILED
    return _STOP_EVENTS.get(detail, StopReason.UNKNOWN)


def paused_reason(state: DomainState, reason: int) -> str:
    """Why a domain is paused, in libvirt's word; empty when it is not."""
    return _PAUSED_REASONS.get(reason, "unknown") if state is DomainState.PAUSED else ""
