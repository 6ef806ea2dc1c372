"""The storage volume document: a file that libvirt makes in a directory pool."""

from __future__ import annotations

from xmlgen.xml import element, to_text


def volume_xml(name: str, format: str, capacity: int) -> str:  # noqa: A002
    """A new volume of capacity bytes, without a backing file, that takes no space before it is written to.

    format: `qcow2` or `raw` (also for files that are no disks: records, seeds, markers).
    """
    # qcow2 1.1 is what lets QEMU discard and resize in place; libvirt's own default is 0.10.
    compat = element("compat", {}, "1.1") if format == "qcow2" else None
    volume = element(
        "volume",
        {"type": "file"},
        element("name", {}, name),
        element("capacity", {"unit": "bytes"}, str(capacity)),
        element("allocation", {"unit": "bytes"}, "0"),
        element("target", {}, element("format", {"type": format}), compat),
    )
    return to_text(volume)
