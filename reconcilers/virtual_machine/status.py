"""The VM's descriptive status, computed from facts in one function."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crds.virtual_machine import (
    DeviceStatus,
    GuestInfo,
    GuestInterface,
    PhaseTransition,
    VirtualMachine,
    VMPhase,
)
from drivers.model import ACTIVE, DomainObservation
from engine.conditions import Condition, condition
from reconcilers.standing import Standing, Verdict, conditions
from reconcilers.virtual_machine.needs import Needs
from xmlgen.sections import Changes

_MAY_RUN = frozenset({VMPhase.RUNNING, VMPhase.PAUSED, VMPhase.STOPPING, VMPhase.UNKNOWN})
_INTERFACES, _ADDRESSES, _TEXT = 64, 64, 256


def status_of(
    vm: VirtualMachine,
    verdict: Verdict,
    phase: VMPhase | None,
    needs: Needs,
    domain: DomainObservation | None,
    changes: Changes | None,
    now: datetime,
) -> dict[str, Any]:
    """All descriptive fields, as the API carries them.

    `domain`: the VM's domain where it is known; None also while its host cannot be asked, and then what was known of
    its devices is kept.
    """
    running = domain is not None and domain.state in ACTIVE
    agent = running and domain is not None and domain.agent_connected
    unheard = domain is None and phase in _MAY_RUN
    guest = _known_guest(vm) if unheard and phase is not VMPhase.UNKNOWN else _guest(vm, domain if agent else None)
    others = [
        _scheduled(vm, verdict),
        _disks_ready(vm, needs),
        _restart_required(vm, changes),
        _agent_connected(vm, None if unheard else agent),
    ]
    return {
        "phase": phase.value if phase is not None else None,
        "printableStatus": _printable(verdict, phase),
        "guest": guest,
        "devices": [d.to_dict() for d in _devices(vm, domain if running else None)],
        "phaseTransitionTimestamps": [t.to_dict() for t in _transitions(vm, phase, now)],
        "conditions": conditions(vm, verdict, now, *others),
    }


def _agent_connected(vm: VirtualMachine, connected: bool | None) -> Condition:
    generation = vm.metadata.generation
    if connected is None:
        return condition("GuestAgentConnected", None, "NotKnown", "it cannot be asked now", generation)
    if connected:
        return condition("GuestAgentConnected", True, "Connected", "", generation)
    message = "the guest runs no QEMU guest agent, or not yet"
    return condition("GuestAgentConnected", False, "NotConnected", message, generation)


def _printable(verdict: Verdict, phase: VMPhase | None) -> str:
    if verdict.standing is Standing.READY and phase is not None:
        return phase.value
    return verdict.reason


def _scheduled(vm: VirtualMachine, verdict: Verdict) -> Condition:
    placement = vm.status.placement
    if placement is not None and placement.host is not None:
        return condition("Scheduled", True, "Scheduled", f"on host {placement.host}", vm.metadata.generation)
    if verdict.reason == "Unschedulable":
        return condition("Scheduled", False, "Unschedulable", verdict.message, vm.metadata.generation)
    return condition("Scheduled", False, "NotRunning", "", vm.metadata.generation)


def _disks_ready(vm: VirtualMachine, needs: Needs) -> Condition:
    first = next(iter(needs.disk_problems), None)
    if first is None:
        return condition("DisksReady", True, "Ready", "", vm.metadata.generation)
    message = "; ".join(v.message for v in needs.disk_problems)
    return condition("DisksReady", False, first.reason, message[:1024], vm.metadata.generation)


def _restart_required(vm: VirtualMachine, changes: Changes | None) -> Condition:
    before = vm.status.condition("RestartRequired")
    if changes is None and before is not None and before.status == "True":
        # The host cannot be asked now: what was true is not taken back without looking.
        return condition("RestartRequired", True, before.reason, before.message, vm.metadata.generation)
    if changes is None or not changes.restart:
        return condition("RestartRequired", False, "UpToDate", "", vm.metadata.generation)
    what = ", ".join(name.removeprefix("ua-") for name in changes.restart)
    message = f"takes effect when the VM is stopped and started again: {what}"
    return condition("RestartRequired", True, "SpecChanged", message, vm.metadata.generation)


def _guest(vm: VirtualMachine, domain: DomainObservation | None) -> dict[str, Any] | None:
    """What the agent said last. While it is connected and has not been asked yet, what it said before still stands."""
    if domain is None:
        return None
    if domain.guest is None:
        return _known_guest(vm)
    facts = domain.guest
    # A guest can have, or invent, any number of them: what the API would refuse must not hold up the VM's own status.
    interfaces = [
        GuestInterface(name=i.name[:_TEXT], mac=(i.mac or "")[:_TEXT] or None, addresses=list(i.addresses[:_ADDRESSES]))
        for i in facts.interfaces[:_INTERFACES]
    ]
    first = next((address for i in interfaces for address in i.addresses), None)
    address = first.partition("/")[0] if first is not None else None
    name, system = (text[:_TEXT] if text is not None else None for text in (facts.hostname, facts.os))
    return GuestInfo(hostname=name, os=system, interfaces=interfaces, ip_address=address).to_dict()


def _known_guest(vm: VirtualMachine) -> dict[str, Any] | None:
    return vm.status.guest.to_dict() if vm.status.guest is not None else None


def _devices(vm: VirtualMachine, domain: DomainObservation | None) -> list[DeviceStatus]:
    """Addresses as read back from the host. Those of devices that are not there now are kept while the spec names
    them, so that a disk that is taken out and put back finds its place again.
    """
    known = {d.name: d for d in vm.status.devices}
    if domain is not None and domain.devices:
        for device in domain.devices:
            if not device.alias.startswith("ua-") or not (device.address or device.mac):
                continue
            target = device.target if device.alias.startswith("ua-disk-") or device.alias == "ua-seed" else None
            known[device.alias] = DeviceStatus(name=device.alias, address=device.address, target=target, mac=device.mac)
        present = {d.alias for d in domain.devices if d.alias.startswith("ua-")}
        declared = {f"ua-disk-{d.name}" for d in vm.spec.disks} | {f"ua-nic-{n.name}" for n in vm.spec.nics}
        known = {name: d for name, d in known.items() if name in present or name in declared}
    return [known[name] for name in sorted(known)]


def _transitions(vm: VirtualMachine, phase: VMPhase | None, now: datetime) -> list[PhaseTransition]:
    if phase is None or phase is vm.status.phase:
        return vm.status.phase_transition_timestamps
    others = [t for t in vm.status.phase_transition_timestamps if t.phase is not phase]
    return sorted([*others, PhaseTransition(phase=phase, at=now.replace(microsecond=0))], key=lambda t: t.phase)
