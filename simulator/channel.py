"""The way between one controller and the API server: it takes time, and everything that can befall a request does.

A request that has left arrives, whatever becomes of its sender. An answer reaches a sender that still runs.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine import errors
from engine.transport import NotSent
from simulator.apiserver import ApiServer
from simulator.doors import Call, Door, Gate
from simulator.loop import Scope
from simulator.messages import Answer, Change, Request

ONE_WAY = (0.0005, 0.01)
"""Seconds that a request, an answer or an event is under way."""


@dataclass
class Faults:
    """What befalls requests now; anything may be changed at any time."""

    away: bool = False
    """Nothing listens: connections are refused."""
    silent: bool = False
    """Requests vanish: no answer ever comes."""
    slow: tuple[float, float] = (0.0, 0.0)
    """Seconds more, each way."""
    answers: dict[int, float] = field(default_factory=dict)
    """HTTP status → share of the requests that are answered with it, and not carried out."""
    lost_replies: float = 0.0
    """Share of the writes that are carried out and whose answer never comes."""

    def heal(self) -> None:
        """From now on nothing befalls them."""
        self.away, self.silent, self.slow, self.answers, self.lost_replies = False, False, (0.0, 0.0), {}, 0.0


class ApiChannel:
    """The channel (engine.transport.Channel) of one controller."""

    def __init__(self, server: ApiServer, faults: Faults, scope: Scope, gate: Gate, rng: random.Random) -> None:
        """`gate` sees every request before it leaves."""
        self._server = server
        self._faults = faults
        self._scope = scope
        self._gate = gate
        self._rng = rng

    async def close(self) -> None:
        """Nothing is held."""

    async def exchange(
        self, method: str, path: str, query: Mapping[str, str], body: Any, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """See engine.transport.Channel."""
        request = Request(
            method, path, dict(query), json.loads(json.dumps(body)), headers["Content-Type"], headers["Accept"]
        )
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Answer] = loop.create_future()
        call = Call(Door.API, f"{method} {_what(request)}", _kind(path), method != "GET")
        await self._gate.enter(call, partial(self._send, request, reply))
        status, answer = await reply
        if status == 0:
            raise NotSent("connection refused")
        if not 200 <= status <= 299:
            raise errors.from_response(status, answer, {"Retry-After": "1"} if status == 429 else {})
        return status, answer

    def _send(self, request: Request, reply: asyncio.Future[Answer], late: float, answered: Any) -> None:
        """Put the request on its way, to arrive `late` seconds later; `answered` when carried out."""
        loop = asyncio.get_running_loop()
        if self._faults.away:
            loop.call_later(self._delay(), _give, reply, (0, {}), context=Context())
            return
        loop.call_later(self._delay() + late, self._arrive, request, reply, answered, context=Context())

    def _arrive(self, request: Request, reply: asyncio.Future[Answer], answered: Any) -> None:
        if self._faults.silent:
            return
        answer = self._trouble() or self._server.handle(request, self._scope.name)
        answered()
        if request.method != "GET" and self._rng.random() < self._faults.lost_replies:
            return
        asyncio.get_running_loop().call_later(self._delay(), _give, reply, answer, context=Context())

    def _trouble(self) -> Answer | None:
        drawn = self._rng.random()
        for status, share in sorted(self._faults.answers.items()):
            if drawn < share:
                reason = {409: "Conflict", 429: "TooManyRequests"}.get(status, "InternalError")
                return status, {"kind": "Status", "reason": reason, "message": f"simulated {status}", "code": status}
            drawn -= share
        return None

    def _delay(self) -> float:
        return self._rng.uniform(*ONE_WAY) + self._rng.uniform(*self._faults.slow)


class WatchStream:
    """The watch of one controller, as kopf keeps it: it lists, then streams, and begins again from time to time.

    Events of one kind come in their order. While `silent`, nothing comes and nobody notices, as over a dead connection;
    what happened then is made up for by the next list, but for deletions.
    """

    AGAIN = 300.0
    """Seconds after which a stream ends and the next begins with a list."""

    def __init__(self, server: ApiServer, runtime: Any, scope: Scope, faults: Faults, rng: random.Random) -> None:
        """`runtime`: whose `event` is fed, and whose `scopes` say what is watched."""
        self._server = server
        self._runtime = runtime
        self._scope = scope
        self._faults = faults
        self._rng = rng
        self._scopes = {resource.kind: namespace for resource, namespace in runtime.scopes}
        self._last: dict[str, float] = {}
        self.silent = False
        self._connected = True

    def start(self) -> None:
        """Begin to watch."""
        self._server.subscribe(self._changed)
        self._relist()

    def cut(self, seconds: float) -> None:
        """The connection breaks; a new one comes about, with a list, after that time."""
        self._connected = False
        _loop().call_later(seconds, self._reconnect, context=Context())

    def _reconnect(self) -> None:
        if self._scope.dead:
            return
        if self._faults.away or self._faults.silent:
            _loop().call_later(self._rng.uniform(2.0, 15.0), self._reconnect, context=Context())
            return
        self._connected = True
        self._list()

    def _relist(self) -> None:
        if self._scope.dead:
            return
        if self._faults.away or self._faults.silent:
            self._connected = False
            self._reconnect()
        elif not self.silent:
            self._list()
        _loop().call_later(self.AGAIN * self._rng.uniform(0.95, 1.05), self._relist, context=Context())

    def _list(self) -> None:
        for kind in self._scopes:
            for obj in self._server.all(kind):
                self._deliver(None, kind, obj)

    def _changed(self, change: Change) -> None:
        if self._scope.dead or self.silent or not self._connected or self._faults.away or self._faults.silent:
            return
        self._deliver(change.type, change.resource.kind, change.obj)

    def _deliver(self, type_: str | None, kind: str, obj: dict[str, Any]) -> None:
        if kind not in self._scopes or self._scopes[kind] not in (None, obj["metadata"].get("namespace")):
            return
        now = _loop().time()
        at = max(now + self._rng.uniform(*ONE_WAY) + self._rng.uniform(*self._faults.slow), self._last.get(kind, 0.0))
        self._last[kind] = at + 1e-6
        _loop().call_at(at, self._scope.enter, self._runtime.event, type_, obj, context=Context())


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _give(reply: asyncio.Future[Answer], answer: Answer) -> None:
    if not reply.done():
        reply.set_result(answer)


def _kind(path: str) -> str:
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return rest[0] if rest else "version"


def _what(request: Request) -> str:
    """The kind of write, without names: which fields it is about."""
    body = request.body
    if request.method == "PATCH" and isinstance(body, list):
        return ",".join(f"{op['op']} {op['path']}" for op in body[1:])
    if request.content_type.startswith("application/apply-patch"):
        return f"apply {((body.get('status') or {}).get('phase')) or ''}".strip()
    if request.method == "PATCH":
        return ",".join(sorted((body or {}).get("status") or ()))
    return ""
