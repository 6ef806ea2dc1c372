"""One file on a web server, read from any byte on: which version of it this is, redirects, and what went wrong.

Nothing here tries again; `download` does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from reconcilers.disk.image import BadImage

STALL_SECONDS = 60.0
"""A server that says nothing for so long, or next to nothing, counts as gone."""
SLOWEST = 1024
"""Bytes a second that count as next to nothing."""
REDIRECTS = 5
_VALIDATOR_MAX = 512
_MOVED = frozenset({301, 302, 303, 307, 308})
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,18})-[0-9]{1,18}/(?P<total>[0-9]{1,18}|\*)")


class Interrupted(Exception):
    """The server, or the way to it, failed; the rest may come when it is asked again."""

    def __init__(self, message: str, *, after: float = 0.0) -> None:
        """after: seconds that the server asked to be left alone."""
        super().__init__(message)
        self.after = after


class Misplaced(Interrupted):
    """The rest cannot be had from this server: begin anew."""


class DownloadFailed(BadImage):
    """The image cannot be had from its server now; what came of it is kept."""

    def __init__(self, message: str) -> None:
        super().__init__("DownloadFailed", message)


@dataclass(frozen=True)
class Version:
    """What a server says of the file: equal as long as it is the same file, as far as one can tell."""

    etag: str | None = None
    """Only a strong one: a weak one says nothing of single bytes."""
    modified: str | None = None
    total: int | None = None
    """Bytes; None where the server does not say."""

    @property
    def validator(self) -> str | None:
        """What a request for the rest names, so that the rest of another file never comes."""
        return self.etag or self.modified


@dataclass(frozen=True)
class Answer:
    """What the server began to send."""

    version: Version
    offset: int
    """The first byte that comes: the one that was asked for, or 0 where the server begins anew."""
    chunks: AsyncIterator[bytes]
    """Raises Interrupted."""


def shown(url: URL | str) -> str:
    """The URL as anybody may read it: without credentials, and without a query, which may be one."""
    url = URL(url)
    url = url.with_user(None) if url.host else url
    return str(url.with_query(None).with_fragment(None)) + ("?…" if url.query_string else "")


@asynccontextmanager
async def opened(connector: aiohttp.BaseConnector | None) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that keeps nothing from one request to the next, over the network or whatever way is given."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=STALL_SECONDS)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=jar
    ) as session:
        yield session


@asynccontextmanager
async def ask(session: aiohttp.ClientSession, url: str, offset: int, known: Version) -> AsyncIterator[Answer]:
    """Ask for the file from offset on, if it is still the known version, else for all of it.

    Raises Interrupted for what may pass, DownloadFailed or BadImage(RedirectRefused) for what will not.
    """
    headers = {"Accept-Encoding": "identity"}
    if offset and known.validator is not None:
        headers |= {"Range": f"bytes={offset}-", "If-Range": known.validator}
    try:
        async with asyncio.timeout(2 * STALL_SECONDS):
            response = await _follow(session, URL(url), headers)
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise DownloadFailed(f"this is no address of a web server: {error}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Interrupted(_said(error)) from error
    async with response:
        yield _answer(response, offset, known)


def _answer(response: aiohttp.ClientResponse, offset: int, known: Version) -> Answer:
    where = f"{response.status} {response.reason or ''}".strip()
    if response.status in _LATER:
        raise Interrupted(f"the server answered {where}", after=_retry_after(response))
    if response.status == 206 and offset:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = None if match is None or match["total"] == "*" else int(match["total"])
        if match is not None and int(match["first"]) == offset and (total is None or known.total in (None, total)):
            return Answer(known, offset, _chunks(response))
        # Neither what was asked for nor all of it: the whole file is asked for next.
        raise Misplaced(f"the server sent another part of the file than byte {offset} and on")
    if response.status == 416 and offset:
        raise Misplaced(f"the server's file has no byte {offset} any more")
    if response.status != 200:
        raise DownloadFailed(f"the server answered {where} for {shown(response.url)}")
    etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    version = Version(
        etag if etag.startswith('"') and len(etag) <= _VALIDATOR_MAX else None,
        modified if 0 < len(modified) <= _VALIDATOR_MAX else None,
        response.content_length,
    )
    return Answer(version, 0, _chunks(response))


async def _follow(session: aiohttp.ClientSession, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
    """The first answer that is no redirect. Credentials in the URL go to its own server only."""
    chain = [url]
    while True:
        response = await session.get(chain[-1], headers=headers, allow_redirects=False)
        if response.status not in _MOVED:
            return response
        location = response.headers.get("Location", "")
        response.close()
        chain.append(_target(chain, location))


def _target(chain: list[URL], location: str) -> URL:
    def refused(why: str) -> BadImage:
        way = " → ".join([*map(shown, chain), *([shown(found)] if found is not None else [])])
        return BadImage("RedirectRefused", f"{why}: {way}")

    before, found = chain[-1], None
    try:
        found = before.join(URL(location)) if location else None
    except ValueError:
        found = None
    if found is None:
        raise refused("the server redirects to nowhere")
    if len(chain) > REDIRECTS:
        raise refused(f"the server redirects more than {REDIRECTS} times")
    if found.scheme not in ("http", "https"):
        raise refused(f"the server redirects to {found.scheme}, which is not followed")
    if not found.host:
        raise refused("the server redirects to nowhere")
    if before.scheme == "https" and found.scheme != "https":
        raise refused("the server redirects from https to http, where anybody on the way could change the image")
    found = found.with_user(None)
    if found.origin() == before.origin() and before.user is not None:
        found = found.with_user(before.user).with_password(before.password)
    return found


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body. A server that dribbles counts as stalled; the time in which nobody asks for bytes does not."""
    clock, waited, came = asyncio.get_running_loop().time, 0.0, 0
    while True:
        begun = clock()
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Interrupted(_said(error)) from error
        if not chunk:
            return
        waited, came = waited + clock() - begun, came + len(chunk)
        if waited >= STALL_SECONDS:
            if came < SLOWEST * STALL_SECONDS:
                raise Interrupted(f"only {came} bytes came in {waited:.0f} s")
            waited, came = 0.0, 0
        yield chunk


def _retry_after(response: aiohttp.ClientResponse) -> float:
    said = response.headers.get("Retry-After", "")
    return min(float(said), STALL_SECONDS) if said.isascii() and said.isdigit() else 0.0


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"the server was silent for {STALL_SECONDS:.0f} s"
    return str(error) or type(error).__name__
