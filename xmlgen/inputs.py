"""What a domain document is made from, in plain values: nothing here knows a host, a cluster or a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from crds.disk import Discard, DiskAccess, DiskSpec
from crds.host_pool import PoolBaseline
from crds.virtual_machine import DiskBus, DiskType, GuestOS, NicModel, VirtualMachineSpec, VMDisk, VMNic
from xmlgen.metadata import Identity


@dataclass(frozen=True)
class Image:
    """A file on the host that a drive shows to the guest."""

    path: str
    format: str
    """qcow2 or raw."""
    readonly: bool = False
    shared: bool = False
    """Whether other domains may write it at the same time."""
    discard: Literal["unmap", "ignore"] = "unmap"
    sector_size: int = 512
    """Logical sector size that the guest sees, bytes."""

    @classmethod
    def of(cls, disk: DiskSpec, path: str) -> Image:
        """The image of a Disk whose volume lies at path."""
        return cls(
            path=path,
            format=disk.format.value,
            shared=disk.access is DiskAccess.SHARED,
            discard="unmap" if disk.discard is Discard.UNMAP else "ignore",
            sector_size=disk.logical_sector_size,
        )


@dataclass(frozen=True)
class Drive:
    """A disk or CD-ROM drive of the VM."""

    name: str
    type: DiskType
    bus: DiskBus
    boot_order: int | None
    image: Image | None
    """None for an empty CD-ROM drive."""

    def __post_init__(self) -> None:
        """Refuse a disk that is made of nothing."""
        if self.image is None and self.type is not DiskType.CDROM:
            raise ValueError(f"disk {self.name!r} has no image: only a cdrom can be empty")

    @property
    def alias(self) -> str:
        """Its name in libvirt's documents."""
        return f"ua-disk-{self.name}"

    @classmethod
    def of(cls, disk: VMDisk, guest_os: GuestOS, image: Image | None) -> Drive:
        """The drive that a spec declares, on the bus that suits the guest where none is said."""
        return cls(disk.name, disk.type, disk.bus or default_bus(disk.type, guest_os), disk.boot_order, image)


@dataclass(frozen=True)
class Nic:
    """A network card of the VM."""

    name: str
    bridge: str
    """Bridge device on the host."""
    model: NicModel
    mac: str | None
    """None: the one that was kept for it, else one made from the VM's uid and the card's name."""
    boot_order: int | None

    @property
    def alias(self) -> str:
        """Its name in libvirt's documents."""
        return f"ua-nic-{self.name}"

    @classmethod
    def of(cls, nic: VMNic, bridge: str, mac: str | None = None) -> Nic:
        """The card that a spec declares; mac is used where the spec names none."""
        return cls(nic.name, bridge, nic.model, nic.mac or mac, nic.boot_order)


@dataclass(frozen=True)
class Kept:
    """Where a device sat when the domain was last seen, so that it sits there again."""

    alias: str
    address: str | None = None
    """`pci:0000:03:00.0` or `drive:0:0:0:1`."""
    target: str | None = None
    """A drive's target, for example vda."""
    mac: str | None = None


@dataclass(frozen=True)
class DomainInput:
    """All that a domain document is generated from."""

    identity: Identity
    uuid: str
    spec: VirtualMachineSpec
    baseline: PoolBaseline
    drives: tuple[Drive, ...] = ()
    nics: tuple[Nic, ...] = ()
    seed: str | None = None
    """Path of the cloud-init seed on the hosts."""
    nvram: str | None = None
    """Path of the UEFI variables on the hosts; needed where firmware is UEFI."""
    kept: Mapping[str, Kept] = field(default_factory=dict)
    """By alias."""


def default_bus(drive: DiskType, guest_os: GuestOS) -> DiskBus:
    """The bus of a drive whose spec names none: the fastest one that the guest has drivers for out of the box."""
    if drive is DiskType.CDROM:
        return DiskBus.SCSI if guest_os is GuestOS.LINUX else DiskBus.SATA
    return DiskBus.SATA if guest_os is GuestOS.OTHER else DiskBus.VIRTIO
