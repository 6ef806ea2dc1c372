"""Domain documents as libvirt keeps them: what it fills in when a domain is defined and started, and edits. Pure."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

from lxml import etree

from drivers.errors import NotFound, Refused
from drivers.xmlread import METADATA_URI, device_alias, parse_document

AGENT_CHANNEL = "org.qemu.guest_agent.0"
_PCI_BUSES = frozenset({"virtio"})
_DRIVE_BUSES = frozenset({"sata", "scsi", "ide"})
_PCI_CONTROLLERS = frozenset({"virtio-serial", "scsi", "usb"})
_PCI_SLOTS = range(3, 31)


class Document:
    """A document, kept small: a fleet has thousands."""

    __slots__ = ("_packed",)

    def __init__(self, xml: str) -> None:
        self._packed = zlib.compress(xml.encode(), 1)

    @property
    def text(self) -> str:
        """The document."""
        return zlib.decompress(self._packed).decode()

    @property
    def root(self) -> etree._Element:
        """The document, taken apart anew."""
        return parse_document(self.text)


def parse(xml: str) -> etree._Element:
    """A document that somebody sent. Raises Refused(InvalidDomain)."""
    try:
        return parse_document(xml)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise invalid(f"XML error: {error}") from error


def invalid(message: str) -> Refused:
    """A document that is not taken."""
    return Refused(message, reason="InvalidDomain")


def to_document(root: etree._Element) -> Document:
    """The document of an element."""
    return Document(etree.tostring(root).decode())


def check(root: etree._Element, machines: Mapping[str, tuple[str, ...]]) -> None:
    """Raises Refused(InvalidDomain) for what libvirt would not take either; machines: what the host has."""
    if root.tag != "domain":
        raise invalid(f"unexpected root element {str(root.tag)!r}, expecting <domain>")
    for required in ("name", "memory", "os/type"):
        if not (root.findtext(required) or "").strip():
            raise invalid(f"missing {required} information")
    kind = root.find("os/type")
    machine = None if kind is None else kind.get("machine")
    known = {name for names in machines.values() for name in names} | {*machines, None}
    if machine not in known:
        raise invalid(f"unsupported configuration: the machine type {machine!r} is not supported by this host")


def complete(root: etree._Element, rng: random.Random) -> None:
    """Fill in what libvirt fills in when a domain is defined: MAC addresses, and places on buses."""
    for device in root.iterfind("devices/*"):
        complete_device(root, device, rng, pluggable=False)


def complete_device(root: etree._Element, device: etree._Element, rng: random.Random, *, pluggable: bool) -> None:
    """Fill in a device that is in the document, or is about to be put there. pluggable: only a place where it can be
    plugged in while the machine runs will do. Raises Refused where there is none.
    """
    if device.tag == "interface" and device.find("mac") is None:
        etree.SubElement(device, "mac", address=f"52:54:00:{_pairs(rng.randrange(2**24))}")
    if device.find("address") is not None:
        return
    bus = target_bus(device)
    if bus in _DRIVE_BUSES:
        unit = ord(_target_name(device)[2:3] or "a") - ord("a")
        etree.SubElement(device, "address", type="drive", controller="0", bus="0", target="0", unit=str(unit))
    elif bus in _PCI_BUSES or device.tag == "interface" or _is_pci_controller(device):
        place = _free_place(root, pluggable=pluggable)
        bus_number, slot = (f"0x{number:02x}" for number in place)
        etree.SubElement(device, "address", type="pci", domain="0x0000", bus=bus_number, slot=slot, function="0x0")


def _pairs(number: int) -> str:
    return ":".join(f"{number >> shift & 255:02x}" for shift in (16, 8, 0))


def _is_pci_controller(device: etree._Element) -> bool:
    return device.tag == "controller" and device.get("type") in _PCI_CONTROLLERS and device.get("model") != "none"


def _free_place(root: etree._Element, *, pluggable: bool) -> tuple[int, int]:
    taken = {
        (int(address.get("bus", "0"), 16), int(address.get("slot", "0"), 16))
        for address in root.iterfind("devices/*/address[@type='pci']")
    }
    ports = [port for port in root.iterfind("devices/controller[@type='pci']") if port.get("model") == "pcie-root-port"]
    places = [(int(port.get("index") or place), 0) for place, port in enumerate(ports, 1)]
    if not (ports and pluggable):
        places += [(0, slot) for slot in _PCI_SLOTS]
    free = next((place for place in places if place not in taken), None)
    if free is None:
        raise Refused("internal error: No more available PCI slots", reason="OperationFailed")
    return free


def live(root: etree._Element, number: int) -> None:
    """Turn a definition into the document of a running domain. number: rises with each start on the host."""
    for place, device in enumerate(root.iterfind("devices/*")):
        name_device(device, place, number)
    for target in root.iterfind("devices/channel/target"):
        if target.get("name") == AGENT_CHANNEL:
            target.set("state", "disconnected")


def name_device(device: etree._Element, place: int, number: int) -> None:
    """Give a device of a running domain an alias, if it has none, and a network card its tap device."""
    if device.find("alias") is None:
        etree.SubElement(device, "alias", name=f"{etree.QName(device).localname}{place}")
    if device.tag == "interface":
        target = device.find("target")
        if target is None:
            target = etree.SubElement(device, "target")
        target.set("dev", f"vnet{number}-{place}")


def set_agent(root: etree._Element, connected: bool) -> None:
    """Say whether the guest agent is connected."""
    for target in root.iterfind("devices/channel/target"):
        if target.get("name") == AGENT_CHANNEL:
            target.set("state", "connected" if connected else "disconnected")


def set_metadata(root: etree._Element, stamp: etree._Element) -> None:
    """Replace our element."""
    metadata = root.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(root, "metadata")
    for old in metadata.findall(f"{{{METADATA_URI}}}vm"):
        metadata.remove(old)
    metadata.append(stamp)


def find_device(root: etree._Element, alias: str) -> etree._Element | None:
    """The device of that alias."""
    for found in root.iterfind("devices/*/alias"):
        if found.get("name") == alias:
            return found.getparent()
    return None


def add_device(root: etree._Element, device: etree._Element) -> None:
    """Put a device in."""
    devices = root.find("devices")
    if devices is None:
        devices = etree.SubElement(root, "devices")
    devices.append(device)


def remove_device(root: etree._Element, alias: str) -> bool:
    """Take a device out; whether it was there."""
    device = find_device(root, alias)
    parent = None if device is None else device.getparent()
    if device is None or parent is None:
        return False
    parent.remove(device)
    return True


def update_device(root: etree._Element, xml: str) -> None:
    """Give a device of the document the source, and its format, that xml gives it. Raises NotFound."""
    new = parse(xml)
    device = find_device(root, device_alias(xml) or "")
    if device is None:
        raise NotFound("device not found", reason="NoDevice")
    for old in (*device.findall("source"), *device.findall("driver"), *device.findall("backingStore")):
        device.remove(old)
    device.extend(part for part in (new.find("driver"), new.find("source")) if part is not None)


def images(root: etree._Element) -> Iterator[tuple[str, str, bool]]:
    """(path, format, whether it is written) of each image of a domain, the variables of UEFI included."""
    for disk in root.iterfind("devices/disk"):
        if found := image(disk):
            yield found
    if path := nvram(root):
        yield path, "raw", True


def image(disk: etree._Element) -> tuple[str, str, bool] | None:
    """(path, format, whether it is written) of a drive; None for an empty one, and for what is no drive."""
    source, driver = disk.find("source"), disk.find("driver")
    path = None if source is None or disk.tag != "disk" else source.get("file")
    if not path:
        return None
    form = "raw" if driver is None else driver.get("type", "raw")
    return path, form, disk.get("device", "disk") == "disk" and disk.find("readonly") is None


def alias_of(device: etree._Element) -> str:
    """The name of a device."""
    element = device.find("alias")
    return "" if element is None else element.get("name", "")


def set_image(disk: etree._Element, path: str, form: str) -> None:
    """Give a drive another image."""
    source, driver = disk.find("source"), disk.find("driver")
    if source is None or driver is None:
        raise invalid("a drive without an image or a driver")
    source.set("file", path)
    driver.set("type", form)


def set_layers(disk: etree._Element, below: Sequence[tuple[str, str]]) -> None:
    """Show the layers (path, format) below a drive's image, from the top down, one inside the other as libvirt does."""
    for old in disk.findall("backingStore"):
        disk.remove(old)
    parent = disk
    for path, form in below:
        parent = etree.SubElement(parent, "backingStore", type="file")
        etree.SubElement(parent, "format", type=form)
        etree.SubElement(parent, "source", file=path)
    etree.SubElement(parent, "backingStore")


def set_mirror(disk: etree._Element, mirror: tuple[str, str, str, bool] | None) -> None:
    """Show the file (path, format, kind of job, whether it is ready) that a block job writes; None: there is none."""
    for old in disk.findall("mirror"):
        disk.remove(old)
    if mirror is None:
        return
    path, form, job, ready = mirror
    element = etree.SubElement(disk, "mirror", type="file", job=job)
    if ready:
        element.set("ready", "yes")
    etree.SubElement(element, "format", type=form)
    etree.SubElement(element, "source", file=path)


def is_cdrom(device: etree._Element) -> bool:
    """Whether it is a CD-ROM drive."""
    return bool(device.tag == "disk" and device.get("device") == "cdrom")


def booted_from(root: etree._Element) -> list[tuple[str, str, bool]]:
    """The images of `images` that firmware looks at, in its order: those with a place in the boot order, if any device
    has one.
    """
    placed = sorted(root.iterfind("devices/*/boot"), key=lambda boot: int(boot.get("order", "0")))
    drives = [boot.getparent() for boot in placed] if placed else root.findall("devices/disk")
    return [found for drive in drives if drive is not None and (found := image(drive)) is not None]


def nvram(root: etree._Element) -> str:
    """Path of the variables of UEFI, or nothing."""
    element = root.find("os/nvram")
    if element is None:
        return ""
    source = element.find("source")
    return (element.text or "").strip() if source is None else source.get("file", "")


def bridges(root: etree._Element) -> tuple[str, ...]:
    """Bridges that the network cards need."""
    return tuple(source.get("bridge", "") for source in root.iterfind("devices/interface[@type='bridge']/source"))


def target_bus(device: etree._Element) -> str:
    """The bus of a drive; nothing for what is no drive."""
    target = device.find("target")
    return "" if target is None or device.tag != "disk" else target.get("bus", "")


def _target_name(device: etree._Element) -> str:
    target = device.find("target")
    return re.sub(r"\d+$", "", "" if target is None else target.get("dev", ""))
