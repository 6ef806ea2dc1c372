"""Pools, volumes and the bytes in them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator

from drivers.contract import documents
from drivers.contract.bed import PREFIX, Bed, chunks, expect, refused, require
from drivers.errors import AlreadyExists, NotFound, Refused, StorageFull


async def a_pool_is_its_directory(bed: Bed) -> None:
    """A pool is known by its directory: another name, or a slash more, finds the one that is there."""
    first = await bed.host.ensure_pool(bed.pool)
    second = await bed.other.ensure_pool(documents.pool(f"{PREFIX}another", bed.directory + "/"))
    expect(first.path == second.path == bed.directory, f"{first.path}, {second.path}")
    expect(0 < first.available <= first.capacity, f"{first}")
    expect((await bed.host.pool_info(bed.directory)).capacity == first.capacity, "asked anew")


async def a_missing_directory_is_no_pool(bed: Bed) -> None:
    """A directory that is not there is Refused(PathMissing), and is not made."""
    absent = f"{bed.directory}/{PREFIX}absent"
    for _ in range(2):
        await refused(bed.host.ensure_pool(documents.pool(f"{PREFIX}absent", absent)), Refused, "PathMissing")
    await refused(bed.host.volume_names(absent), NotFound)
    await refused(bed.host.volume(absent, "none"), NotFound)


async def a_volume_is_never_overwritten(bed: Bed) -> None:
    """Making a volume that is there raises AlreadyExists, whoever made it and when, and its bytes stay."""
    volume = await bed.volume("raw", 4096)
    expect((volume.format, volume.capacity) == ("raw", 4096), f"{volume}")
    await bed.upload(volume.name, b"x" * 4096)
    for form in ("raw", "qcow2"):
        again = documents.volume(volume.name, form, 2**20)
        await refused(bed.host.create_volume(bed.directory, again), AlreadyExists)
    expect(await bed.download(volume.name) == b"x" * 4096, "the bytes stay")
    expect(volume.path == f"{bed.directory}/{volume.name}", volume.path)


async def a_scan_sees_what_others_made(bed: Bed) -> None:
    """A list is scanned anew unless an older one was asked for; callers at the same time share scans."""
    before = await bed.host.volume_names(bed.directory)
    name = bed.volume_name("raw")
    await bed.other.create_volume(bed.directory, documents.volume(name, "raw", 512))
    expect(await bed.host.volume_names(bed.directory, max_age=3600) == before, "an older list was good enough")
    lists = await asyncio.gather(*(bed.host.volume_names(bed.directory) for _ in range(5)))
    for found in lists:
        expect(name in found, "the new file is in the list")
    await bed.other.delete_volume(bed.directory, name)
    expect(name not in await bed.host.volume_names(bed.directory), "gone from the list")


async def bytes_come_back_as_they_went(bed: Bed) -> None:
    """What is uploaded is downloaded, all of it or its beginning; uploading again replaces it."""
    content = random.Random(1).randbytes(3 * 2**20 + 17)  # noqa: S311 - any bytes do
    volume = await bed.volume("raw", len(content))
    for data in (content[::-1], content):
        await bed.upload(volume.name, data)
    expect(hashlib.sha256(await bed.download(volume.name)).digest() == hashlib.sha256(content).digest(), "all of it")
    expect(await bed.download(volume.name, 70_000) == content[:70_000], "its beginning")
    expect(await bed.download(volume.name, 0) == b"", "nothing of it")
    await refused(bed.download(f"{PREFIX}none.raw"), NotFound)
    await refused(bed.upload(f"{PREFIX}none.raw", b"x"), NotFound)


async def bytes_go_where_they_were_sent(bed: Bed) -> None:
    """An upload at an offset changes that range alone, zeros too; behind the end the volume grows with it."""
    content = random.Random(4).randbytes(2**20)  # noqa: S311 - any bytes do
    volume = await bed.volume("raw", 0)
    await bed.upload(volume.name, content)
    for offset, data in ((300_001, bytes(400_000)), (5, b"x" * 70_000), (2**20 - 9, b"behind the end")):
        await bed.upload(volume.name, data, offset)
        content = content[:offset] + data + content[offset + len(data) :]
        expect(await bed.download(volume.name) == content, f"{len(data)} bytes at {offset}")
    await bed.upload(volume.name, bytes(2**20) + b"y", 2**21)
    content = content.ljust(2**21 + 2**20, b"\0") + b"y"
    expect(await bed.download(volume.name) == content, "with zeros between")
    expect(await bed.download(volume.name, 1000, 2**20) == content[2**20 : 2**20 + 1000], "a part of it")
    expect(await bed.download(volume.name, offset=2**20) == content[2**20 :], "its end")
    expect(await bed.download(volume.name, 1000, len(content)) == b"", "nothing behind it")
    found = require(await bed.host.volume(bed.directory, volume.name), "the volume")
    expect(found.capacity == len(content), f"as large as what was written: {found}")
    expect(found.allocation < len(content), f"zeros that were appended take no room: {found}")


async def an_upload_of_the_wrong_size_is_refused(bed: Bed) -> None:
    """Fewer or more bytes than announced are refused; a source that fails is heard; uploads work afterwards."""
    volume = await bed.volume("raw", 2**20)
    for size in (1000, 100_000):
        call = bed.host.upload(bed.directory, volume.name, chunks(b"x" * 50_000, 10_000), size=size)
        await refused(call, Refused, "SizeMismatch")

    try:
        await bed.host.upload(bed.directory, volume.name, _breaks_off(), size=2000)
    except ConnectionResetError as error:
        expect("the source broke" in str(error), "the source's own error is raised")
    else:
        expect(False, "the source's error is raised")
    await bed.upload(volume.name, b"y" * 1000)
    expect(await bed.download(volume.name, 1000) == b"y" * 1000, "works afterwards")


async def a_volume_grows_and_never_shrinks(bed: Bed) -> None:
    """A volume grows; asking again, or for less, changes nothing."""
    for form in ("qcow2", "raw"):
        volume = await bed.volume(form, 2**20)
        for size in (3 * 2**20, 3 * 2**20, 2**20):
            await bed.host.resize_volume(bed.directory, volume.name, size)
        for host in (bed.host, bed.other):
            found = require(await host.volume(bed.directory, volume.name), "the volume")
            expect(found.capacity == 3 * 2**20, f"{form}: {found.capacity} bytes")
    await refused(bed.host.resize_volume(bed.directory, f"{PREFIX}none.raw", 1), NotFound)


async def a_copy_converts(bed: Bed) -> None:
    """A copy holds what its source holds, in the format asked for; the source stays, and nothing is overwritten."""
    content = random.Random(2).randbytes(2**20)  # noqa: S311 - any bytes do
    source = await bed.volume("raw", len(content))
    await bed.upload(source.name, content)
    middle, back = bed.volume_name("qcow2"), bed.volume_name("raw")
    document = documents.volume(middle, "qcow2", len(content))
    copy = await bed.host.copy_volume(bed.directory, document, source.name)
    expect((copy.format, copy.capacity) == ("qcow2", len(content)), f"{copy}")
    expect(copy.path == f"{bed.directory}/{middle}", copy.path)
    await bed.host.copy_volume(bed.directory, documents.volume(back, "raw", len(content)), middle)
    expect(await bed.download(back) == content, "there and back again")
    expect(await bed.download(source.name) == content, "the source stays")
    await refused(bed.host.copy_volume(bed.directory, document, source.name), AlreadyExists)
    absent = documents.volume(bed.volume_name("raw"), "raw", 1)
    await refused(bed.host.copy_volume(bed.directory, absent, f"{PREFIX}none.raw"), NotFound)


async def a_copy_delays_no_scan(bed: Bed) -> None:
    """While a copy runs, lists, free space and new volumes of the same directory work."""
    content = random.Random(3).randbytes(2**20)  # noqa: S311 - any bytes do
    source = await bed.volume("raw", 64 * 2**20)
    await bed.host.upload(bed.directory, source.name, _repeated(content, 64), size=64 * 2**20)
    name = bed.volume_name("qcow2")
    copying = asyncio.ensure_future(
        bed.host.copy_volume(bed.directory, documents.volume(name, "qcow2", 64 * 2**20), source.name)
    )
    done_meanwhile = 0
    while not copying.done():
        await bed.host.volume_names(bed.directory)
        done_meanwhile += not copying.done()
        await bed.host.pool_info(bed.directory)
        done_meanwhile += not copying.done()
        volume = await bed.volume("raw", 512)
        done_meanwhile += not copying.done()
        await bed.host.delete_volume(bed.directory, volume.name)
    expect((await copying).name == name, "copied")
    expect(done_meanwhile > 0, "something was done meanwhile")


async def _breaks_off() -> AsyncIterator[bytes]:
    yield b"x" * 1000
    raise ConnectionResetError("the source broke")


async def _repeated(content: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield content


async def deleting_may_be_repeated(bed: Bed) -> None:
    """A deleted volume is gone; absent is done, also when another deleted it."""
    volume = await bed.volume()
    for _ in range(2):
        await bed.host.delete_volume(bed.directory, volume.name)
    second = await bed.volume()
    await bed.other.delete_volume(bed.directory, second.name)
    await bed.host.delete_volume(bed.directory, second.name)
    expect(second.name not in await bed.host.volume_names(bed.directory), "gone")
    expect(await bed.host.volume(bed.directory, second.name) is None, "gone")
    await refused(bed.download(second.name), NotFound)


async def what_a_domain_writes_is_kept(bed: Bed) -> None:
    """The image of a running domain is neither deleted nor resized behind it."""
    volume = await bed.volume()
    identifier = await bed.running(documents.disk(volume.path, "qcow2"))
    await refused(bed.host.delete_volume(bed.directory, volume.name), Refused, "VolumeInUse")
    await refused(bed.host.resize_volume(bed.directory, volume.name, 2**24), Refused, "VolumeInUse")
    await bed.host.destroy(identifier)
    await bed.host.delete_volume(bed.directory, volume.name)


async def a_full_storage_is_said_so(bed: Bed) -> None:
    """A volume that cannot fit raises StorageFull and leaves nothing behind."""
    info = await bed.host.pool_info(bed.directory)
    name = bed.volume_name("raw")
    size = info.available + 2**40
    await refused(bed.host.create_volume(bed.directory, documents.volume(name, "raw", size, size)), StorageFull)
    expect(name not in await bed.host.volume_names(bed.directory), "nothing is left")


CHECKS = (
    a_pool_is_its_directory,
    a_missing_directory_is_no_pool,
    a_volume_is_never_overwritten,
    a_scan_sees_what_others_made,
    bytes_come_back_as_they_went,
    bytes_go_where_they_were_sent,
    an_upload_of_the_wrong_size_is_refused,
    a_volume_grows_and_never_shrinks,
    a_copy_converts,
    a_copy_delays_no_scan,
    deleting_may_be_repeated,
    what_a_domain_writes_is_kept,
    a_full_storage_is_said_so,
)
