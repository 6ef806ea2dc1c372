"""What runs inside a simulated machine: firmware alone, or an operating system that obeys."""

from __future__ import annotations

from drivers.simulated.sparse import SparseBytes

SECTOR = 512
_SIGNATURE = b"\x55\xaa"
_POWERS_OFF = bytes.fromhex("ba0406b80020ef")
"""mov dx, 0x604; mov ax, 0x2000; out dx, ax: the firmware's power register is told to switch off."""

SYSTEM = b"\xf4\xeb\xfd".ljust(SECTOR - 2, b"\0") + _SIGNATURE
"""Write this to the beginning of a disk to have an operating system on it, as simulated guests go: it powers off when
the button is pressed, and gives devices up when asked to.
"""

_COUNTS = b"writes a number a tick"
"""What stands behind the code of a boot sector that does (see drivers.contract.documents)."""
TICK_SECONDS = 0.055
RING = 32
_STRIDE = 128

BOOT_SECONDS = 1.0
"""From power-on until the first sector of a disk runs."""
OBEY_SECONDS = 2.0
"""From the power button until a system has powered off."""
UNPLUG_SECONDS = 0.5
"""From the request until a system has given a device up."""


def boots(disk: SparseBytes) -> bool:
    """Whether firmware would boot from this disk."""
    return disk.read(SECTOR - 2, 2) == _SIGNATURE


def powers_off(disk: SparseBytes) -> bool:
    """Whether all that the disk's boot sector does is to power its machine off."""
    return disk.read(0, len(_POWERS_OFF)) == _POWERS_OFF


def counts(disk: SparseBytes) -> bool:
    """Whether all that the disk's boot sector does is to write numbers that rise, one a tick."""
    return _COUNTS in disk.read(0, SECTOR)


def count(number: int) -> tuple[int, bytes]:
    """Where such a guest writes a number on its disks, and what."""
    return (1 + number % RING * _STRIDE) * SECTOR, number.to_bytes(4, "little") * (SECTOR // 4)
