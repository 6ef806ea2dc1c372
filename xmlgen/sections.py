"""Which differences between a running domain and the document it should have can be applied while it runs.

A document is cut into sections, each with a fingerprint, and the fingerprints travel in the domain's metadata. So a
comparison needs no document read back from libvirt (which expands and rewrites what it was given), and sees nothing but
what somebody declared otherwise. Epochs, identities, addresses and drives' targets are in no section. Devices that come
and go, and media, are looked up in the domain itself all the same (`as_found`): a call may have taken effect without
its stamp, or after it.

A section's name says what can be done about it:

===================  =================================================================================================
``ua-nic-lan``       a device on a PCI port of its own: plugged and unplugged while the domain runs
``ua-disk-db:lun``   a drive on the virtio-scsi controller: likewise; the controller is plugged in before the first one
``ua-disk-cd:medium``, ``ua-nic-lan:bridge``  a property of a device that is changed in place
``ua-disk-os:fixed`` a device that is there from power-on to power-off
``ports``            not compared: how many devices the PCI ports have room for, as a number in place of a fingerprint
anything else        fixed at power-on
===================  =================================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from xmlgen.xml import fingerprint

Sections = tuple[tuple[str, str], ...]

PORTS = "ports"
SCSI = "ua-scsi"
LUN = "lun"
FIXED = "fixed"
MEDIUM = "medium"
BRIDGE = "bridge"
_IN_PLACE = (MEDIUM, BRIDGE)
SEED_ALIAS = "ua-seed"
"""The drive of the cloud-init seed: read when the guest boots, and made when the VM starts."""
_DEVICES = ("ua-disk-", "ua-nic-")


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


def medium(path: str | None) -> str:
    """Fingerprint of a CD-ROM drive with the image at this path in it; None: it is empty."""
    return fingerprint(path)


def as_found(
    stamped: Iterable[tuple[str, str]], desired: Iterable[tuple[str, str]], devices: Mapping[str, str | None]
) -> Sections:
    """The sections of a running domain by its devices (alias → path of the image, or None) instead of by its stamp.

    A desired device that can be plugged and is not there has no section (one that is not desired keeps it: the domain's
    definition may have it still); a medium is the one that is in the drive; a drive or card that is there without a
    stamp has a section if it is not desired (one that is desired is to be attached: that leaves it as it is, and stamps
    it).
    """
    sections, wanted = tuple(stamped), {_alias(name) for name, _ in desired}
    known = {_alias(name) for name, _ in sections}
    gone = {_alias(name) for name, _ in sections if _pluggable(name) and _alias(name) in wanted.difference(devices)}
    found = [
        (name, medium(devices[_alias(name)]) if _kind(name) == MEDIUM and _alias(name) in devices else sha)
        for name, sha in sections
        if _alias(name) not in gone
    ]
    strays = sorted(alias for alias in devices if alias.startswith(_DEVICES) and alias not in known | wanted)
    return (*found, *((alias, "") for alias in strays))


def compare(running: Iterable[tuple[str, str]], desired: Iterable[tuple[str, str]]) -> Changes:
    """The way from what runs to what is desired, in the order of the desired sections; a controller comes first."""
    old, new = dict(running), dict(desired)
    replaced = {_alias(name) for name in new if name not in old} & {_alias(name) for name in old if name not in new}
    room = _free_ports(old)
    plan: dict[str, list[str]] = {"attach": [], "detach": [], "update": [], "restart": []}
    scsi = SCSI in old
    if not scsi and room and any(_kind(name) == LUN and _alias(name) not in replaced for name in new):
        plan["attach"].append(SCSI)
        scsi, room = True, room - 1
    for name in dict.fromkeys((*new, *old)):
        if name in (PORTS, SCSI) or old.get(name) == new.get(name):
            continue
        verdict = "restart" if _alias(name) in replaced else _verdict(name, old, new, scsi=scsi)
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


def _verdict(name: str, old: Mapping[str, str], new: Mapping[str, str], *, scsi: bool) -> str | None:
    """What to do about one section that differs; None where its device brings it along.

    scsi: whether there is a controller for LUNs. One without drives is in nobody's way until the next power cycle.
    """
    kind = _kind(name)
    if name in old and name in new:
        return "update" if kind in _IN_PLACE and _alias(name) != SEED_ALIAS else "restart"
    if kind in _IN_PLACE:
        return None
    if name in old:
        return "detach" if _pluggable(name) else "restart"
    if kind == LUN and not scsi:
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
