"""Imports: what is checked before the host opens anything, over a host in memory and a web server on loopback."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard

from drivers.errors import HostTimeout
from drivers.model import Volume
from reconcilers.disk.image import BadImage
from reconcilers.disk.imports import NoRoom
from tests.unit.reconcilers.importing import MIB, NAME, RAW, Host, Server, checksum, qcow2, run, serving, source
from xmlgen.names import import_name, import_note_name, unpacked_name

# Files of the directory ----------------------------------------------------------------------------------------------


async def test_a_raw_file_for_a_raw_disk_is_copied():
    host = Host()
    host.files["image.img"] = RAW
    done = await run(host, source(RAW))
    assert host.files == {"image.img": RAW, NAME: RAW}
    assert done.job.percent == 100


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

    async def volume(self, pool: str, name: str) -> Volume | None:
        found = await super().volume(pool, name)
        return None if found is None else replace(found, format=self.reads)


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


async def test_a_raw_image_is_written_straight_into_a_raw_disk():
    host = Host()
    async with serving(Server()) as server:
        done = await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert set(host.files) == {NAME, import_note_name(NAME)}
    assert (done.job.total, done.job.percent, done.brought.received) == (MIB, 100, MIB)


async def test_any_other_waits_beside_it_and_is_converted():
    data, host = qcow2(), Host()
    async with serving(Server(data)) as server:
        await run(host, source(data, server.url), kind="qcow2")
    assert host.files[NAME] == f"qcow2 of {import_name(NAME)}".encode()


@pytest.mark.parametrize("data", [qcow2(backing=4096), qcow2(2 * MIB), RAW * 2, b"BZh" + RAW])
async def test_what_cannot_be_taken_is_refused_before_it_is_stored(data):
    host = Host()
    async with serving(Server(data)) as server:
        with pytest.raises(BadImage):
            await run(host, source(data, server.url))
    assert "upload" not in [c[0] for c in host.calls]
    assert host.files == {}


async def test_a_wrong_checksum_leaves_nothing():
    host = Host()
    async with serving(Server()) as server:
        with pytest.raises(BadImage) as caught:
            await run(host, source(b"other", server.url))
    assert caught.value.reason == "ChecksumMismatch"
    assert host.files == {}


@pytest.mark.parametrize("data", [RAW, RAW + b"\0", RAW * 40])
async def test_a_server_that_does_not_say_how_much_it_sends_is_bounded_by_the_disk(data):
    host = Host()
    async with serving(Server(data, length=False)) as server:
        if data == RAW:
            await run(host, source(RAW, server.url))
            assert host.files == {NAME: RAW}
            return
        with pytest.raises(BadImage) as caught:
            await run(host, source(data, server.url))
    assert caught.value.reason == "ImageTooLarge"
    assert host.files == {}


async def test_a_server_that_says_no():
    async with serving(Server(statuses=[404])) as server:
        with pytest.raises(BadImage) as caught:
            await run(Host(), source(RAW, f"{server.url}?token=secret"))
    assert caught.value.reason == "DownloadFailed"
    assert "404" in caught.value.message
    assert "secret" not in caught.value.message


async def test_a_host_that_is_gone_is_no_bad_image():
    host = Host()
    host.fail["upload"] = HostTimeout("no answer")
    async with serving(Server()) as server:
        with pytest.raises(HostTimeout):
            await run(host, source(RAW, server.url))


# Room ----------------------------------------------------------------------------------------------------------------


async def test_room_is_looked_for_before_anything_is_stored():
    host = Host(room=MIB - 10)
    async with serving(Server()) as server:
        with pytest.raises(NoRoom) as caught:
            await run(host, source(RAW, server.url))
    assert "10 bytes are missing" in caught.value.message
    assert caught.value.needed == MIB
    assert "upload" not in [c[0] for c in host.calls]
    assert host.files == {}


async def test_a_storage_that_is_full_on_the_way_is_tidied_up():
    host = Host(room=MIB // 2)
    async with serving(Server(length=False)) as server:
        with pytest.raises(NoRoom) as caught:
            await run(host, source(RAW, server.url))
    assert caught.value.needed == MIB // 2 + 1, "tried again when there is more room than there was"
    assert host.files == {}


# Compressed images ---------------------------------------------------------------------------------------------------


def pzstd(data: bytes) -> bytes:
    """Several frames, as pzstd writes them."""
    half = len(data) // 2
    return zstandard.compress(data[:half]) + zstandard.compress(data[half:])


PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, lzma.compress, zstandard.compress, pzstd]


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("where", ["web", "file"])
async def test_a_compressed_image_is_unpacked(pack, where):
    host, packed = Host(), pack(RAW)
    async with serving(Server(packed)) as server:
        if where == "file":
            host.files["image.img"] = packed
        done = await run(host, source(packed, server.url if where == "web" else ""))
    assert host.files[NAME] == RAW
    assert done.job.percent == 100


async def test_a_compressed_qcow2_is_converted():
    host, packed = Host(), zstandard.compress(qcow2())
    async with serving(Server(packed)) as server:
        await run(host, source(packed, server.url), kind="qcow2")
    assert host.files[NAME] == f"qcow2 of {unpacked_name(NAME)}".encode()
    assert host.files[unpacked_name(NAME)] == qcow2()


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda pack: pack(RAW)[:-9], "DamagedImage"),
        (lambda pack: pack(RAW)[: len(pack(RAW)) // 2 - 5], "DamagedImage"),
        (lambda pack: pack(bytes(40 * MIB)), "ImageTooLarge"),
        (lambda pack: pack(qcow2(2 * MIB)), "ImageTooLarge"),
        (lambda pack: pack(qcow2(backing=4096)), "BackingFile"),
        (lambda pack: pack(pack(RAW)), "UnsupportedFormat"),
        (lambda pack: pack(RAW) + b"behind", "DamagedImage"),
        (lambda pack: pack(b""), "EmptyImage"),
    ],
)
async def test_a_compressed_image_that_is_not_taken(pack, spoil, reason):
    host, packed = Host(room=8 * MIB), spoil(pack)
    async with serving(Server(packed)) as server:
        with pytest.raises(BadImage) as caught:
            await run(host, source(packed, server.url))
    assert caught.value.reason == reason
    assert host.files == {}
    assert "copy_volume" not in [c[0] for c in host.calls]


async def test_nothing_is_unpacked_whose_checksum_is_wrong():
    host, packed = Host(), b"\x1f\x8b" + RAW
    async with serving(Server(packed)) as server:
        with pytest.raises(BadImage) as caught:
            await run(host, source(b"other", server.url))
    assert caught.value.reason == "ChecksumMismatch"


# CD-ROMs -------------------------------------------------------------------------------------------------------------


def iso(size: int = MIB // 2) -> bytes:
    return (bytes(0x8001) + b"CD001").ljust(size, b"\x01")


@pytest.mark.parametrize(("data", "kind", "grows"), [(iso(), "raw", False), (RAW, "raw", True), (iso(), "qcow2", True)])
async def test_a_cdrom_stays_as_large_as_it_is(data, kind, grows):
    host = Host()
    async with serving(Server(data)) as server:
        done = await run(host, source(data, server.url), kind=kind)
    assert done.brought.grows is grows
