"""Filling a disk from an image: downloaded by the controller, or lying in the storage domain's directory.

The bytes are checked before anything opens them as an image: the header as they begin to arrive, the checksum when they
have all arrived. A downloaded image waits in a file of its own beside the volume; only what was found good is converted
into the volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp

from crds.disk import Disk, DiskFormat, FileSource, HttpSource
from crds.quantity import from_bytes, to_bytes
from drivers.errors import AlreadyExists
from drivers.hypervisor import Hypervisor, Volume
from reconcilers.disk.image import HEADER_BYTES, BadImage, ImageInfo, inspect
from reconcilers.jobs import Job
from xmlgen import names
from xmlgen.volume import volume_xml

CHUNK = 262144
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)


async def import_image(job: Job, disk: Disk, host: Hypervisor, pool: str, volume: str) -> None:
    """Make the volume from the Disk's http or file source. Raises BadImage, HypervisorError, aiohttp.ClientError.

    Whatever an earlier try has left under the names of this Disk's volume is removed first: without a record beside it,
    it was never whole. A raw image for a raw volume is written straight into it; any other waits in a file of its own
    until it was found good, and the host converts it.
    """
    source = disk.spec.source
    assert source is not None, "a disk without a source is blank"
    staged = names.import_name(volume)
    await _clear(host, pool, volume, staged)
    try:
        if source.http is not None:
            info = await _download(job, source.http, disk, host, pool, volume, staged)
        else:
            assert source.file is not None, "the other sources need no import"
            info = await _examine(job, source.file, disk, host, pool, volume)
            staged = source.file.path.rpartition("/")[2]
    except (BadImage, aiohttp.ClientError, TimeoutError):
        await _clear(host, pool, volume, staged)
        raise
    if not _is_straight(info, disk):
        await _convert(host, pool, disk, volume, staged, info)
    if source.http is not None:
        await host.delete_volume(pool, staged)


async def _clear(host: Hypervisor, pool: str, *volumes: str) -> None:
    for name in volumes:
        await host.delete_volume(pool, name)


def _is_straight(info: ImageInfo, disk: Disk) -> bool:
    return info.format == disk.spec.format.value == DiskFormat.RAW.value


async def _download(
    job: Job, source: HttpSource, disk: Disk, host: Hypervisor, pool: str, volume: str, staged: str
) -> ImageInfo:
    """Download the image, straight into the volume or into the staged file, and check it."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False))
        response = await stack.enter_async_context(session.get(source.url, max_redirects=5))
        response.raise_for_status()
        if response.content_length is None:
            raise BadImage("SizeUnknown", "the server does not say how large the image is (no Content-Length)")
        job.total = response.content_length
        check = _Check(source.checksum, disk, job.total)
        chunks = response.content.iter_chunked(CHUNK)
        head = await check.begin(chunks)
        target = volume if _is_straight(check.info, disk) else staged
        await host.create_volume(pool, volume_xml(target, "raw", job.total))
        await host.upload(pool, target, check.passing(head, chunks, job), size=job.total)
    check.finish()
    return check.info


async def _examine(job: Job, source: FileSource, disk: Disk, host: Hypervisor, pool: str, volume: str) -> ImageInfo:
    """Check a file of the directory; on the way, if it is raw and so is the volume, copy it there."""
    name = source.path.rpartition("/")[2]
    found = next((v for v in await host.list_volumes(pool) if v.name == name), None)
    if found is None:
        raise BadImage("ImageNotFound", f"there is no file {name} in the storage domain's directory")
    # A qcow2 file may be smaller or larger than what it holds, and ends where the download ends. Any other is as large
    # as what it holds.
    size = found.capacity if found.format != DiskFormat.QCOW2.value else None
    job.total = found.allocation if size is None else size
    check = _Check(source.checksum, disk, size)
    chunks = host.download(pool, name)
    head = await check.begin(chunks)
    if size is None and inspect(head[:HEADER_BYTES], len(head)).format != DiskFormat.QCOW2.value:
        raise _otherwise_read(found)
    passing = check.passing(head, chunks, job)
    if size is not None and _is_straight(check.info, disk):
        await host.create_volume(pool, volume_xml(volume, "raw", size))
        await host.upload(pool, volume, passing, size=size)
    else:
        async for _ in passing:
            pass
    check.finish()
    return check.info


class _Check:
    """Looks at an image's bytes as they pass by."""

    def __init__(self, checksum: str, disk: Disk, size: int | None) -> None:
        algorithm, _, self._expected = checksum.partition(":")
        self._digest = hashlib.new(algorithm)
        self._limit = to_bytes(disk.spec.size)
        self._size = size
        self._seen = 0
        self._head = b""

    async def begin(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Read the header, and refuse the image before anything of it is stored. Returns what was read."""
        head = b""
        async for chunk in chunks:
            head += chunk
            if len(head) >= HEADER_BYTES:
                break
        self._head = head[:HEADER_BYTES]
        if self._size is not None:
            self._fits(inspect(self._head, self._size))
        return head

    async def passing(self, head: bytes, chunks: AsyncIterator[bytes], job: Job) -> AsyncIterator[bytes]:
        """All bytes, the header first, each one counted and digested."""
        for start in range(0, len(head), CHUNK):
            yield self._take(head[start : start + CHUNK], job)
        async for chunk in chunks:
            yield self._take(chunk, job)

    def finish(self) -> None:
        """Raise BadImage unless everything came and is what was declared."""
        if self._size is not None and self._seen != self._size:
            raise BadImage("DownloadCut", f"only {self._seen} of {self._size} bytes came")
        if self._digest.hexdigest() != self._expected:
            raise BadImage(
                "ChecksumMismatch",
                f"the image's {self._digest.name} is {self._digest.hexdigest()}, not {self._expected}: "
                "the file has changed, or the declared checksum is wrong",
            )
        self._fits(self.info)

    @property
    def info(self) -> ImageInfo:
        """What the image is."""
        return inspect(self._head, self._seen if self._size is None else self._size)

    def _take(self, chunk: bytes, job: Job) -> bytes:
        self._digest.update(chunk)
        self._seen += len(chunk)
        job.advance(self._seen)
        return chunk

    def _fits(self, info: ImageInfo) -> None:
        if info.virtual_size > self._limit:
            raise BadImage(
                "ImageTooLarge",
                f"the image needs {from_bytes(info.virtual_size)}: declare a size of at least that much",
            )


async def _convert(host: Hypervisor, pool: str, disk: Disk, volume: str, staged: str, info: ImageInfo) -> None:
    """Convert the image into the volume, in the declared format; it gets its declared size afterwards."""
    seen = next((v for v in await host.list_volumes(pool) if v.name == staged), None)
    if seen is None or (info.format == DiskFormat.QCOW2.value) != (seen.format == DiskFormat.QCOW2.value):
        raise _otherwise_read(seen)
    document = volume_xml(volume, disk.spec.format.value, to_bytes(disk.spec.size))
    try:
        await host.copy_volume(pool, document, staged)
    except AlreadyExists:
        await host.delete_volume(pool, volume)
        await host.copy_volume(pool, document, staged)


def _otherwise_read(seen: Volume | None) -> BadImage:
    """The host would read the file as another format than the one that was checked."""
    return BadImage(
        "DamagedImage", f"the host reads the image as {seen.format if seen else 'nothing'}, which it is not"
    )
