"""What checks of layers and block jobs do over and over: a guest that counts, and a look at what it wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from drivers.contract import documents
from drivers.contract.bed import Bed, eventually, expect, require
from drivers.model import DeviceObservation, DomainState, Volume
from drivers.xmlread import read_domain

TICKS_SECONDS = 2.5
"""More than a guest that counts takes to write all its sectors once."""
SLOW = 64 * 1024
"""Bytes per second at which a job of what such a guest wrote takes its time."""
ROOT, DATA = "ua-disk-vda", "ua-disk-vdb"


class Counting:
    """A running domain that counts on two disks: vda, which is qcow2, and vdb, which is raw."""

    def __init__(self, bed: Bed, uuid: str, root: Volume, data: Volume) -> None:
        self.bed = bed
        self.uuid = uuid
        self.root = root
        """What vda began with."""
        self.data = data
        """What vdb began with."""

    @classmethod
    async def begin(cls, bed: Bed) -> Counting:
        """Start one, and wait until it has written all its sectors."""
        boots = await bed.volume("raw", documents.COUNTED_BYTES)
        await bed.upload(boots.name, documents.COUNTING_SECTOR)
        document = documents.volume(bed.volume_name("qcow2"), "qcow2", documents.COUNTED_BYTES)
        root = await bed.host.copy_volume(bed.directory, document, boots.name)
        data = await bed.volume("raw", documents.COUNTED_BYTES)
        uuid = await bed.running(
            documents.disk(root.path, "qcow2", boot=1), documents.disk(data.path, "raw", target="vdb", boot=2)
        )
        ends = asyncio.get_running_loop().time() + 120
        while max(documents.counted(await bed.download(data.name))) < documents.COUNTED:
            expect(asyncio.get_running_loop().time() < ends, "the guest counts: not within 120 s")
            await asyncio.sleep(0.2)
        return cls(bed, uuid, root, data)

    async def snapshot(self) -> tuple[Volume, Volume]:
        """Have both drives go on with new overlays, and let the guest write all its sectors there."""
        below = [await self.leaf(alias) for alias in (ROOT, DATA)]
        root, data = [await self.bed.overlay(leaf) for leaf in below]
        await self.bed.host.snapshot(self.uuid, {ROOT: root.path, DATA: data.path})
        await asyncio.sleep(TICKS_SECONDS)
        return root, data

    async def leaf(self, alias: str) -> Volume:
        """The volume that the drive writes."""
        path = self.drive(alias).source or ""
        name = path.rpartition("/")[2]
        return require(await self.bed.host.volume(self.bed.directory, name), f"the leaf {path}")

    def drive(self, alias: str) -> DeviceObservation:
        """The drive as it is seen."""
        seen = require(self.bed.seen(self.uuid), "the domain is seen")
        return require(seen.device(alias), f"the drive {alias} is seen")

    async def has(self, alias: str, *layers: Volume) -> None:
        """Fail unless the drive has these layers, from the top down, in the running domain and in the definition."""
        drive = self.drive(alias)
        found = (drive.source, *drive.backing)
        expect(found == tuple(layer.path for layer in layers), f"the layers of {alias}: {found}")
        expect(drive.mirror is None, f"{alias} is mirrored: {drive.mirror}")
        defined = read_domain(await self.bed.host.domain_xml(self.uuid, inactive=True)).devices
        source = next(device.source for device in defined if device.alias == alias)
        expect(source == layers[0].path, f"the definition has {source} for {alias}")

    async def ready(self, alias: str) -> None:
        """Wait until the drive's block job can be pivoted."""

        def mirrored() -> bool:
            mirror = self.drive(alias).mirror
            return mirror is not None and mirror.ready

        await eventually(f"the job of {alias} is ready", mirrored, 60)

    async def idle(self, alias: str) -> None:
        """Wait until the drive has no block job."""
        ends = asyncio.get_running_loop().time() + 60
        while await self.bed.host.block_job(self.uuid, alias) is not None:
            expect(asyncio.get_running_loop().time() < ends, f"the job of {alias} ends: not within 60 s")
            await asyncio.sleep(0.1)
        await self.bed.host.refresh(self.uuid)

    async def end(self) -> None:
        """Cut its power. Both disks then end with the same number, or the first with one that is next."""
        await self.bed.host.destroy(self.uuid)
        await self.bed.comes_to(self.uuid, DomainState.SHUT_OFF)


async def last_number(bed: Bed, volume: Volume) -> int:
    """The last number that a guest wrote on a disk; fail if one of the 31 before it is not there."""
    return whole(documents.counted(await bed.shown(volume)), volume.name)


def whole(numbers: Sequence[int], where: str) -> int:
    """The last of the numbers in the sectors; fail if one of the 31 before it is not there."""
    last = max(numbers)
    lost = [n for n in range(max(1, last - documents.COUNTED + 1), last + 1) if numbers[n % documents.COUNTED] != n]
    expect(not lost, f"{where} has numbers up to {last}, but not {lost}")
    return last
