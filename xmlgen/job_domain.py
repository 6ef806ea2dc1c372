"""The document of a job domain: a QEMU that runs no guest and only holds images, so that layers of a VM that is off are
committed and copied as block jobs, with progress, a limit and an end, and under the same locks as a VM's own QEMU.

It is started paused and never resumed. Should somebody resume it all the same, nothing boots: firmware looks at nothing
but what has a place in the boot order, and that is an empty CD-ROM drive. (An order of nothing at all is none: SeaBIOS
then looks everywhere.) Its stamp is another element than a VM's, so that nobody takes it for one; its images show in a
host's inventory like everybody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase
from typing import NamedTuple

from xmlgen.metadata import NAMESPACE
from xmlgen.xml import Element, element, to_text

NAME = "hostler-job-"
"""How the names of job domains begin. No VM's does: theirs have a dot behind a namespace, and this has none."""
_MEMORY_MIB = "16"
_MOST = 254
"""LUNs that libvirt gives to a virtio-scsi controller, without the CD-ROM drive's."""


class JobDisk(NamedTuple):
    """An image that the work is about, as a drive."""

    alias: str
    """`ua-…`: what the calls about its block job name it by."""
    path: str
    """Path of the leaf. The layers below are opened as its header says."""
    format: str


@dataclass(frozen=True)
class JobDomain:
    """What a job domain's document says."""

    uuid: str
    """Made of what asks for the work, so that asking again finds the same domain."""
    installation: str
    operation: str
    """UID of the object that asks for the work."""
    architecture: str
    machine: str
    """Versioned machine type."""
    virtualization: str
    """kvm or qemu."""
    disks: tuple[JobDisk, ...]


def job_domain_xml(source: JobDomain) -> str:
    """The document, to be defined and started paused. Raises ValueError for more disks than there is room for."""
    if len(source.disks) > _MOST:
        raise ValueError(f"{len(source.disks)} disks do not fit in one job domain, {_MOST} do")
    stamp = element(f"{{{NAMESPACE}}}job", {"installation": source.installation, "operation": source.operation})
    machine = {"arch": source.architecture, "machine": source.machine}
    return to_text(
        element(
            "domain",
            {"type": source.virtualization},
            element("name", {}, NAME + source.uuid),
            element("uuid", {}, source.uuid),
            element("metadata", {}, stamp),
            element("memory", {"unit": "MiB"}, _MEMORY_MIB),
            element("vcpu", {}, "1"),
            element("os", {}, element("type", machine, "hvm")),
            *(element(event, {}, "destroy") for event in ("on_poweroff", "on_reboot", "on_crash")),
            element("devices", {}, *_devices(source.disks)),
        )
    )


def _devices(disks: tuple[JobDisk, ...]) -> Iterator[Element]:
    for unit, disk in enumerate(disks):
        driver = {"name": "qemu", "type": disk.format, "cache": "none", "io": "threads", "discard": "unmap"}
        yield element(
            "disk",
            {"type": "file", "device": "disk"},
            element("driver", driver),
            element("source", {"file": disk.path}),
            element("target", {"dev": _target(unit), "bus": "scsi"}),
            element("alias", {"name": disk.alias}),
            element("address", _place(unit)),
        )
    yield element(
        "disk",
        {"type": "file", "device": "cdrom"},
        element("target", {"dev": _target(len(disks)), "bus": "scsi"}),
        element("readonly"),
        element("boot", {"order": "1"}),
        element("address", _place(len(disks))),
    )
    yield element("controller", {"type": "scsi", "index": "0", "model": "virtio-scsi"})
    yield element("controller", {"type": "usb", "index": "0", "model": "none"})
    yield element("video", {}, element("model", {"type": "none"}))
    yield element("memballoon", {"model": "none"})


def _place(unit: int) -> dict[str, str]:
    return {"type": "drive", "controller": "0", "bus": "0", "target": "0", "unit": str(unit)}


def _target(unit: int) -> str:
    """sda, …, sdz, sdaa, …"""
    first, last = divmod(unit, len(ascii_lowercase))
    return f"sd{ascii_lowercase[first - 1] if first else ''}{ascii_lowercase[last]}"
