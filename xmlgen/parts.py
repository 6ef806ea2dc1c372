"""What a document is put together from: elements with the fingerprints of what they say."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from xmlgen.sections import Sections
from xmlgen.xml import Element, element, fingerprint

remembered = lru_cache(1024)
"""For functions that make elements of few plain values: other VMs have the same."""


class Part(NamedTuple):
    """One element of a document."""

    xml: Element
    sections: Sections = ()
    alias: str | None = None
    """Of a device that can be plugged in or changed while the domain runs."""
    live: Element | None = None
    """Such a device by itself, as attach and update take it."""
    ports: int = 0
    """PCI ports that it takes on q35 (slots of bus 0 on pc)."""


def whole_part(section: str, root: Element, *, ports: int = 0) -> Part:
    """An element that is one section."""
    return Part(root, ((section, fingerprint(root)),), ports=ports)


@remembered
def alias_of(name: str) -> Element:
    """The name of a device in libvirt's documents."""
    return element("alias", {"name": name})


@remembered
def boot_of(position: int | None) -> Element | None:
    """A device's place in the boot order, counted from 1; None for one that is not booted from."""
    return element("boot", {"order": str(position)}) if position is not None else None
