"""What tests of imports stand on: images, a host that also converts, and a web server that fails as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from drivers.errors import StorageFull
from drivers.model import Volume
from engine.keys import Key
from reconcilers.bandwidth import Bandwidth
from reconcilers.disk.imports import Import, Imported
from reconcilers.jobs import Job
from tests.unit.reconcilers.builders import disk
from tests.unit.reconcilers.fakes import Directory, FakeClock, FakeHypervisor

PATH, NAME = "/srv/vms", "volume.raw"
MIB = 2**20
RAW = bytes(range(256)) * 4096  # 1 MiB


def qcow2(size: int = MIB, backing: int = 0) -> bytes:
    head = b"QFI\xfb" + struct.pack(">IQIIQI", 3, backing, 0, 16, size, 0) + bytes(36)
    return (head + struct.pack(">QQQII", 0, 0, 0, 4, 104) + bytes(8)).ljust(300_000, b"\0")


class Host(FakeHypervisor):
    """Also converts: the copy is marked by its format. `room`: bytes that all files may have together."""

    def __init__(self, room: int = 100 * MIB) -> None:
        super().__init__("kvm1", FakeClock())
        self.directories[PATH] = Directory()
        self.room = room

    @property
    def files(self) -> dict[str, bytes]:
        return self.directories[PATH].files

    async def pool_info(self, pool: str) -> Any:
        self.directories[PATH].available = self.room - sum(map(len, self.files.values()))
        return await super().pool_info(pool)

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], *, size: int, offset: int = 0) -> None:
        if offset + size + sum(len(held) for other, held in self.files.items() if other != name) > self.room:
            raise StorageFull("no space left on device")
        await super().upload(pool, name, data, size=size, offset=offset)

    async def volume(self, pool: str, name: str) -> Volume | None:
        found = await super().volume(pool, name)
        read = "qcow2" if found is not None and self.files[name].startswith(b"QFI") else "raw"
        return None if found is None else replace(found, format=read)

    async def copy_volume(self, pool: str, xml: str, source: str) -> Volume:
        self._called("copy_volume", source)
        name, kind = re.search("<name>(.*?)</name>", xml), re.search('format type="(.*?)"', xml)
        assert name is not None
        assert kind is not None
        self.files[name[1]] = f"{kind[1]} of {source}".encode()
        return Volume(name[1], f"{pool}/{name[1]}", kind[1], MIB, 0)


def checksum(data: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, data).hexdigest()}"


def source(data: bytes, url: str = "", **changes: Any) -> dict[str, Any]:
    found = {"checksum": checksum(data), **changes}
    return {"http": {"url": url, **found}} if url else {"file": {"path": "image.img", **found}}


@dataclass
class Done:
    """An import that has succeeded."""

    job: Job
    brought: Imported


def unlimited() -> Bandwidth:
    return Bandwidth(lambda: 0)


async def run(
    host: Host,
    declared: dict[str, Any],
    *,
    size: str = "1Mi",
    kind: str = "raw",
    share: Bandwidth | None = None,
    name: str = NAME,
    earlier: tuple[str, ...] = (),
) -> Done:
    job = Job(Key("Disk", "default", "root"), "import")
    built = disk(source=declared, size=size, format=kind).build()
    importing = Import(job, built, host, PATH, name, share or unlimited(), earlier)  # type: ignore[arg-type]
    return Done(job, await importing.run())


@dataclass
class Server:
    """A web server of one file, spoken byte by byte. Each answer takes the next fault of each list, if there is one."""

    data: bytes = RAW
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    length: bool = True
    """Whether it says how long the file is; else it sends chunks."""
    cuts: list[int | None] = field(default_factory=list)
    """After so many bytes of the answer, header included, the connection is cut; None: it is not."""
    statuses: list[int] = field(default_factory=list)
    before: list[Callable[[], None]] = field(default_factory=list)
    """Called before an answer is made."""
    pace: tuple[int, float] | None = None
    """Bytes that are sent at once, and the pause after each."""
    requests: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Sent as well, or instead."""
    url: str = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(request)
            if self.before:
                self.before.pop(0)()
            whole = self._whole(request)
            cut = self.cuts.pop(0) if self.cuts else None
            await self._send(writer, whole if cut is None else whole[:cut])
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _whole(self, request: str) -> bytes:
        asked = re.search(r"Range: bytes=(\d+)-", request)
        if_range = re.search(r"If-Range: (.*)\r", request)
        part = self.ranges and asked is not None and if_range is not None
        part = part and if_range[1] in (self.etag, self.modified)  # type: ignore[index]
        first = int(asked[1]) if part and asked is not None else 0
        status = self.statuses.pop(0) if self.statuses else 206 if part else 200
        body = self.data[first:] if status < 300 else b""
        headers = {"Connection": "close"}
        headers |= {"ETag": self.etag} if self.etag else {}
        headers |= {"Last-Modified": self.modified} if self.modified else {}
        headers |= {"Content-Length": str(len(body))} if self.length else {"Transfer-Encoding": "chunked"}
        headers |= {"Content-Range": f"bytes {first}-{len(self.data) - 1}/{len(self.data)}"} if status == 206 else {}
        lines = [f"HTTP/1.1 {status} Said", *(f"{k}: {v}" for k, v in {**headers, **self.headers}.items())]
        if not self.length:
            size = 50_000
            parts = [body[at : at + size] for at in range(0, len(body), size)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size, pause = self.pace or (len(data) or 1, 0.0)
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            if self.pace is not None:
                await asyncio.sleep(pause)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    """Have the server listen on loopback."""
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/image"
    try:
        yield server
    finally:
        listening.close()
