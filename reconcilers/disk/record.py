"""The record beside each volume: whose it is, on the storage itself.

It is written last, when the volume is whole, so it is also the mark of a finished creation: a volume of ours without
its record is what a crash has left behind. It lets a lost or restored cluster find its disks again under their names.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from drivers.errors import NotFound
from drivers.hypervisor import Hypervisor
from xmlgen import names
from xmlgen.volume import volume_xml

_LIMIT = 65536


@dataclass(frozen=True)
class Record:
    """Whose a volume is."""

    installation: str
    namespace: str
    name: str
    """Name of the Disk."""
    uid: str
    volume: str
    """File name of the volume."""
    format: str
    version: int = 1

    def same_disk(self, other: Record) -> bool:
        """Whether both speak of the Disk of one name, under whatever uid."""
        return (self.installation, self.namespace, self.name) == (other.installation, other.namespace, other.name)


async def read(host: Hypervisor, pool: str, volume: str) -> Record | None:
    """The volume's record; None where there is none, or none that is whole."""
    try:
        data = b"".join([chunk async for chunk in host.download(pool, names.record_name(volume), limit=_LIMIT)])
    except NotFound as error:
        if error.reason == "NoPool":
            # That says nothing of the directory.
            raise
        return None
    try:
        return Record(**json.loads(data.rstrip(b"\0")))
    except (ValueError, TypeError):
        return None


async def write(host: Hypervisor, pool: str, record: Record) -> None:
    """Have this record, and no other, beside the volume. Called again it changes nothing."""
    if await read(host, pool, record.volume) == record:
        return
    name, data = names.record_name(record.volume), json.dumps(asdict(record), sort_keys=True).encode()
    await host.delete_volume(pool, name)
    await host.create_volume(pool, volume_xml(name, "raw", len(data)))
    await host.upload(pool, name, _once(data), size=len(data))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
