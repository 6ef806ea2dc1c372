"""A reverse proxy before the API server that does what its rules say: late, lost, refused, cut, silent.

Run by the lab, in the control namespaces: `python -m lab.apiproxy PKI PORT UPSTREAM_PORT`. Bearer tokens pass as they
are. Who shows a certificate of the lab is announced to the API server as the same user, the way Kubernetes provides
for proxies (X-Remote-User, believed from the holder of the front proxy's certificate only).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, MultiDict

from lab.apifaults import CONTROL_PATH, Action, Rule
from lab.errors import LabError
from lab.forward import LOOPBACK

_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host"}
_IDENTITY = "x-remote-"
_REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
_BODY_LIMIT = 16 << 20
_LOOK_SECONDS = 0.05
"""How soon an open watch follows a change of the rules."""


class Faults:
    """The rules that hold, who is hit by them, and how often that was."""

    def __init__(self, now: Callable[[], float] = time.monotonic, rng: random.Random | None = None) -> None:
        self._now = now
        self._rng = rng or random.Random()
        self._rules: list[tuple[Rule, float]] = []
        self.counts: collections.Counter[str] = collections.Counter()

    def set(self, rules: list[Rule]) -> None:
        """These and no others."""
        now = self._now()
        self._rules = [(rule, now + rule.lasts if rule.lasts is not None else float("inf")) for rule in rules]

    @property
    def rules(self) -> list[Rule]:
        """Those whose time is not over."""
        now = self._now()
        return [rule for rule, until in self._rules if now < until]

    def hits(self, method: str, path: str, *, watch: bool) -> Iterator[Rule]:
        """Delays, then at most one other rule (dice are cast here). Cuts and silences are asked for with `open`."""
        fitting = [
            rule
            for rule in self.rules
            if rule.fits(method, path, watch=watch) and rule.action not in (Action.CUT, Action.SILENCE)
        ]
        for rule in sorted(fitting, key=lambda rule: rule.action is not Action.DELAY):
            if self._rng.random() < rule.probability:
                self.counts[rule.action] += 1
                yield rule
                if rule.action is not Action.DELAY:
                    return

    def open(self, path: str, action: Action) -> Rule | None:
        """The rule of this action that holds now for an open watch of this path."""
        fitting = (r for r in self.rules if r.action is action and r.fits("GET", path, watch=True))
        return next(fitting, None)


class Proxy:
    """The server's handlers."""

    def __init__(self, faults: Faults, upstream: str, known: aiohttp.ClientSession, bare: aiohttp.ClientSession):
        """`known` has the front proxy's certificate, `bare` none."""
        self.faults = faults
        self._upstream = upstream
        self._known = known
        self._bare = bare
        self._watches = 0

    async def control(self, request: web.Request) -> web.Response:
        """GET: rules and counts. PUT: rules."""
        if request.method == "PUT":
            try:
                self.faults.set([Rule.of(document) for document in await request.json()])
            except LabError as error:
                return web.Response(status=400, text=str(error))
        rules = [asdict(rule) for rule in self.faults.rules]
        return web.json_response({"rules": rules, "counts": {**self.faults.counts, "watches": self._watches}})

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Any other request."""
        self.faults.counts["requests"] += 1
        body, path, query = await request.read(), request.path, MultiDict(request.query)
        watch = query.get("watch", "").lower() in ("1", "true")
        lose_reply = False
        for rule in self.faults.hits(request.method, path, watch=watch):
            match rule.action:
                case Action.DELAY:
                    await asyncio.sleep(rule.seconds)
                case Action.ANSWER:
                    return _refusal(rule)
                case Action.LOSE_REQUEST:
                    return _broken(request)
                case Action.PAGE:
                    asked = int(query.get("limit", rule.limit))
                    query["limit"] = str(min(asked, rule.limit) if asked else rule.limit)
                case Action.LOSE_REPLY:
                    lose_reply = True
        session, headers = self._as_client(request)
        url = f"{self._upstream}{request.rel_url.raw_path}"
        try:
            async with session.request(request.method, url, params=query, headers=headers, data=body) as answer:
                if lose_reply:
                    await answer.read()
                    return _broken(request)
                return await self._answer(request, answer, watch=watch)
        except aiohttp.ClientError:
            return _broken(request)

    async def _answer(self, request: web.Request, answer: aiohttp.ClientResponse, *, watch: bool) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_passed(answer.headers))
        await response.prepare(request)
        if watch:
            await self._stream(request, response, answer)
        else:
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, answer: aiohttp.ClientResponse) -> None:
        """Carry a watch as long as the rules let it live."""
        began, read = time.monotonic(), asyncio.ensure_future(answer.content.readany())
        silenced = False
        self._watches += 1
        try:
            while request.transport is not None:
                cut = self.faults.open(request.path, Action.CUT)
                if cut is not None and time.monotonic() - began >= cut.seconds:
                    self.faults.counts[Action.CUT] += 1
                    request.transport.abort()
                    return
                if not silenced and self.faults.open(request.path, Action.SILENCE) is not None:
                    self.faults.counts[Action.SILENCE] += 1
                    silenced = True
                if silenced:
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                await asyncio.wait([read], timeout=_LOOK_SECONDS)
                if read.done():
                    chunk = read.result()
                    if not chunk:
                        return
                    await response.write(chunk)
                    read = asyncio.ensure_future(answer.content.readany())
        except (aiohttp.ClientError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._watches -= 1
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)

    def _as_client(self, request: web.Request) -> tuple[aiohttp.ClientSession, CIMultiDict[str]]:
        headers = _passed(request.headers)
        certificate = request.get_extra_info("peercert")
        if not certificate:
            return self._bare, headers
        for part in (pair for group in certificate["subject"] for pair in group):
            if part[0] == "commonName":
                headers.add("X-Remote-User", part[1])
            elif part[0] == "organizationName":
                headers.add("X-Remote-Group", part[1])
        return self._known, headers


def _passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Headers that travel on: no one names himself to the API server but by his own certificate or token."""
    kept = [(n, v) for n, v in headers.items() if n.lower() not in _HOP_BY_HOP and not n.lower().startswith(_IDENTITY)]
    return CIMultiDict(kept)


def _refusal(rule: Rule) -> web.Response:
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "planted by the lab",
        "reason": _REASONS.get(rule.status, "Unknown"),
        "code": rule.status,
    }
    headers = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
    return web.Response(status=rule.status, text=json.dumps(status), headers=headers, content_type="application/json")


def _broken(request: web.Request) -> web.Response:
    """Break the connection: the answer that aiohttp insists on reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


async def serve(pki: Path, port: int, upstream: int) -> None:
    """Serve until killed."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    serving.load_cert_chain(pki / "apiproxy" / "serving.crt", pki / "apiproxy" / "serving.key")
    serving.verify_mode = ssl.CERT_OPTIONAL
    known = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    known.load_cert_chain(pki / "apiproxy" / "front-proxy.crt", pki / "apiproxy" / "front-proxy.key")
    bare = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    async with _session(known) as as_proxy, _session(bare) as as_client:
        proxy = Proxy(Faults(), f"https://{LOOPBACK}:{upstream}", as_proxy, as_client)
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", CONTROL_PATH, proxy.control)
        application.router.add_route("*", "/{path:.*}", proxy.forward)
        runner = web.AppRunner(application, access_log=None, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, port, ssl_context=serving).start()
        await asyncio.Event().wait()


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        # Nothing is asked for that the client did not ask for.
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
