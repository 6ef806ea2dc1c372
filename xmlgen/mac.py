"""MAC addresses that are made once and then stay: derived from who the card belongs to, not drawn at random."""

from __future__ import annotations

import hashlib


def stable_mac(vm_uid: str, nic_name: str, attempt: int = 0) -> str:
    """A MAC address in QEMU's range (52:54:00), the same for the same card.

    The range has 16 million addresses: a caller that finds the address taken asks again with the next attempt.
    """
    digest = hashlib.sha256(f"{vm_uid}/{nic_name}/{attempt}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])
