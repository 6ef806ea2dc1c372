"""Device calls of running and of defined domains, blocking. A device is known by its alias in both documents."""

from __future__ import annotations

import libvirt

from drivers.errors import Refused
from drivers.libvirt.domains import affected, lookup
from drivers.xmlread import aliases, device_alias


def _places(domain: libvirt.virDomain) -> dict[int, int]:
    """Flag of each document that the domain has → flag that reads it."""
    flags = affected(domain)
    places = {
        libvirt.VIR_DOMAIN_AFFECT_LIVE: 0,
        libvirt.VIR_DOMAIN_AFFECT_CONFIG: libvirt.VIR_DOMAIN_XML_INACTIVE,
    }
    return {place: reading for place, reading in places.items() if flags & place}


def attach(connection: libvirt.virConnect, uuid: str, xml: str) -> None:
    """Attach wherever the domain lacks a device of that alias.

    One that only the definition has is of before (its drive was being replaced): it becomes what the running one is.
    """
    alias = device_alias(xml)
    if alias is None:
        raise Refused("a device without an alias could not be found again: it is not attached", reason="InvalidDomain")
    domain = connection.lookupByUUIDString(uuid)
    places = _places(domain)
    missing = sum(place for place, reading in places.items() if alias not in aliases(domain.XMLDesc(reading)))
    live, config = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if missing == live and config in places:
        domain.detachDeviceAlias(alias, config)
        missing |= config
    if missing:
        domain.attachDeviceFlags(xml, missing)


def present(connection: libvirt.virConnect, uuid: str, alias: str) -> int:
    """Flags of the documents that have a device of that alias; 0 for an absent domain or device."""
    domain = lookup(connection, uuid)
    if domain is None:
        return 0
    return sum(place for place, reading in _places(domain).items() if alias in aliases(domain.XMLDesc(reading)))


def detach(connection: libvirt.virConnect, uuid: str, alias: str, place: int) -> None:
    """Ask for a device to be given up (place LIVE: by the guest, in its own time), or take it from the definition."""
    connection.lookupByUUIDString(uuid).detachDeviceAlias(alias, place)


def update(connection: libvirt.virConnect, uuid: str, xml: str, *, force: bool) -> None:
    """Change a device in place, in every document that the domain has. force: open a tray that the guest holds."""
    domain = connection.lookupByUUIDString(uuid)
    flags = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE if force else 0
    domain.updateDeviceFlags(xml, affected(domain) | flags)


def resize_block(connection: libvirt.virConnect, uuid: str, path: str, size: int) -> None:
    """Grow a running domain's disk; one that is as large or larger is left as it is."""
    domain = connection.lookupByUUIDString(uuid)
    if domain.blockInfo(path)[0] < size:
        domain.blockResize(path, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
