"""Downloads that are cut off, slow, sent elsewhere or lied about: the exact bytes or a typed error, no other image.

Time is virtual; the connections are real ones, on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest

from drivers.errors import HostTimeout
from reconcilers.bandwidth import Bandwidth
from reconcilers.disk.image import BadImage
from reconcilers.disk.webfile import STALL_SECONDS, shown
from tests.unit.reconcilers.importing import MIB, NAME, RAW, Done, Host, Server, qcow2, run, serving, source
from tests.virtual_time import virtual_time
from xmlgen.names import import_name, import_note_name

pytestmark = virtual_time

OTHER = bytes(reversed(RAW))


def now() -> float:
    return asyncio.get_running_loop().time()


async def outcome(importing: Coroutine[Any, Any, Done]) -> BadImage | None:
    """The typed error that the import ended with; None when it succeeded."""
    try:
        await importing
    except BadImage as error:
        return error
    return None


def asked(server: Server) -> list[int]:
    """The byte that each request began at."""
    return [int(r.partition("Range: bytes=")[2].partition("-")[0] or 0) for r in server.requests]


# Cut off -------------------------------------------------------------------------------------------------------------


async def test_what_was_cut_off_goes_on_where_it_was():
    host = Host()
    async with serving(Server(cuts=[400_000, 400_000, None])) as server:
        done = await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    first, second, third = asked(server)
    assert 0 == first < second < third
    assert done.brought.received == MIB, "nothing came twice"
    assert done.brought.interruptions == 2


@pytest.mark.parametrize("changes", [{"ranges": False}, {"etag": None}, {"etag": 'W/"1"'}])
async def test_a_server_that_cannot_go_on_begins_anew(changes):
    host = Host()
    async with serving(Server(cuts=[400_000], **changes)) as server:
        done = await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert done.brought.received > MIB


async def test_the_date_of_a_file_will_do():
    server = Server(cuts=[400_000], etag=None, modified="Wed, 21 Oct 2026 07:28:00 GMT")
    host = Host()
    async with serving(server):
        done = await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert done.brought.received == MIB


async def test_a_file_that_changed_meanwhile_is_begun_anew():
    server, host = Server(OTHER, cuts=[400_000]), Host()

    def change() -> None:
        server.data, server.etag = RAW, '"2"'

    server.before = [lambda: None, change]
    async with serving(server):
        await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW


async def test_a_file_that_changed_under_the_same_tag_is_no_image():
    server, host = Server(OTHER, cuts=[400_000]), Host()
    server.before = [lambda: None, lambda: setattr(server, "data", RAW)]
    async with serving(server):
        with pytest.raises(BadImage) as caught:
            await run(host, source(RAW, server.url))
    assert caught.value.reason == "ChecksumMismatch"
    assert host.files == {}, "the next try begins with nothing"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-99/100"},
        {"Content-Range": "bytes 5-99/1048576"},
        {"Content-Range": "nonsense"},
    ],
)
async def test_another_part_than_was_asked_for_is_not_taken(headers):
    server, host = Server(cuts=[400_000]), Host()
    server.before = [lambda: None, lambda: server.headers.update(headers), server.headers.clear]
    async with serving(server):
        await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert asked(server)[0] == asked(server)[2] == 0


async def test_a_file_that_became_shorter_is_begun_anew():
    server, host = Server(cuts=[400_000], statuses=[200, 416]), Host()
    async with serving(server):
        await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert asked(server)[2] == 0


async def test_who_never_gets_further_gives_up_and_says_so():
    host = Host()
    async with serving(Server(ranges=False, cuts=[400_000] * 50)) as server:
        with pytest.raises(BadImage) as caught:
            await run(host, source(RAW, server.url))
    assert caught.value.reason == "DownloadFailed"
    assert f"of {MIB} bytes" in caught.value.message
    assert len(server.requests) <= 10


@pytest.mark.parametrize("lies", [{"Content-Length": str(2 * MIB)}, {"Content-Length": str(MIB // 2)}])
async def test_a_length_that_is_a_lie(lies):
    host = Host()
    async with serving(Server(headers=lies)) as server:
        with pytest.raises(BadImage) as caught:
            await run(host, source(RAW, server.url), size="4Mi")
    assert caught.value.reason in ("DownloadFailed", "ChecksumMismatch")
    assert NAME not in host.files or caught.value.reason == "DownloadFailed"


async def test_a_server_in_trouble_is_asked_again_when_it_wants():
    host = Host()
    server = Server(cuts=[400_000], statuses=[200, 503, 206], headers={"Retry-After": "17"})
    async with serving(server):
        begun = now()
        await run(host, source(RAW, server.url))
        assert now() - begun >= 17
    assert host.files[NAME] == RAW


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_any_schedule_of_cuts_gives_the_image_or_a_typed_error(length, kind):
    """Cuts at every byte of the header, and anywhere in the body, many times over."""
    header = len(Server(length=length)._whole("").partition(b"\r\n\r\n")[0]) + 4
    data = RAW if kind == "raw" else qcow2()
    chance = random.Random(7)
    schedules: list[list[int | None]] = [[400_000, at] for at in range(header + 3)]
    for _ in range(40):
        cuts = [chance.choice([chance.randrange(MIB), chance.randrange(header + 70_000)]) for _ in range(9)]
        schedules.append([*cuts[: chance.randrange(10)]])
    whole = 0
    for cuts in schedules:
        host = Host()
        async with serving(Server(data, length=length, cuts=list(cuts), ranges=chance.random() < 0.8)) as server:
            for _ in range(10):
                error = await outcome(run(host, source(data, server.url), kind=kind))
                if error is not None:
                    assert error.reason == "DownloadFailed", (cuts, error.message)
                    continue
                stored = host.files[NAME if kind == "raw" else import_name(NAME)]
                assert stored == data, cuts
                whole += 1
                break
    assert whole == len(schedules), "a try after the last cut succeeds"


# Killed controllers --------------------------------------------------------------------------------------------------


async def killed(host: Host, server: Server, seconds: float) -> None:
    task = asyncio.ensure_future(run(host, source(RAW, server.url)))
    await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_successor_goes_on_with_what_proves_to_be_there():
    host = Host()
    async with serving(Server(pace=(20_000, 1.0))) as server:
        await killed(host, server, 22.0)
        there = len(host.files[NAME])
        assert 0 < there < MIB
        note = json.loads(host.files[import_note_name(NAME)].rstrip(b"\0"))
        assert there - 6 * 20_000 <= note["offset"] <= there, "noted every few seconds"
        server.pace = None
        done = await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert done.brought.received == MIB - note["offset"]
    assert asked(server)[1] == note["offset"]


@pytest.mark.parametrize("what", ["torn", "changed", "short", "gone", "noteless", "claims more", "of another"])
async def test_what_a_dead_controller_left_is_never_believed(what):
    host = Host()
    async with serving(Server(pace=(20_000, 1.0))) as server:
        await killed(host, server, 22.0)
        note = json.loads(host.files[import_note_name(NAME)].rstrip(b"\0"))
        match what:
            case "torn":
                host.files[import_note_name(NAME)] = host.files[import_note_name(NAME)][:100]
            case "changed":
                host.files[NAME] = b"\xff" + host.files[NAME][1:]
            case "short":
                host.files[NAME] = host.files[NAME][: note["offset"] - 1]
            case "gone":
                del host.files[NAME]
            case "noteless":
                del host.files[import_note_name(NAME)]
            case "claims more":
                note["offset"] += 10
                host.files[import_note_name(NAME)] = json.dumps(note).encode()
            case "of another":
                note["source"] = "0" * 64
                host.files[import_note_name(NAME)] = json.dumps(note).encode()
        server.pace = None
        done = await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert done.brought.received == MIB, "all of it came anew"


async def test_a_host_that_was_cut_off_is_gone_on_with():
    host = Host()
    async with serving(Server(pace=(20_000, 1.0))) as server:
        task = asyncio.ensure_future(run(host, source(RAW, server.url)))
        await asyncio.sleep(22)
        host.fail["upload"] = HostTimeout("no answer")
        with pytest.raises(HostTimeout):
            await task
        del host.fail["upload"]
        server.pace = None
        done = await run(host, source(RAW, server.url))
    assert host.files[NAME] == RAW
    assert done.brought.received < MIB


# Slow ----------------------------------------------------------------------------------------------------------------


async def test_a_server_that_stalls_is_left_and_asked_again():
    host = Host()
    server = Server(pace=(500_000, 10 * STALL_SECONDS))
    server.before = [lambda: None, lambda: setattr(server, "pace", None)]
    async with serving(server):
        begun = now()
        await run(host, source(RAW, server.url))
        assert now() - begun < 2 * STALL_SECONDS
    assert host.files[NAME] == RAW


@pytest.mark.parametrize("after", [0, 100_000])
async def test_a_server_that_dribbles_is_no_server(after):
    host, server = Host(), Server(cuts=[after] if after else [])
    dribble: tuple[int, float] = (1, 30.0)
    server.before = [
        partial(setattr, server, "pace", None if after else dribble),
        partial(setattr, server, "pace", dribble),
    ]
    async with serving(server):
        begun = now()
        with pytest.raises(BadImage) as caught:
            await run(host, source(RAW, server.url))
        assert caught.value.reason == "DownloadFailed"
        assert now() - begun < 15 * STALL_SECONDS


# Rationed ------------------------------------------------------------------------------------------------------------


async def test_imports_onto_a_domain_share_its_bandwidth():
    rate = MIB // 8
    share = Bandwidth(lambda: rate)
    hosts = [Host(), Host()]
    async with serving(Server()) as server:
        begun = now()
        await asyncio.gather(*(run(host, source(RAW, server.url), share=share) for host in hosts))
        assert 14 <= now() - begun <= 18
    assert [host.files[NAME] for host in hosts] == [RAW, RAW]


async def test_a_changed_bandwidth_holds_for_what_runs():
    rate = [1000]
    share = Bandwidth(lambda: rate[0])
    async with serving(Server()) as server:
        begun = now()
        task = asyncio.ensure_future(run(Host(), source(RAW, server.url), share=share))
        await asyncio.sleep(20)
        assert not task.done()
        rate[0] = 0
        await task
        assert now() - begun < 22


# Redirects -----------------------------------------------------------------------------------------------------------


async def to(location: str, times: int = 1) -> Server:
    return Server(statuses=[302] * times, headers={"Location": location})


async def test_redirects_are_followed_and_credentials_stay_behind():
    host = Host()
    async with serving(Server()) as last, serving(await to(f"{last.url}?x=1")) as first:
        url = first.url.replace("http://", "http://me:secret@")
        await run(host, source(RAW, url))
    assert "Authorization: Basic" in first.requests[0]
    assert "Authorization" not in last.requests[0]
    assert host.files[NAME] == RAW


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("/again", "more than 5 times"),
        ("ftp://example.com/x", "ftp"),
        ("file:///etc/passwd", "file"),
        ("", "nowhere"),
        ("http://[", "nowhere"),
    ],
)
async def test_a_redirect_that_is_not_followed_names_the_way(location, says):
    host = Host()
    async with serving(await to(location, times=50)) as server:
        with pytest.raises(BadImage) as caught:
            await run(host, source(RAW, f"{server.url}?token=secret"))
    assert caught.value.reason == "RedirectRefused"
    assert says in caught.value.message
    assert shown(server.url) in caught.value.message
    assert "secret" not in caught.value.message
    assert len(server.requests) <= 6


def test_what_is_shown_of_an_address():
    assert shown("https://me:secret@example.com/a%20b?token=x#y") == "https://example.com/a%20b?…"


# Another controller's download ---------------------------------------------------------------------------------------

EARLIER = "earlier.raw"


async def half_of_it(host: Host, server: Server, data: bytes, kind: str) -> int:
    """Half a download under another name; how much of it was noted."""
    server.pace = (20_000, 1.0)
    task = asyncio.ensure_future(run(host, source(data, server.url), kind=kind, name=EARLIER))
    await asyncio.sleep(10.5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    server.pace = None
    noted: int = json.loads(host.files[import_note_name(EARLIER)].rstrip(b"\0"))["offset"]
    return noted


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_what_another_controller_has_brought_is_taken_on_under_a_name_of_its_own(kind):
    host, data = Host(), RAW if kind == "raw" else qcow2()
    async with serving(Server(data=data)) as server:
        noted = await half_of_it(host, server, data, kind)
        assert 0 < noted < len(data)
        done = await run(host, source(data, server.url), kind=kind, earlier=("never.raw", EARLIER))
    assert done.brought.received == len(data) - noted
    assert host.files[NAME] == (RAW if kind == "raw" else b"qcow2 of " + import_name(NAME).encode())
    assert not [name for name in host.files if name.startswith(EARLIER)]


@pytest.mark.parametrize("what", ["changed", "gone", "of another"])
async def test_what_another_controller_has_brought_is_never_believed(what):
    host = Host()
    async with serving(Server()) as server:
        await half_of_it(host, server, RAW, "raw")
        note = json.loads(host.files[import_note_name(EARLIER)].rstrip(b"\0"))
        match what:
            case "changed":
                host.files[EARLIER] = b"\xff" + host.files[EARLIER][1:]
            case "gone":
                del host.files[EARLIER]
            case "of another":
                note["source"] = "0" * 64
                host.files[import_note_name(EARLIER)] = json.dumps(note).encode()
        done = await run(host, source(RAW, server.url), earlier=(EARLIER,))
    assert done.brought.received == len(RAW)
    assert host.files[NAME] == RAW
    assert not [name for name in host.files if name.startswith(EARLIER)]
