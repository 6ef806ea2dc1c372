"""Which differences between a running domain and the document it should have can be applied while it runs.

A document is cut into sections, each with a fingerprint, and the fingerprints travel in the domain's metadata. So a
comparison needs no document read back from libvirt (which expands and rewrites what it was given), and sees nothing but
what somebody declared otherwise. Epochs, identities, addresses and drives' targets are in no section.

A section's name says what can be done about it:

===================  =================================================================================================
``ua-nic-lan``       a device on a PCI port of its own: plugged and unplugged while the domain runs
``ua-disk-db:lun``   a drive on the virtio-scsi controller: likewise, where there is such a controller
``ua-disk-cd:medium``, ``ua-nic-lan:bridge``  a property of a device that is changed in place
``ua-disk-os:fixed`` a device that is there from power-on to power-off
``ports``            not compared: how many devices the PCI ports have room for, as a number in place of a fingerprint
anything else        fixed at power-on
===================  =================================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

Sections = tuple[tuple[str, str], ...]

PORTS = "ports"
SCSI = "scsi"
LUN = "lun"
FIXED = "fixed"
MEDIUM = "medium"
BRIDGE = "bridge"
_IN_PLACE = (MEDIUM, BRIDGE)


@dataclass(frozen=True)
class Changes:
    """What makes a running domain what it should be."""

    attach: tuple[str, ...] = ()
    """Aliases of devices to plug in (`domain.device_xml`)."""
    detach: tuple[str, ...] = ()
    """Aliases of devices to unplug."""
    update: tuple[str, ...] = ()
    """Aliases of devices to change in place: a CD-ROM's medium, a network card's bridge (`domain.device_xml`)."""
    restart: tuple[str, ...] = ()
    """What only a power cycle changes: names of sections, or aliases of devices."""

    @property
    def empty(self) -> bool:
        """Whether the domain is what it should be."""
        return not (self.attach or self.detach or self.update or self.restart)


def compare(running: Iterable[tuple[str, str]], desired: Iterable[tuple[str, str]]) -> Changes:
    """The way from what runs to what is desired, in the order of the desired sections."""
    old, new = dict(running), dict(desired)
    replaced = {_alias(name) for name in new if name not in old} & {_alias(name) for name in old if name not in new}
    room = _free_ports(old)
    plan: dict[str, list[str]] = {"attach": [], "detach": [], "update": [], "restart": []}
    for name in dict.fromkeys((*new, *old)):
        if name == PORTS or old.get(name) == new.get(name):
            continue
        verdict = "restart" if _alias(name) in replaced else _verdict(name, old, new)
        if verdict == "attach" and _on_port(name):
            verdict, room = ("attach", room - 1) if room else ("restart", room)
        if verdict is not None:
            plan[verdict].append(_alias(name))
    restart = tuple(dict.fromkeys(plan["restart"]))
    return Changes(
        attach=tuple(plan["attach"]),
        detach=tuple(plan["detach"]),
        update=tuple(alias for alias in plan["update"] if alias not in restart),
        restart=restart,
    )


def applied(running: Iterable[tuple[str, str]], desired: Iterable[tuple[str, str]], done: Collection[str]) -> Sections:
    """The sections of the running domain once the devices with these aliases were attached, detached or updated.

    To be written into its metadata: what waits for a power cycle keeps its old fingerprint.
    """
    old, new = dict(running), dict(desired)
    kept = [(name, new.get(name, sha) if _done(name, done) else sha) for name, sha in old.items()]
    kept = [(name, sha) for name, sha in kept if name in new or not _done(name, done)]
    return (*kept, *((name, sha) for name, sha in new.items() if name not in old and _done(name, done)))


def _verdict(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> str | None:
    """What to do about one section that differs; None where its device brings it along or nobody would notice."""
    kind = _kind(name)
    if name in old and name in new:
        return "update" if kind in _IN_PLACE else "restart"
    if kind in _IN_PLACE:
        return None
    if name in old:
        if name == SCSI:
            return None  # a controller without drives is in nobody's way until the next power cycle
        return "detach" if _pluggable(name) else "restart"
    if kind == LUN and SCSI not in old:
        return "restart"
    return "attach" if _pluggable(name) else "restart"


def _free_ports(running: Mapping[str, str]) -> int:
    """How many devices can still be plugged in. A port whose device is being unplugged counts as taken: the guest may
    take its time to let go of it.
    """
    return max(0, int(running.get(PORTS, "0")) - sum(1 for name in running if _on_port(name)))


def _done(name: str, done: Collection[str]) -> bool:
    return _alias(name) in done


def _alias(name: str) -> str:
    return name.partition(":")[0]


def _kind(name: str) -> str:
    return name.partition(":")[2]


def _on_port(name: str) -> bool:
    return name.startswith("ua-") and not _kind(name)


def _pluggable(name: str) -> bool:
    return _on_port(name) or _kind(name) == LUN
