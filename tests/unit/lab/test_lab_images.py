"""The image server answers ranges as RFC 9110 says, and whole files otherwise."""

import functools
import hashlib
import http.client
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.images import ImageHandler, UnsatisfiableRangeError, parse_range, publish
from lab.state import State

CONTENT = bytes(range(100))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", (0, 3)),
        ("bytes=90-", (90, 99)),
        ("bytes=90-500", (90, 99)),
        ("bytes=-5", (95, 99)),
        ("bytes=-500", (0, 99)),
        ("bytes=5-5", (5, 5)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("lines=1-2", None),
    ],
)
def test_ranges(header, expected):
    assert parse_range(header, len(CONTENT)) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_range_behind_the_end(header):
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, len(CONTENT))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    (tmp_path / "image").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(ImageHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    yield client
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_connection_serves_whole_part_head_and_refusal(connection):
    answers = []
    for method, headers in (
        ("GET", {}),
        ("GET", {"Range": "bytes=10-19"}),
        ("HEAD", {"Range": "bytes=10-19"}),
        ("GET", {"Range": "bytes=100-"}),
        ("GET", {"Range": "bytes=0-1,4-5"}),
    ):
        connection.request(method, "/image", headers=headers)
        answer = connection.getresponse()
        answers.append((answer.status, answer.headers.get("Content-Range"), answer.read()))
    assert answers == [
        (200, None, CONTENT),
        (206, "bytes 10-19/100", CONTENT[10:20]),
        (206, "bytes 10-19/100", b""),
        (416, "bytes */100", b""),
        (200, None, CONTENT),
    ]


def test_what_is_absent_is_not_found(connection):
    connection.request("GET", "/nothing", headers={"Range": "bytes=0-1"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 404


def test_published_image_has_its_checksum_beside_it_and_is_copied_once(tmp_path):
    state = State(tmp_path / "lab")
    state.create()
    image = tmp_path / "built"
    image.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    publish(state, image, "guest.qcow2", digest)
    target = state.images / "guest.qcow2"
    assert (state.images / "guest.qcow2.sha256").read_text() == f"{digest}  guest.qcow2\n"
    before = target.stat().st_ino
    publish(state, image, "guest.qcow2", digest)
    assert target.stat().st_ino == before
    target.write_bytes(b"damaged")
    publish(state, image, "guest.qcow2", digest)
    assert target.read_bytes() == CONTENT
