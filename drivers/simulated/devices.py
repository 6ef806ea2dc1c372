"""Device calls as a daemon carries them out. A device is known by its alias in both documents."""

from __future__ import annotations

from functools import partial

from lxml import etree

from drivers.errors import Refused
from drivers.simulated import documents, guests
from drivers.simulated.daemon import Daemon
from drivers.simulated.documents import to_document
from drivers.simulated.domains import check_bridges, find, note, running
from drivers.simulated.drives import look_for_writers, open_image, redraw
from drivers.simulated.qemu import Qemu
from drivers.simulated.wire import Event, Happening, Later
from drivers.xmlread import device_alias

EJECT_SECONDS = 5.0
"""How long a guest that has the medium in use is waited for."""


def attach(daemon: Daemon, uuid: str, xml: str) -> None:
    """Attach wherever the domain lacks a device of that alias; one that only the definition has is of before."""
    device = documents.parse(xml)
    alias = device_alias(xml)
    if alias is None:
        raise Refused("a device without an alias could not be found again: it is not attached", reason="InvalidDomain")
    domain, machine = find(daemon, uuid), daemon.machine
    definition = domain.definition.root
    live = None if domain.qemu is None else domain.qemu.live.root
    fresh = live is not None and documents.find_device(live, alias) is None
    if fresh:
        documents.remove_device(definition, alias)
    documents.complete_device(definition if live is None else live, device, machine.world.random, pluggable=fresh)
    if fresh and domain.qemu is not None and live is not None:
        _check_hot_plug(live, device)
        check_bridges(machine, _alone(device))
        if image := documents.image(device):
            open_image(machine, domain.qemu, *image)
            look_for_writers(machine, domain.qemu)
        plugged = documents.parse(etree.tostring(device).decode())
        daemon.starts += 1
        documents.name_device(plugged, 0, daemon.starts)
        documents.add_device(live, plugged)
        domain.qemu.live = to_document(live)
        redraw(domain.qemu)
        if documents.is_cdrom(device):
            domain.qemu.trayless |= {alias}
    if documents.find_device(definition, alias) is None:
        documents.add_device(definition, device)
        domain.definition = to_document(definition)
    note(machine, f"{alias} attached to {domain.name} ({uuid})")
    daemon.changed(uuid)


def _check_hot_plug(live: etree._Element, device: etree._Element) -> None:
    bus = documents.target_bus(device)
    if bus == "sata":
        raise Refused("Operation not supported: disk bus 'sata' cannot be hotplugged.", reason="NoHotPlug")
    if documents.is_cdrom(device) and documents.image(device) is None:
        # As libvirt 9.0 does; later ones take it.
        raise Refused("internal error: argument key 'filename' must not have null value", reason="NoHotPlug")
    if bus == "scsi" and live.find("devices/controller[@type='scsi']") is None:
        raise Refused("internal error: no SCSI controller with index 0", reason="OperationFailed")


def _alone(device: etree._Element) -> etree._Element:
    """A document with this one device, a copy of it."""
    root = etree.Element("domain")
    documents.add_device(root, documents.parse(etree.tostring(device).decode()))
    return root


def present(daemon: Daemon, uuid: str, alias: str) -> tuple[bool, bool]:
    """Whether the running domain has a device of that alias, and whether its definition has."""
    domain = daemon.domains.get(uuid)
    if domain is None:
        return False, False
    plugged = domain.qemu is not None and documents.find_device(domain.qemu.live.root, alias) is not None
    return plugged, documents.find_device(domain.definition.root, alias) is not None


def unplug(daemon: Daemon, uuid: str, alias: str) -> None:
    """Ask the guest to give a device up, in its own time. A SCSI drive goes whatever the guest does with it."""
    _, qemu = running(daemon, uuid)
    device = documents.find_device(qemu.live.root, alias)
    if device is not None and documents.target_bus(device) == "scsi":
        _leave(daemon, qemu, alias)
    elif qemu.system:
        daemon.machine.world.later(guests.UNPLUG_SECONDS, _give_up, daemon, qemu, alias)


def _give_up(daemon: Daemon, qemu: Qemu, alias: str) -> None:
    if not (qemu.gone or qemu.frozen or qemu.paused):
        _leave(daemon, qemu, alias)


def _leave(daemon: Daemon, qemu: Qemu, alias: str) -> None:
    root = qemu.live.root
    device = documents.find_device(root, alias)
    image = None if device is None else documents.image(device)
    if image is not None:
        qemu.close(image[0])
    documents.remove_device(root, alias)
    qemu.live = to_document(root)
    qemu.trayless -= {alias}
    qemu.locked_trays -= {alias}
    daemon.noticed(lambda: daemon.tell(Event(Happening.DEVICE_REMOVED, qemu.uuid, alias=alias)))


def detach_definition(daemon: Daemon, uuid: str, alias: str) -> None:
    """Take a device from the definition."""
    domain = find(daemon, uuid)
    root = domain.definition.root
    if documents.remove_device(root, alias):
        domain.definition = to_document(root)
        note(daemon.machine, f"{alias} detached from {domain.name} ({uuid})")
        daemon.changed(uuid)


def update_device(daemon: Daemon, uuid: str, xml: str, *, force: bool) -> Later[None] | None:
    """Change a device in place, in every document that the domain has. force: open a tray that the guest holds."""
    domain, device = find(daemon, uuid), documents.parse(xml)
    check_bridges(daemon.machine, _alone(device))
    alias, qemu = device_alias(xml) or "", domain.qemu
    if qemu is not None and _moves_tray(qemu, alias, device):
        if alias in qemu.trayless:
            raise Refused(f"internal error: Tray of device '{alias}' is not open", reason="NoTray")
        if alias in qemu.locked_trays and not force:
            return Later(EJECT_SECONDS, partial(_still_locked, alias))
        qemu.locked_trays -= {alias}
    definition = domain.definition.root
    documents.update_device(definition, xml)
    if qemu is not None:
        _change_source(daemon, qemu, device, xml)
    domain.definition = to_document(definition)
    note(daemon.machine, f"{alias} of {domain.name} ({uuid}) changed")
    daemon.changed(uuid)
    return None


def _moves_tray(qemu: Qemu, alias: str, device: etree._Element) -> bool:
    old = documents.find_device(qemu.live.root, alias)
    return old is not None and documents.is_cdrom(old) and documents.image(old) != documents.image(device)


def _still_locked(alias: str) -> None:
    raise Refused(f"internal error: timed out waiting to open tray of '{alias}'", reason="TrayLocked")


def _change_source(daemon: Daemon, qemu: Qemu, device: etree._Element, xml: str) -> None:
    root = qemu.live.root
    old = documents.find_device(root, device_alias(xml) or "")
    before, after = None if old is None else documents.image(old), documents.image(device)
    documents.update_device(root, xml)
    if after is not None and after != before:
        open_image(daemon.machine, qemu, *after)
        look_for_writers(daemon.machine, qemu)
    if before is not None and after != before:
        qemu.close(before[0])
    qemu.live = to_document(root)
    redraw(qemu)


def resize_block(daemon: Daemon, uuid: str, path: str, size: int) -> None:
    """Grow a running domain's disk; one that is as large or larger is left as it is."""
    _, qemu = running(daemon, uuid)
    opened = qemu.writes.get(path)
    if opened is None:
        raise Refused(f"invalid path: {path}", reason="OperationFailed")
    if opened.file.capacity < size:
        opened.store.grow(opened.file, size)
        note(daemon.machine, f"{path} grown to {size} bytes")
        daemon.changed(uuid)
