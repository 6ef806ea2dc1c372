"""What a document is put together from: elements with the fingerprints of what they say."""

from __future__ import annotations

from dataclasses import dataclass

from xmlgen.sections import Sections
from xmlgen.xml import Element


@dataclass(frozen=True)
class Part:
    """One element of a document."""

    xml: Element
    sections: Sections = ()
    alias: str | None = None
    """Of a device that can be plugged in or changed while the domain runs."""
    live: Element | None = None
    """Such a device by itself, as attach and update take it."""
    ports: int = 0
    """PCI ports that it takes on q35 (slots of bus 0 on pc)."""
