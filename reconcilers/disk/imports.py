"""Filling a disk from an image: downloaded by the controller, or lying in the storage domain's directory.

The bytes are checked before anything opens them as an image: the header as they begin to arrive, the checksum when they
have all arrived, and only then is something unpacked or converted. A download waits in a file of its own beside the
volume; a raw image for a raw volume is written straight into it. What is compressed is kept as it came until it is
whole: the download can go on where it was cut off, which an unpacked half could not, and nothing is unpacked whose
checksum is wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from crds.disk import Disk, DiskFormat, FileSource, HttpSource
from crds.quantity import from_bytes, to_bytes
from drivers.errors import AlreadyExists, Refused, StorageFull
from drivers.hypervisor import Hypervisor
from drivers.model import Volume
from reconcilers.bandwidth import Bandwidth
from reconcilers.disk.download import Connector, Download
from reconcilers.disk.image import (
    HEADER_BYTES,
    BadImage,
    Compression,
    ImageInfo,
    compression_of,
    inspect,
    is_iso,
    most_bytes,
    too_large,
)
from reconcilers.disk.pieces import gather, pieces
from reconcilers.disk.staging import Note, Staged, Target
from reconcilers.disk.unpack import unpacked
from reconcilers.disk.webfile import DownloadFailed, Version
from reconcilers.jobs import Job
from xmlgen import names
from xmlgen.volume import volume_xml


class NoRoom(StorageFull):
    """The storage is too full for the image."""

    def __init__(self, needed: int, available: int) -> None:
        """needed: 0 where nobody knows."""
        known = f"{needed - available} bytes are missing, {needed} are needed and {available} are free"
        unknown = f"{available} bytes were free, and the image needs more"
        super().__init__(f"the storage is full: {known if needed else unknown}", reason="StorageFull")
        self.needed = needed or available + 1
        """Bytes that have to be free for the next try."""


@dataclass(frozen=True)
class Imported:
    """What an import brought."""

    info: ImageInfo
    grows: bool
    """Whether the volume is to be as large as declared: a CD-ROM is as large as what it holds."""
    received: int
    """Bytes that were read from the source."""
    interruptions: int


@dataclass
class Import:
    """One import into one volume; the names of all its files are made of the volume's."""

    job: Job
    disk: Disk
    host: Hypervisor
    pool: str
    volume: str
    share: Bandwidth
    earlier: tuple[str, ...] = ()
    """Volumes under whose names it was begun before by others: what came there by then is taken on."""
    connector: Connector = lambda: None
    """How web servers are reached."""
    need: int = 0
    """Bytes that are known to be needed on the storage."""

    async def run(self) -> Imported:
        """Make the volume from the Disk's http or file source. Raises BadImage, HypervisorError.

        What is not taken is removed; what a host or a server in trouble leaves behind is what the next try goes on
        with, once it has proved to be right.
        """
        source = self.disk.spec.source
        assert source is not None, "a disk without a source is blank"
        try:
            if source.http is not None:
                return await self._from_web(source.http)
            assert source.file is not None, "the other sources need no import"
            await self._forget_earlier()
            return await self._from_file(source.file)
        except DownloadFailed:
            raise
        except BadImage:
            await self._clear()
            raise
        except NoRoom:
            await self._clear()
            raise
        except StorageFull as error:
            await self._clear()
            available = (await self.host.pool_info(self.pool)).available
            raise NoRoom(self.need if self.need > available else 0, available) from error

    # From a web server ------------------------------------------------------------------------------------------------

    async def _from_web(self, source: HttpSource) -> Imported:
        staged_name = names.import_name(self.volume)
        target = Target(self.host, self.pool, staged_name, self.share)
        algorithm, _, expected = source.checksum.partition(":")
        note = names.import_note_name(self.volume)
        staged = Staged(target, note, f"{source.url} {source.checksum}", algorithm)
        if not await staged.recall((staged_name, self.volume)):
            await self._clear()
            await self._take_on(staged)
        await self._forget_earlier()
        # An earlier try can have come as far as this.
        others = {names.unpacked_name(self.volume), staged_name, self.volume} - {target.name}
        await self._delete(*(others if staged.offset else ()))
        self._all_of(staged.version.total, compressed=False)
        self.job.advance(staged.offset)
        download = Download(source.url, staged, self.share, self._admit, self.job, self.connector)
        await download.run()
        _compare(staged.digest, expected)
        head = b"".join([chunk async for chunk in target.read(min(HEADER_BYTES, target.offset))])
        compression = compression_of(head)
        if compression is None:
            info = self._fits(inspect(head, target.offset))
        else:
            target, head, info = await self._unpack(
                target.read(target.offset), compression, target.offset, source.checksum
            )
        return await self._settle(target.name, head, info, download.received, download.interruptions)

    async def _take_on(self, staged: Staged) -> None:
        """Copy what came under an earlier name. Only what proves to be right counts, as with what is found again."""
        found = [(volume, note) for volume in self.earlier if (note := await self._left(staged, volume)) is not None]
        for volume, note in sorted(found, key=lambda each: -each[1].offset):
            if await staged.take_on(note, self.volume if note.file == volume else names.import_name(self.volume)):
                return
        await self._clear()

    async def _left(self, staged: Staged, volume: str) -> Note | None:
        return await staged.left(names.import_note_name(volume), (names.import_name(volume), volume))

    async def _forget_earlier(self) -> None:
        """Make room. What cannot be removed now is thrown away when the volume is whole."""
        for volume in self.earlier:
            with contextlib.suppress(Refused):
                await self._delete(*names.import_names(volume), volume)

    async def _admit(self, head: bytes, version: Version) -> tuple[str, int]:
        """What begins with head may be stored: where, and the most of it. Raises BadImage, NoRoom."""
        limit, compression = most_bytes(to_bytes(self.disk.spec.size)), compression_of(head)
        name = names.import_name(self.volume)
        if compression is None:
            info = self._fits(inspect(head, version.total or len(head)))
            if self._is_straight(info):
                name = self.volume
            if info.format == DiskFormat.RAW.value:
                limit = to_bytes(self.disk.spec.size)
        if version.total is not None and version.total > limit:
            raise too_large(limit)
        self._all_of(version.total, compressed=compression is not None)
        if version.total is not None:
            await self._delete(name)
            available = (await self.host.pool_info(self.pool)).available
            self.need = version.total
            if available < version.total:
                raise NoRoom(version.total, available)
        return name, limit

    def _all_of(self, total: int | None, *, compressed: bool) -> None:
        """How much there is to do: what is compressed passes by twice."""
        self.job.total = (total or 0) * (2 if compressed else 1)

    # From a file of the directory -------------------------------------------------------------------------------------

    async def _from_file(self, source: FileSource) -> Imported:
        await self._clear()
        name = source.path.rpartition("/")[2]
        found = await self.host.volume(self.pool, name)
        if found is None:
            raise BadImage("ImageNotFound", f"there is no file {name} in the storage domain's directory")
        algorithm, _, expected = source.checksum.partition(":")
        passing = _Passing(self.host.download(self.pool, name), hashlib.new(algorithm), self.job)
        chunks = passing.chunks()
        head = await gather(chunks)
        header, compression = head[:HEADER_BYTES], compression_of(head)
        # A qcow2 file may be smaller or larger than what it holds, and ends where the download ends. Any other is as
        # large as what it holds.
        told = found.format == DiskFormat.QCOW2.value
        self._all_of(found.allocation if told else found.capacity, compressed=compression is not None)
        if compression is None:
            info = self._fits(inspect(header, len(head) if told else found.capacity))
            if (info.format == DiskFormat.QCOW2.value) != told:
                raise _otherwise_read(found)
        straight = compression is None and self._is_straight(info)
        target = Target(self.host, self.pool, self.volume, self.share)
        if straight:
            await target.create()
        async for piece in pieces(head, chunks, self.share):
            if straight:
                await target.append(piece)
        _compare(passing.digest, expected)
        if compression is not None:
            again = self.host.download(self.pool, name)
            target, header, info = await self._unpack(again, compression, passing.seen, source.checksum)
            return await self._settle(target.name, header, info, passing.seen, 0)
        if info.format == DiskFormat.RAW.value:
            info = self._fits(inspect(header, passing.seen))
        return await self._settle(self.volume if straight else name, header, info, passing.seen, 0)

    # Both -------------------------------------------------------------------------------------------------------------

    async def _unpack(
        self, chunks: AsyncIterator[bytes], compression: Compression, size: int, checksum: str
    ) -> tuple[Target, bytes, ImageInfo]:
        """Unpack size bytes, whose checksum is right and must still be, into the volume or a file beside it."""
        algorithm, _, expected = checksum.partition(":")
        self._all_of(size, compressed=True)
        passing = _Passing(chunks, hashlib.new(algorithm), self.job, begun=size)
        bare = unpacked(passing.chunks(), compression)
        head = await gather(bare)
        header = head[:HEADER_BYTES]
        info = self._fits(inspect(header, len(head)))
        straight = self._is_straight(info)
        target = Target(self.host, self.pool, self.volume, self.share)
        target.name = self.volume if straight else names.unpacked_name(self.volume)
        declared = to_bytes(self.disk.spec.size)
        limit = declared if info.format == DiskFormat.RAW.value else most_bytes(declared)
        await target.create()
        async for piece in pieces(head, bare, self.share):
            if target.offset + len(piece) > limit:
                raise too_large(limit)
            await target.append(piece)
        _compare(passing.digest, expected)
        return target, header, self._fits(inspect(header, target.offset))

    async def _settle(self, name: str, head: bytes, info: ImageInfo, received: int, interruptions: int) -> Imported:
        """Convert the file of that name into the volume, if it is not the volume."""
        if name != self.volume:
            await self._convert(name, info)
        raw = self.disk.spec.format is DiskFormat.RAW
        return Imported(info, not (raw and is_iso(head)), received, interruptions)

    async def _convert(self, name: str, info: ImageInfo) -> None:
        """The volume gets the declared format, and its declared size afterwards."""
        seen = await self.host.volume(self.pool, name)
        if seen is None or (info.format == DiskFormat.QCOW2.value) != (seen.format == DiskFormat.QCOW2.value):
            raise _otherwise_read(seen)
        document = volume_xml(self.volume, self.disk.spec.format.value, info.virtual_size)
        try:
            await self.host.copy_volume(self.pool, document, name)
        except AlreadyExists:
            await self._delete(self.volume)
            await self.host.copy_volume(self.pool, document, name)

    def _is_straight(self, info: ImageInfo) -> bool:
        return info.format == self.disk.spec.format.value == DiskFormat.RAW.value

    def _fits(self, info: ImageInfo) -> ImageInfo:
        if info.virtual_size > to_bytes(self.disk.spec.size):
            needed = from_bytes(info.virtual_size)
            raise BadImage("ImageTooLarge", f"the image needs {needed}: declare a size of at least that much")
        return info

    async def _clear(self) -> None:
        await self._delete(*names.import_names(self.volume), self.volume)

    async def _delete(self, *files: str) -> None:
        for name in files:
            await self.host.delete_volume(self.pool, name)


class _Passing:
    """Counts and digests what passes by."""

    def __init__(self, chunks: AsyncIterator[bytes], digest: hashlib._Hash, job: Job, *, begun: int = 0) -> None:
        self.digest = digest
        self.seen = 0
        self._chunks, self._job, self._begun = chunks, job, begun

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self.digest.update(chunk)
            self.seen += len(chunk)
            self._job.advance(self._begun + self.seen)
            yield chunk


def _compare(digest: hashlib._Hash, expected: str) -> None:
    if digest.hexdigest() != expected:
        raise BadImage(
            "ChecksumMismatch",
            f"the image's {digest.name} is {digest.hexdigest()}, not {expected}: "
            "the file has changed, or the declared checksum is wrong",
        )


def _otherwise_read(seen: Volume | None) -> BadImage:
    """The host would read the file as another format than the one that was checked."""
    return BadImage(
        "DamagedImage", f"the host reads the image as {seen.format if seen else 'nothing'}, which it is not"
    )
