"""A file on the host that an image is written to piece by piece, and the note beside it: how far that came, of what.

The note is written every few seconds, so a dead controller's successor goes on where it was. The note is not believed:
what lies in the file is read back from the host and digested, and only bytes with the digest that the note has for them
count. So the checksum in the end is over what lies there. A note has one block; it is written over in place, and one
that is torn is none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import asdict, dataclass

from drivers.errors import AlreadyExists, NotFound
from drivers.hypervisor import Hypervisor
from engine import metrics
from reconcilers.bandwidth import Bandwidth
from reconcilers.disk.pieces import PIECE, pieces, sliced
from reconcilers.disk.webfile import Version
from xmlgen.volume import volume_xml

NOTE_BYTES = 4096
NOTE_SECONDS = 5.0


@dataclass(frozen=True)
class Note:
    """How far a download came."""

    source: str
    """What is downloaded: a digest of the address and the checksum."""
    file: str
    """Name of the file that it goes to."""
    offset: int
    digest: str
    """Of the bytes before offset."""
    etag: str | None
    modified: str | None
    total: int
    format: int = 1


class Target:
    """A file that is made anew and written from its beginning to its end."""

    def __init__(self, host: Hypervisor, pool: str, name: str, share: Bandwidth) -> None:
        self.host, self.pool, self.name = host, pool, name
        self.offset = 0
        self.share = share

    async def create(self) -> None:
        """Make the file, empty; one of an earlier try goes."""
        await remake(self.host, self.pool, self.name, 0)
        self.offset = 0

    async def append(self, piece: bytes, *, again: bool = False) -> None:
        """Write a piece behind what is there. Zeros take no room. `again`: it lay on the host already."""
        await self.share.take(len(piece))
        await self.host.upload(self.pool, self.name, sliced(piece), size=len(piece), offset=self.offset)
        self.offset += len(piece)
        if not again:
            metrics.import_bytes.inc(len(piece))

    async def read(self, length: int) -> AsyncIterator[bytes]:
        """Read the first bytes back, in parts: others get their turn between them."""
        for start in range(0, length, PIECE):
            part = self.host.download(self.pool, self.name, limit=min(PIECE, length - start), offset=start)
            async for chunk in part:
                yield chunk


class Staged:
    """A download's file with its note."""

    def __init__(self, target: Target, note_name: str, source: str, algorithm: str) -> None:
        """algorithm: of the declared checksum."""
        self.target = target
        self.version = Version()
        self.digest = hashlib.new(algorithm)
        self._algorithm = algorithm
        self._note_name = note_name
        self._source = hashlib.sha256(source.encode()).hexdigest()
        self._noted_at = float("-inf")
        self._has_note = False

    @property
    def offset(self) -> int:
        """Bytes that lie there."""
        return self.target.offset

    async def recall(self, named: tuple[str, ...]) -> bool:
        """Find what an earlier try left in one of the named files, and take from it what proves to be right.

        False: there is nothing to go on from.
        """
        note = await self.left(self._note_name, named)
        if note is None:
            return False
        self.target.name = note.file
        digest, read = hashlib.new(self._algorithm), 0
        try:
            async for chunk in self.target.read(note.offset):
                digest.update(chunk)
                read += len(chunk)
        except NotFound as error:
            if error.reason == "NoPool":
                raise
            return False
        if read != note.offset or digest.hexdigest() != note.digest:
            return False
        self.digest, self.target.offset, self._has_note = digest, read, True
        self.version = Version(note.etag, note.modified, note.total)
        return True

    async def left(self, note_name: str, named: Collection[str]) -> Note | None:
        """What another controller says that it has brought of the same image, into one of the named files."""
        note = await self._read_note(note_name)
        return note if note is not None and note.source == self._source and note.file in named else None

    async def take_on(self, note: Note, name: str) -> bool:
        """Copy what another controller has brought into the file of that name. False: it did not prove to be right."""
        theirs = Target(self.target.host, self.target.pool, note.file, self.target.share)
        await self.begin(name, Version(note.etag, note.modified, note.total))
        try:
            async for piece in pieces(b"", theirs.read(note.offset), self.target.share):
                await self.target.append(piece, again=True)
                self.digest.update(piece)
        except NotFound as error:
            if error.reason == "NoPool":
                raise
        if self.offset == note.offset and self.digest.hexdigest() == note.digest:
            await self.note()
            return True
        self.target.offset, self.version, self.digest = 0, Version(), hashlib.new(self._algorithm)
        return False

    async def begin(self, name: str, version: Version) -> None:
        """Begin from nothing, in the file of that name."""
        self.target.name, self.version, self.digest = name, version, hashlib.new(self._algorithm)
        await self._forget()
        await self.target.create()

    async def append(self, piece: bytes) -> None:
        """Write the next piece; from time to time, note it."""
        await self.target.append(piece)
        self.digest.update(piece)
        now = asyncio.get_running_loop().time()
        if now - self._noted_at >= NOTE_SECONDS:
            await self.note()

    async def note(self) -> None:
        """Note how far it came. Where the size is not known nothing is noted: what lies behind could not be told."""
        version = self.version
        if version.total is None:
            return
        if not self._has_note:
            await remake(self.target.host, self.target.pool, self._note_name, NOTE_BYTES)
            self._has_note = True
        hexdigest = self.digest.hexdigest()
        note = Note(
            self._source, self.target.name, self.offset, hexdigest, version.etag, version.modified, version.total
        )
        data = json.dumps(asdict(note), sort_keys=True).encode().ljust(NOTE_BYTES, b"\0")
        await self.target.host.upload(self.target.pool, self._note_name, sliced(data), size=NOTE_BYTES)
        self._noted_at = asyncio.get_running_loop().time()

    async def _forget(self) -> None:
        await self.target.host.delete_volume(self.target.pool, self._note_name)
        self._has_note, self._noted_at = False, float("-inf")

    async def _read_note(self, name: str) -> Note | None:
        host, pool = self.target.host, self.target.pool
        try:
            data = b"".join([chunk async for chunk in host.download(pool, name, limit=NOTE_BYTES)])
        except NotFound as error:
            if error.reason == "NoPool":
                raise
            return None
        try:
            note = Note(**json.loads(data.rstrip(b"\0")))
        except (ValueError, TypeError):
            return None
        whole = isinstance(note.offset, int) and isinstance(note.total, int) and 0 < note.offset <= note.total
        return note if whole and note.format == 1 else None


async def remake(host: Hypervisor, pool: str, name: str, size: int) -> None:
    """Have a new raw file of that name, empty or of zeros."""
    document = volume_xml(name, "raw", size)
    try:
        await host.create_volume(pool, document)
    except AlreadyExists:
        await host.delete_volume(pool, name)
        await host.create_volume(pool, document)
