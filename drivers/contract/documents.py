"""The documents that the checks send, and guests of 512 bytes."""

from __future__ import annotations

from lxml import etree

from drivers.model import HostFacts

METADATA_URI = "https://hostler.dev/domain/v1"

_POWER_OFF = bytes.fromhex(
    "ba0406"  # mov dx, 0x604   the power management register that SeaBIOS sets up on q35 and pc
    "b80020"  # mov ax, 0x2000  sleep enable, sleep type 0: soft off
    "ef"  # out dx, ax
    "f4"  # hlt
    "ebfd"  # jmp to the hlt
)
BOOT_SECTOR = _POWER_OFF.ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector whose only act is to power its machine off, as an operating system would."""

_COUNT = bytes.fromhex(
    "31c08ed88ec08ed0bc007cfc"  # segments 0, a stack below the code
    "66ff064f7c"  # next: inc dword [number]
    "66a14f7cbf0080b9800066f3ab"  # fill a sector at 0x8000 with it
    "83e01fc1e00740a3477c"  # sector = 1 + number % 32 * 128
    "b280e80900b281e80400"  # write it to the first disk and to the second
    "fbf4"  # sti; hlt: until the next tick, of which there are 18.2 a second
    "ebd6"  # jmp next
    "b80043be3f7ccd13c3"  # write: BIOS interrupt 0x13, extended write of the packet; ret
    "1000010000800000"  # packet: 16 bytes, 1 sector from 0000:8000
    "0000000000000000"  # … its sector
    "00000000"  # number
)
COUNTING_SECTOR = (_COUNT + b"writes a number a tick").ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector whose only act is to count, and to write each number on the first two disks: 32 sectors in turns, each
in a cluster of its own. So a disk tells whether all that was written is there, and until when.
"""
COUNTED = 32
COUNTED_BYTES = 4 * 2**20
"""Size of a disk that it can write on."""


def counted(disk: bytes) -> tuple[int, ...]:
    """The numbers in the 32 sectors; -1 for a sector that is not one number all over."""
    numbers = []
    for place in range(COUNTED):
        begin = (1 + place * 128) * 512
        sector = disk[begin : begin + 512]
        numbers.append(int.from_bytes(sector[:4], "little") if sector == sector[:4] * 128 else -1)
    return tuple(numbers)


def domain(name: str, uuid: str, facts: HostFacts, *devices: str, epoch: int = 1) -> str:
    """A small machine of the host's newest q35 (or else pc) type; it runs firmware only, unless a disk can boot."""
    machine = next(types[0] for family in ("q35", "pc") if (types := facts.machines.get(family)))
    root = etree.Element("domain", type=facts.virtualization)
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "uuid").text = uuid
    etree.SubElement(root, "metadata").append(etree.fromstring(metadata(name, uuid, epoch)))
    etree.SubElement(root, "memory", unit="MiB").text = "16"
    etree.SubElement(root, "vcpu").text = "1"
    os = etree.SubElement(root, "os")
    etree.SubElement(os, "type", arch=facts.architecture, machine=machine).text = "hvm"
    etree.SubElement(etree.SubElement(root, "features"), "acpi")
    parts = etree.SubElement(root, "devices")
    if "q35" in machine:
        etree.SubElement(parts, "controller", type="pci", model="pcie-root")
        for _ in range(6):
            etree.SubElement(parts, "controller", type="pci", model="pcie-root-port")
    for device in devices:
        parts.append(etree.fromstring(device))
    return etree.tostring(root).decode()


def metadata(name: str, uid: str, epoch: int) -> str:
    """Our stamp."""
    root = etree.Element(f"{{{METADATA_URI}}}vm", nsmap={None: METADATA_URI})
    root.attrib.update(
        {"installation": "contract", "namespace": "contract", "name": name, "uid": uid, "epoch": str(epoch)}
    )
    section = etree.SubElement(root, f"{{{METADATA_URI}}}section")
    section.attrib.update({"name": "cpu", "sha": f"sha-{epoch}"})
    return etree.tostring(root).decode()


def job_domain(name: str, uuid: str, facts: HostFacts, operation: str, *disks: str) -> str:
    """A domain that is no VM, but stamped as being there for the work of an operation. It boots nothing."""
    drive = etree.fromstring(cdrom(None))
    etree.SubElement(drive, "boot", order="1")
    root = etree.fromstring(domain(name, uuid, facts, *disks, etree.tostring(drive).decode()))
    stamp = root.find("metadata")
    if stamp is None:
        raise ValueError("a domain without metadata")
    stamp.clear()
    etree.SubElement(stamp, f"{{{METADATA_URI}}}job", installation="contract", operation=operation)
    return etree.tostring(root).decode()


def disk(path: str, form: str, *, target: str = "vda", alias: str | None = None, boot: int | None = None) -> str:
    """A virtio disk over a file; boot: its place in the boot order. If any disk has one, firmware sees those alone."""
    root = etree.Element("disk", type="file", device="disk")
    etree.SubElement(root, "driver", name="qemu", type=form)
    etree.SubElement(root, "source", file=path)
    etree.SubElement(root, "target", dev=target, bus="virtio")
    etree.SubElement(root, "alias", name=alias or f"ua-disk-{target}")
    if boot is not None:
        etree.SubElement(root, "boot", order=str(boot))
    return etree.tostring(root).decode()


def cdrom(path: str | None, form: str = "raw", *, target: str = "sda", bus: str = "sata") -> str:
    """A CD-ROM drive with a medium, or without."""
    root = etree.Element("disk", type="file", device="cdrom")
    etree.SubElement(root, "driver", name="qemu", type=form)
    if path is not None:
        etree.SubElement(root, "source", file=path)
    etree.SubElement(root, "target", dev=target, bus=bus)
    etree.SubElement(root, "readonly")
    etree.SubElement(root, "alias", name="ua-cdrom")
    return etree.tostring(root).decode()


def scsi() -> str:
    """A SCSI controller."""
    root = etree.Element("controller", type="scsi", model="virtio-scsi")
    etree.SubElement(root, "alias", name="ua-scsi")
    return etree.tostring(root).decode()


def network_card(bridge: str) -> str:
    """A network card on a bridge."""
    root = etree.Element("interface", type="bridge")
    etree.SubElement(root, "source", bridge=bridge)
    etree.SubElement(root, "model", type="virtio")
    return etree.tostring(root).decode()


def pool(name: str, path: str) -> str:
    """A storage pool over a directory."""
    root = etree.Element("pool", type="dir")
    etree.SubElement(root, "name").text = name
    etree.SubElement(etree.SubElement(root, "target"), "path").text = path
    return etree.tostring(root).decode()


def volume(name: str, form: str, capacity: int, allocation: int = 0, *, below: tuple[str, str] | None = None) -> str:
    """A volume; below: make it an overlay on the file of that name and format."""
    root = etree.Element("volume")
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "capacity", unit="bytes").text = str(capacity)
    etree.SubElement(root, "allocation", unit="bytes").text = str(allocation)
    etree.SubElement(etree.SubElement(root, "target"), "format", type=form)
    if below is not None:
        store = etree.SubElement(root, "backingStore")
        etree.SubElement(store, "path").text = below[0]
        etree.SubElement(store, "format", type=below[1])
    return etree.tostring(root).decode()
