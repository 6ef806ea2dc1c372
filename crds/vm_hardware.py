"""A VM's virtual hardware: mainboard, CPUs, memory, drives, network cards and the other devices."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from crds.base import CPUModelName, LocalRef, Model, ObjectName, Rule, list_map, rules
from crds.disk import DiskSpec
from crds.quantity import Quantity


class FirmwareType(StrEnum):
    """How the guest boots."""

    BIOS = "BIOS"
    UEFI = "UEFI"


class Machine(StrEnum):
    """Family of the virtual mainboard."""

    Q35 = "q35"
    PC = "pc"


class DiskType(StrEnum):
    """What a drive is."""

    DISK = "disk"
    CDROM = "cdrom"


class DiskBus(StrEnum):
    """How a drive is attached."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"


class NicModel(StrEnum):
    """What network card the guest sees."""

    VIRTIO = "virtio"
    E1000E = "e1000e"


class GuestOS(StrEnum):
    """What runs in the guest, as far as it matters to the virtual hardware."""

    LINUX = "Linux"
    WINDOWS = "Windows"
    OTHER = "Other"


class Presence(StrEnum):
    """Whether the VM has a device."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class WatchdogAction(StrEnum):
    """What happens when the guest's watchdog is not fed."""

    RESET = "reset"
    POWEROFF = "poweroff"
    PAUSE = "pause"


class Video(StrEnum):
    """What graphics card the guest sees."""

    VIRTIO = "virtio"
    VGA = "vga"
    NONE = "none"


POOL_BASELINE = "PoolBaseline"
"""In place of a CPU model: the one that the pool's baseline names."""
MAX_CPUS = 255
"""Virtual CPUs that both kinds of mainboard take."""
MAX_DISKS = 30
MAX_NICS = 16


class CPU(Model):
    """Virtual CPUs."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "(has(self.sockets) ? self.sockets : 1) * (has(self.cores) ? self.cores : 1)"
                f" * (has(self.threads) ? self.threads : 1) <= {MAX_CPUS}",
                f"must not have more than {MAX_CPUS} virtual CPUs (sockets × cores × threads)",
            )
        )
    )

    sockets: int = Field(default=1, ge=1, le=64)
    """Sockets. Default: 1."""
    cores: int = Field(default=1, ge=1, le=256)
    """Cores a socket. Default: 1."""
    threads: int = Field(default=1, ge=1, le=8)
    """Threads a core. Default: 1."""
    model: CPUModelName = POOL_BASELINE
    """PoolBaseline, or a CPU model known to libvirt. Default: PoolBaseline."""

    @property
    def count(self) -> int:
        """Virtual CPUs in all."""
        return self.sockets * self.cores * self.threads


class Memory(Model):
    """Guest memory."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "type(self.size) == int ? self.size >= 1048576 : !isQuantity(self.size)"
                " || quantity(self.size).compareTo(quantity('1Mi')) >= 0",
                "must be at least 1Mi: a number without a unit is bytes; write for example 2Gi",
                field_path=".size",
            )
        )
    )

    size: Quantity
    """Memory of the guest, for example 2Gi."""


class Firmware(Model):
    """How the guest boots."""

    type: FirmwareType = FirmwareType.BIOS
    """BIOS or UEFI. Default: BIOS."""


DeviceName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        json_schema_extra=rules(
            Rule(
                "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                "must be lower-case letters, digits and '-', for example root",
            )
        ),
    ),
]


class VMDisk(Model):
    """One drive of the VM."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.diskRef) != has(self.template)"
                " || (has(self.type) && self.type == 'cdrom' && !has(self.diskRef))",
                "must have exactly one of diskRef and template; only a cdrom may have neither, it is empty then",
            ),
            Rule(
                "!(has(self.type) && self.type == 'cdrom') || !has(self.bus) || self.bus != 'virtio'",
                "must be scsi or sata for a cdrom",
                field_path=".bus",
            ),
        )
    )

    name: DeviceName
    """Name of the drive, unique in this VM."""
    type: DiskType = DiskType.DISK
    """disk, or cdrom: a drive with the Disk of diskRef in it, which can be changed while the VM runs, or empty.
    Default: disk."""
    bus: DiskBus | None = None
    """virtio, scsi or sata. Default: virtio for a disk (sata when guestOS is Other), scsi for a cdrom (sata for Windows
    and Other). A sata drive comes and goes with the next start only."""
    boot_order: int | None = Field(default=None, ge=1, le=64)
    """Boot from the drive or network card with the lowest number first. Default: the first disk."""
    disk_ref: LocalRef | None = None
    """A Disk of this namespace."""
    template: DiskSpec | None = None
    """Makes a Disk named `<vm>-<name>`, owned by this VM and deleted with it."""


class VMNic(Model):
    """One network card of the VM."""

    name: DeviceName
    """Name of the card, unique in this VM."""
    network: ObjectName
    """The Network that it is plugged into."""
    model: NicModel = NicModel.VIRTIO
    """virtio or e1000e. Default: virtio."""
    boot_order: int | None = Field(default=None, ge=1, le=64)
    """Boot from the drive or network card with the lowest number first."""
    mac: str | None = Field(
        default=None,
        max_length=17,
        json_schema_extra=rules(
            Rule(
                "self.matches('^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$')",
                "must be a unicast MAC address in lower case, for example 52:54:00:12:34:56",
            )
        ),
    )
    """MAC address. Default: one that is made once and then stays, shown in the status."""


class Watchdog(Model):
    """A watchdog device (i6300esb)."""

    action: WatchdogAction = WatchdogAction.RESET
    """What happens when the guest stops feeding it: reset, poweroff or pause. Default: reset."""


class GraphicsType(StrEnum):
    """How a screen is reached."""

    VNC = "vnc"


class Graphics(Model):
    """A screen that can be looked at over the network of the host (on its loopback address)."""

    type: GraphicsType
    """vnc."""


class Devices(Model):
    """The VM's other devices."""

    rng: Presence = Presence.ENABLED
    """A source of random numbers. Default: Enabled."""
    watchdog: Watchdog | None = None
    """A watchdog. Default: none."""
    graphics: list[Graphics] = Field(default_factory=list, max_length=1, json_schema_extra=list_map("type"))
    """Screens. Default: none."""
    serial_console: Presence = Presence.ENABLED
    """A serial console. Default: Enabled."""
    guest_agent: Presence = Presence.ENABLED
    """The channel of the QEMU guest agent. Default: Enabled."""
    balloon: Presence = Presence.ENABLED
    """A memory balloon, which also reports the guest's memory use. Default: Enabled."""
    video: Video | None = None
    """virtio, vga or none. Default: vga where there are graphics, else none."""
