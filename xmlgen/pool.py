"""The storage pool document."""

from __future__ import annotations

from xmlgen.xml import element, to_text


def directory_pool_xml(name: str, path: str) -> str:
    """A storage pool over a directory that the host has already (libvirt makes and mounts nothing)."""
    return to_text(
        element("pool", {"type": "dir"}, element("name", {}, name), element("target", {}, element("path", {}, path)))
    )
