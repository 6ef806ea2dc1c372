"""What a qcow2 header says of the layer below the image. Pure; the layout is QEMU's docs/interop/qcow2."""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER_BYTES = 65536
"""How much of an image is to be looked at: all of the header lies in the first cluster."""
MAGIC = b"QFI\xfb"
BACKING_FORMAT = 0xE2792ACA
"""The header extension that says the format of the layer below."""
_VERSION_2_BYTES, _VERSION_3_BYTES = 72, 104


class Backing(NamedTuple):
    """What an overlay's header says of the layer below it."""

    name: str
    """As it is written there: a path, or a name in the overlay's own directory."""
    format: str
    """Empty where the header does not say."""


def backing(head: bytes) -> Backing | None:
    """The layer below the image that begins with head; None where there is none, and for a file that is no qcow2."""
    if len(head) < _VERSION_2_BYTES or not head.startswith(MAGIC):
        return None
    version, offset, length = struct.unpack_from(">IQI", head, 4)
    if not offset:
        return None
    at = struct.unpack_from(">I", head, 100)[0] if version >= 3 and len(head) >= _VERSION_3_BYTES else _VERSION_2_BYTES
    form = ""
    while at + 8 <= min(offset, len(head)):
        kind, size = struct.unpack_from(">II", head, at)
        if kind == 0:
            break
        if kind == BACKING_FORMAT:
            form = head[at + 8 : at + 8 + size].decode(errors="replace")
        at += 8 + -(-size // 8) * 8
    return Backing(head[offset : offset + length].decode(errors="replace"), form)
