"""The storage volume document: a file that libvirt makes in a directory pool."""

from __future__ import annotations

from typing import NamedTuple

from xmlgen.xml import Element, element, to_text


class Layer(NamedTuple):
    """The file that an overlay is made on."""

    name: str
    """Its name in the overlay's directory. The overlay's header names it so, without a path: a chain stays whole
    wherever its directory is mounted."""
    format: str
    """Never left to be guessed: a guest writes what it likes into a raw layer, a qcow2 header as well."""


def volume_xml(name: str, format: str, capacity: int, below: Layer | None = None) -> str:  # noqa: A002
    """A new volume of capacity bytes that takes no space before it is written to.

    format: `qcow2` or `raw` (also for files that are no disks: records, seeds, markers). below: make it an overlay,
    which must be qcow2 and as large as what it is made on. Raises ValueError for one that is not, and for a path.
    """
    if below is not None and (format != "qcow2" or "/" in below.name):
        raise ValueError(f"{name} cannot be an overlay in format {format} on {below.name}")
    # qcow2 1.1 is what lets QEMU discard and resize in place; libvirt's own default is 0.10.
    compat = element("compat", {}, "1.1") if format == "qcow2" else None
    volume = element(
        "volume",
        {"type": "file"},
        element("name", {}, name),
        element("capacity", {"unit": "bytes"}, str(capacity)),
        element("allocation", {"unit": "bytes"}, "0"),
        element("target", {}, element("format", {"type": format}), compat),
        None if below is None else _backing_store(below),
    )
    return to_text(volume)


def _backing_store(below: Layer) -> Element:
    return element("backingStore", {}, element("path", {}, below.name), element("format", {"type": below.format}))
