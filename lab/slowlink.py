"""A slow cable: a process that carries every frame between a port and its bridge, some milliseconds late.

Kernels of small machines often lack netem (sch_netem), so the delay is made in user space, the same way
everywhere: the port leaves its bridge, a TAP device takes its place, and frames wait in between.
Frames travel with their virtio-net header, so that unfinished checksums and segments stay valid.

Run inside the fabric's network namespace: `python -m lab.slowlink PORT BRIDGE MILLISECONDS`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

FRAME_BYTES = 70_000  # a whole unsegmented frame (64 KiB) and its header
WAITING_FRAMES = 20_000

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
# A link that is down loses frames: as a cable does, without a word.
_LOST = (errno.ENETDOWN, errno.ENOBUFS, errno.EIO, errno.EMSGSIZE, errno.EAGAIN)


@dataclass
class Lane:
    """One direction: frames enter by `read`, wait `delay` seconds, and leave by `write`, in order."""

    read: Callable[[], bytes]
    write: Callable[[bytes], object]
    delay: float
    limit: int = WAITING_FRAMES
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self, now: float) -> None:
        """Read one frame; a frame too many is lost, as in any queue."""
        try:
            frame = self.read()
        except OSError as error:
            if error.errno not in _LOST:
                raise
            return
        if len(self.waiting) < self.limit:
            self.waiting.append((now + self.delay, frame))

    def deliver(self, now: float) -> float | None:
        """Send what is due; returns the seconds until the next frame is, or None if none waits."""
        while self.waiting and self.waiting[0][0] <= now:
            _, frame = self.waiting.popleft()
            try:
                self.write(frame)
            except OSError as error:
                if error.errno not in _LOST:
                    raise
        return self.waiting[0][0] - now if self.waiting else None


def relay(port: str, bridge: str, milliseconds: int) -> None:
    """Take the port's place at the bridge and carry its frames until killed."""
    tap, name = _open_tap()
    cable = _open_port(port)
    for words in ((name, "master", bridge), (name, "up"), (port, "nomaster")):
        subprocess.run(["ip", "link", "set", *words], check=True)
    delay = milliseconds / 1000
    lanes = {
        tap: Lane(lambda: os.read(tap, FRAME_BYTES), cable.send, delay),
        cable.fileno(): Lane(lambda: cable.recv(FRAME_BYTES), lambda frame: os.write(tap, frame), delay),
    }
    pause: float | None = None
    while True:
        readable, _, _ = select.select(list(lanes), [], [], pause)
        now = time.monotonic()
        for descriptor in readable:
            lanes[descriptor].take(now)
        pause = min((due for lane in lanes.values() if (due := lane.deliver(now)) is not None), default=None)


def _open_tap() -> tuple[int, str]:
    """A new TAP device that lives as long as its descriptor; the kernel picks the number in its name."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", b"slow%d", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    answer = fcntl.ioctl(descriptor, _TUNSETIFF, request)
    return descriptor, answer[:16].rstrip(b"\0").decode()


def _open_port(port: str) -> socket.socket:
    """A packet socket that sees what comes in by the port, not what we send ourselves."""
    cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    cable.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    cable.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    cable.bind((port, _ETH_P_ALL))
    return cable


if __name__ == "__main__":
    relay(sys.argv[1], sys.argv[2], int(sys.argv[3]))
