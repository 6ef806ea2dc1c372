"""Imports: what is checked before the host opens anything, over a host in memory and a web server on loopback."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from drivers.errors import HostTimeout
from drivers.hypervisor import Volume
from engine.keys import Key
from reconcilers.disk.image import BadImage
from reconcilers.disk.imports import import_image
from reconcilers.jobs import Job
from tests.unit.reconcilers.builders import disk
from tests.unit.reconcilers.fakes import Directory, FakeClock, FakeHypervisor
from xmlgen.names import import_name

PATH, NAME = "/srv/vms", "volume.raw"
MIB = 2**20
RAW = bytes(range(256)) * 4096  # 1 MiB


def qcow2(size: int = MIB, backing: int = 0) -> bytes:
    head = b"QFI\xfb" + struct.pack(">IQIIQI", 3, backing, 0, 16, size, 0) + bytes(36)
    return (head + struct.pack(">QQQII", 0, 0, 0, 4, 104) + bytes(8)).ljust(300_000, b"\0")


class Host(FakeHypervisor):
    """Also converts: the copy is marked by its format."""

    def __init__(self) -> None:
        super().__init__("kvm1", FakeClock())
        self.directories[PATH] = Directory()

    @property
    def files(self) -> dict[str, bytes]:
        return self.directories[PATH].files

    async def list_volumes(self, pool: str, *, max_age: float = 0.0) -> tuple[Volume, ...]:
        found = await super().list_volumes(pool)
        return tuple(
            Volume(
                v.name, v.path, "qcow2" if self.files[v.name].startswith(b"QFI") else "raw", v.capacity, v.allocation
            )
            for v in found
        )

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


async def run(host: Host, declared: dict[str, Any], *, size: str = "1Mi", kind: str = "raw") -> Job:
    job = Job(Key("Disk", "default", "root"), "import")
    await import_image(job, disk(source=declared, size=size, format=kind).build(), host, PATH, NAME)  # type: ignore[arg-type]
    return job


# Files of the directory ----------------------------------------------------------------------------------------------


async def test_a_raw_file_for_a_raw_disk_is_copied():
    host = Host()
    host.files["image.img"] = RAW
    job = await run(host, source(RAW))
    assert host.files == {"image.img": RAW, NAME: RAW}
    assert job.percent == 100


@pytest.mark.parametrize(("data", "kind"), [(RAW, "qcow2"), (qcow2(), "raw"), (qcow2(), "qcow2")])
async def test_any_other_is_converted_by_the_host(data, kind):
    host = Host()
    host.files["image.img"] = data
    await run(host, source(data), kind=kind)
    assert host.files[NAME] == f"{kind} of image.img".encode()
    assert host.files["image.img"] == data


@pytest.mark.parametrize("kind", ["sha256", "sha512"])
async def test_the_checksum_is_compared(kind):
    host = Host()
    host.files["image.img"] = RAW
    await run(host, source(RAW, checksum=checksum(RAW, kind)))
    with pytest.raises(BadImage) as caught:
        await run(host, source(RAW, checksum=checksum(b"other", kind)))
    assert caught.value.reason == "ChecksumMismatch"
    assert hashlib.new(kind, RAW).hexdigest() in caught.value.message
    assert set(host.files) == {"image.img"}, "what was copied is not kept"


async def test_a_file_that_is_not_there():
    with pytest.raises(BadImage) as caught:
        await run(Host(), source(RAW))
    assert caught.value.reason == "ImageNotFound"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(qcow2(backing=4096), "BackingFile"), (qcow2(2 * MIB), "ImageTooLarge"), (RAW * 2, "ImageTooLarge")],
)
async def test_what_is_not_plain_is_never_opened_by_the_host(data, reason):
    host = Host()
    host.files["image.img"] = data
    with pytest.raises(BadImage) as caught:
        await run(host, source(data))
    assert caught.value.reason == reason
    assert "copy_volume" not in [c[0] for c in host.calls]
    assert host.files == {"image.img": data}


class Odd(Host):
    """Reads every image as one format, whatever it is."""

    reads = "iso"

    async def list_volumes(self, pool: str, *, max_age: float = 0.0) -> tuple[Volume, ...]:
        return tuple(replace(v, format=self.reads) for v in await super().list_volumes(pool))


async def test_a_host_that_reads_another_format_than_was_checked():
    host = Odd()
    host.reads = "qcow2"
    host.files["image.img"] = RAW
    with pytest.raises(BadImage) as caught:
        await run(host, source(RAW))
    assert caught.value.reason == "DamagedImage"
    assert host.files == {"image.img": RAW}


async def test_an_installation_image_is_raw_whatever_the_host_calls_it():
    host = Odd()
    host.files["image.img"] = RAW
    await run(host, source(RAW))
    assert host.files[NAME] == RAW


async def test_what_an_earlier_try_left_is_removed_first():
    host = Host()
    host.files.update({"image.img": RAW, NAME: b"half", import_name(NAME): b"half"})
    await run(host, source(RAW))
    assert host.files == {"image.img": RAW, NAME: RAW}


# Downloads -----------------------------------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_get("/image", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/image"

    yield start
    for runner in runners:
        await runner.cleanup()


async def sends(data: bytes) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=data)

    return handler


async def test_a_raw_image_is_written_straight_into_a_raw_disk(serve):
    host, url = Host(), await serve(await sends(RAW))
    job = await run(host, source(RAW, url))
    assert host.files == {NAME: RAW}
    assert (job.total, job.percent) == (MIB, 100)


async def test_any_other_waits_beside_it_and_is_converted(serve):
    data, host = qcow2(), Host()
    await run(host, source(data, await serve(await sends(data))), kind="qcow2")
    assert host.files == {NAME: f"qcow2 of {import_name(NAME)}".encode()}


@pytest.mark.parametrize("data", [qcow2(backing=4096), qcow2(2 * MIB), RAW * 2, b"\x1f\x8b" + RAW])
async def test_what_cannot_be_taken_is_refused_before_it_is_stored(serve, data):
    host = Host()
    with pytest.raises(BadImage):
        await run(host, source(data, await serve(await sends(data))))
    assert "upload" not in [c[0] for c in host.calls]
    assert host.files == {}


async def test_a_wrong_checksum_leaves_nothing(serve):
    host = Host()
    with pytest.raises(BadImage) as caught:
        await run(host, source(b"other", await serve(await sends(RAW))))
    assert caught.value.reason == "ChecksumMismatch"
    assert host.files == {}


async def test_a_server_that_does_not_say_how_much_it_sends(serve):
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(RAW)
        return response

    with pytest.raises(BadImage) as caught:
        await run(Host(), source(RAW, await serve(chunked)))
    assert caught.value.reason == "SizeUnknown"


async def test_a_server_that_says_no(serve):
    async def gone(_: web.Request) -> web.Response:
        raise web.HTTPNotFound

    with pytest.raises(aiohttp.ClientResponseError):
        await run(Host(), source(RAW, await serve(gone)))


async def test_a_download_that_is_cut_leaves_nothing(serve):
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(RAW))})
        await response.prepare(request)
        await response.write(RAW[: MIB // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    host = Host()
    with pytest.raises(aiohttp.ClientError):
        await run(host, source(RAW, await serve(cut)))
    assert host.files == {}


async def test_a_host_that_is_gone_is_no_bad_image(serve):
    host = Host()
    host.fail["upload"] = HostTimeout("no answer")
    with pytest.raises(HostTimeout):
        await run(host, source(RAW, await serve(await sends(RAW))))
