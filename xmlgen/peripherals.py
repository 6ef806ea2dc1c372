"""The devices that are neither drives nor network cards: there from power-on to power-off, each its own section."""

from __future__ import annotations

from collections.abc import Iterator

from crds.virtual_machine import Devices, Presence, Video
from xmlgen.addresses import PCIAddresses
from xmlgen.parts import Part
from xmlgen.xml import Element, element, fingerprint

BALLOON_STATISTICS_SECONDS = 10


def peripheral_parts(devices: Devices, addresses: PCIAddresses) -> Iterator[Part]:
    """All of them, in the order that libvirt itself writes them in."""
    yield from _usb(devices, addresses)
    if devices.serial_console is Presence.ENABLED:
        yield from _console()
    if devices.guest_agent is Presence.ENABLED:
        yield from _agent(addresses)
    yield from _screen(devices, addresses)
    if devices.watchdog is not None:
        # The watchdog is a conventional PCI device: on q35, libvirt puts a bridge for it on a port.
        attributes = {"model": "i6300esb", "action": devices.watchdog.action.value}
        yield _part("watchdog", element("watchdog", attributes, _alias("ua-watchdog")), ports=1)
    yield _balloon(devices.balloon, addresses)
    if devices.rng is Presence.ENABLED:
        rng = element("rng", {"model": "virtio"}, element("backend", {"model": "random"}, "/dev/urandom"))
        yield _part("rng", rng, "ua-rng", addresses)
    # Tells libvirt of a guest's panic, so that it counts as a crash and not as a guest that hangs.
    yield _part("panic", element("panic", {"model": "isa"}, _alias("ua-panic")))


def _usb(devices: Devices, addresses: PCIAddresses) -> Iterator[Part]:
    if not devices.graphics:
        yield _part("usb", element("controller", {"type": "usb", "index": "0", "model": "none"}))
        return
    usb = element("controller", {"type": "usb", "index": "0", "model": "qemu-xhci"})
    yield _part("usb", usb, "ua-usb", addresses)
    # A tablet reports where the pointer is, not how it moved: without it a screen's pointer runs away.
    yield _part("tablet", element("input", {"type": "tablet", "bus": "usb"}, _alias("ua-tablet")))


def _console() -> Iterator[Part]:
    model = element("model", {"name": "isa-serial"})
    target = element("target", {"type": "isa-serial", "port": "0"}, model)
    yield _part("console", element("serial", {"type": "pty"}, target, _alias("ua-console")))
    target = element("target", {"type": "serial", "port": "0"})
    yield Part(element("console", {"type": "pty"}, target))


def _agent(addresses: PCIAddresses) -> Iterator[Part]:
    yield _part("serial", element("controller", {"type": "virtio-serial", "index": "0"}), "ua-serial", addresses)
    target = element("target", {"type": "virtio", "name": "org.qemu.guest_agent.0"})
    yield _part("agent", element("channel", {"type": "unix"}, target, _alias("ua-agent")))


def _screen(devices: Devices, addresses: PCIAddresses) -> Iterator[Part]:
    for graphics in devices.graphics:
        listen = element("listen", {"type": "address", "address": "127.0.0.1"})
        yield _part("graphics", element("graphics", {"type": graphics.type.value, "autoport": "yes"}, listen))
    video = devices.video or (Video.VGA if devices.graphics else Video.NONE)
    if video is Video.NONE:
        yield _part("video", element("video", {}, element("model", {"type": "none"})))
        return
    model = element("model", {"type": video.value, "heads": "1", "primary": "yes"})
    yield _part("video", element("video", {}, model), "ua-video", addresses)


def _balloon(presence: Presence, addresses: PCIAddresses) -> Part:
    if presence is Presence.DISABLED:
        return _part("balloon", element("memballoon", {"model": "none"}))
    statistics = element("stats", {"period": str(BALLOON_STATISTICS_SECONDS)})
    return _part("balloon", element("memballoon", {"model": "virtio"}, statistics), "ua-balloon", addresses)


def _part(
    section: str, device: Element, alias: str | None = None, addresses: PCIAddresses | None = None, *, ports: int = 0
) -> Part:
    """A device's part; with an alias and addresses, it is a PCI device that gets back the address kept for it."""
    if alias is not None:
        device = device.with_children(_alias(alias))
    sha = fingerprint(device)
    if alias is not None and addresses is not None:
        device = device.with_children(addresses.take(alias))
        ports = 1
    return Part(device, ((section, sha),), ports=ports)


def _alias(name: str) -> Element:
    return element("alias", {"name": name})
