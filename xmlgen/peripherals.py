"""The devices that are neither drives nor network cards: there from power-on to power-off, each its own section."""

from __future__ import annotations

from collections.abc import Iterator

from crds.virtual_machine import Devices, GraphicsType, Presence, Video, WatchdogAction
from xmlgen.addresses import PCIAddress, PCIAddresses, address_of
from xmlgen.parts import Part, alias_of, remembered, whole_part
from xmlgen.xml import Element, element, fingerprint

BALLOON_STATISTICS_SECONDS = 10


def peripheral_parts(devices: Devices, addresses: PCIAddresses) -> Iterator[Part]:
    """All of them, in the order that libvirt itself writes them in."""
    if devices.graphics:
        yield _usb(addresses.take("ua-usb"))
        yield _tablet()
    else:
        yield _no_usb()
    if devices.serial_console is Presence.ENABLED:
        yield from _console()
    if devices.guest_agent is Presence.ENABLED:
        yield from _agent(addresses.take("ua-serial"))
    for graphics in devices.graphics:
        yield _graphics(graphics.type)
    video = devices.video or (Video.VGA if devices.graphics else Video.NONE)
    yield _video(video, addresses.take("ua-video")) if video is not Video.NONE else _no_video()
    if devices.watchdog is not None:
        yield _watchdog(devices.watchdog.action)
    yield _balloon(addresses.take("ua-balloon")) if devices.balloon is Presence.ENABLED else _no_balloon()
    if devices.rng is Presence.ENABLED:
        yield _rng(addresses.take("ua-rng"))
    yield _panic()


@remembered
def _no_usb() -> Part:
    return whole_part("usb", element("controller", {"type": "usb", "index": "0", "model": "none"}))


@remembered
def _usb(address: PCIAddress | None) -> Part:
    return _pci("usb", element("controller", {"type": "usb", "index": "0", "model": "qemu-xhci"}), "ua-usb", address)


@remembered
def _tablet() -> Part:
    # A tablet reports where the pointer is, not how it moved: without it a screen's pointer runs away.
    return whole_part("tablet", element("input", {"type": "tablet", "bus": "usb"}, alias_of("ua-tablet")))


@remembered
def _console() -> tuple[Part, Part]:
    model = element("model", {"name": "isa-serial"})
    target = element("target", {"type": "isa-serial", "port": "0"}, model)
    serial = element("serial", {"type": "pty"}, target, alias_of("ua-console"))
    console = element("console", {"type": "pty"}, element("target", {"type": "serial", "port": "0"}))
    return whole_part("console", serial), Part(console)


@remembered
def _agent(address: PCIAddress | None) -> tuple[Part, Part]:
    target = element("target", {"type": "virtio", "name": "org.qemu.guest_agent.0"})
    return (
        _pci("serial", element("controller", {"type": "virtio-serial", "index": "0"}), "ua-serial", address),
        whole_part("agent", element("channel", {"type": "unix"}, target, alias_of("ua-agent"))),
    )


@remembered
def _graphics(type_: GraphicsType) -> Part:
    listen = element("listen", {"type": "address", "address": "127.0.0.1"})
    return whole_part("graphics", element("graphics", {"type": type_.value, "autoport": "yes"}, listen))


@remembered
def _no_video() -> Part:
    return whole_part("video", element("video", {}, element("model", {"type": "none"})))


@remembered
def _video(video: Video, address: PCIAddress | None) -> Part:
    model = element("model", {"type": video.value, "heads": "1", "primary": "yes"})
    return _pci("video", element("video", {}, model), "ua-video", address)


@remembered
def _watchdog(action: WatchdogAction) -> Part:
    # The watchdog is a conventional PCI device: on q35, libvirt puts a bridge for it on a port.
    attributes = {"model": "i6300esb", "action": action.value}
    return whole_part("watchdog", element("watchdog", attributes, alias_of("ua-watchdog")), ports=1)


@remembered
def _no_balloon() -> Part:
    return whole_part("balloon", element("memballoon", {"model": "none"}))


@remembered
def _balloon(address: PCIAddress | None) -> Part:
    statistics = element("stats", {"period": str(BALLOON_STATISTICS_SECONDS)})
    return _pci("balloon", element("memballoon", {"model": "virtio"}, statistics), "ua-balloon", address)


@remembered
def _rng(address: PCIAddress | None) -> Part:
    backend = element("backend", {"model": "random"}, "/dev/urandom")
    return _pci("rng", element("rng", {"model": "virtio"}, backend), "ua-rng", address)


@remembered
def _panic() -> Part:
    # Tells libvirt of a guest's panic, so that it counts as a crash and not as a guest that hangs.
    return whole_part("panic", element("panic", {"model": "isa"}, alias_of("ua-panic")))


def _pci(section: str, device: Element, alias: str, address: PCIAddress | None) -> Part:
    """A PCI device's part, with the address that was kept for it, which is in no fingerprint."""
    named = device.with_children(alias_of(alias))
    return Part(named.with_children(address_of(address)), ((section, fingerprint(named)),), ports=1)
