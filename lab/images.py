"""The image server: guest images over HTTP, with ranges, for whoever imports a disk by URL.

Run by the lab inside the control namespaces: `python -m lab.images FOLDER ADDRESS PORT`.
"""

from __future__ import annotations

import functools
import hashlib
import http
import io
import os
import re
import shutil
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

from lab.control import Control
from lab.network import CONTROL_MGMT_ADDRESS, IMAGES_NAME
from lab.processes import end, python, run, spawn, wait_until
from lab.state import State, write_atomically

PORT = 8080
URL = f"http://{IMAGES_NAME}:{PORT}"
_NAME = "images"


def publish(state: State, image: Path, name: str, sha256: str) -> None:
    """Serve this file as `URL/name`, with `URL/name.sha256` beside it (the format of sha256sum)."""
    target = state.images / name
    checksum = target.with_name(f"{name}.sha256")
    line = f"{sha256}  {name}\n"
    if target.exists() and checksum.exists() and checksum.read_text() == line and _has_sum(target, sha256):
        return
    unfinished = target.with_name(f".{name}.unfinished")
    shutil.copyfile(image, unfinished)
    unfinished.replace(target)
    write_atomically(checksum, line)


def up(state: State, control: Control) -> None:
    """Start the server unless it runs; returns when it listens."""
    process = state.process(_NAME)
    if process and control.lives_here(process):
        return
    if process:
        end([process], grace=0)
    command = python("lab.images", str(state.images), CONTROL_MGMT_ADDRESS, str(PORT))
    process = spawn(state, _NAME, command, inside=control.process.pid)
    wait_until("the image server", lambda: _listens(control), 60, process=process, log=state.log(_NAME))


def _has_sum(path: Path, sha256: str) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _listens(control: Control) -> bool:
    shown = run(["ss", "-Htln", f"sport = :{PORT}"], inside=control.process.pid)
    return f":{PORT}" in shown


class UnsatisfiableRangeError(Exception):
    """The requested range begins behind the end of the file."""


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte that a Range header asks for, in a file of `size` bytes.

    None: not one range of bytes, so the whole file is the answer (RFC 9110, 14.2). Raises UnsatisfiableRangeError.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not match or match.group(0).endswith("=-"):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last or size), size - 1)
    if first and last and int(last) < int(first):
        return None
    if start >= size:
        raise UnsatisfiableRangeError
    return start, end


class ImageHandler(SimpleHTTPRequestHandler):
    """Files of a folder, read-only; one range per request is understood."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        path = self.translate_path(self.path)
        wanted = self.headers.get("Range")
        if not wanted or not Path(path).is_file():
            return super().send_head()
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                part = parse_range(wanted, size)
            except UnsatisfiableRangeError:
                self._answer(http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, path, f"*/{size}", 0)
                return None
            if part is None:
                return super().send_head()
            first, last = part
            self._answer(http.HTTPStatus.PARTIAL_CONTENT, path, f"{first}-{last}/{size}", last - first + 1)
            return io.BytesIO(os.pread(file.fileno(), last - first + 1, first))

    def _answer(self, status: http.HTTPStatus, path: str, content_range: str, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Range", f"bytes {content_range}")
        self.send_header("Content-Length", str(length))
        self.end_headers()


def serve(folder: Path, address: str, port: int) -> None:
    """Serve a folder's files until killed."""
    handler = functools.partial(ImageHandler, directory=str(folder))
    ThreadingHTTPServer((address, port), handler).serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
