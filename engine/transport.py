"""One request to the API server: authenticated, bounded in time, measured, its failure typed.

Under `kube`, which knows what to ask; here is only how. Sent again are those requests of which it is certain that
they were not carried out (no connection came about, or the server said "too many"); whatever else fails is the
caller's to look at anew.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

from engine import errors, metrics

_ATTEMPTS = 4
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_RELOAD_AT_MOST_EVERY = 30.0

# The deadline of the whole request is kept in one place, here; the client library's own would race with it.
_NO_OTHER_LIMIT = aiohttp.ClientTimeout(total=None)

_log = logging.getLogger(__name__)


class NotSent(Exception):
    """No connection came about, so nothing was carried out."""


class Channel(Protocol):
    """How one request reaches the server and its answer comes back."""

    async def exchange(
        self, method: str, path: str, query: Mapping[str, str], body: Any, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Status and decoded answer of a request that was carried out.

        NotSent when it surely was not; an ApiError for every answer but a success, and for an answer that never came.
        """
        ...

    async def close(self) -> None: ...


class HttpChannel:
    """Requests over one ApiClient (its connection pool, its credentials)."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def exchange(
        self, method: str, path: str, query: Mapping[str, str], body: Any, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """See Channel."""
        _, url, sent_headers, sent_body, _ = await self._api.param_serialize(
            method,
            path,
            query_params=dict(query),
            header_params=dict(headers),
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = await self._api.call_api(method, url, sent_headers, sent_body, _request_timeout=_NO_OTHER_LIMIT)
            raw: bytes = await answer.response.read()
        except aiohttp.ClientConnectorError as error:
            if isinstance(error, aiohttp.ClientSSLError):
                raise errors.ServerUnavailable(0, "TLS", str(error)) from error
            raise NotSent(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            message = f"{method} {path}: {type(error).__name__}: {error}"
            raise errors.ServerUnavailable(0, "Network", message) from error
        status: int = answer.status
        decoded = _decode(status, raw)
        if not 200 <= status <= 299:
            raise errors.from_response(status, decoded, answer.response.headers)
        return status, decoded


class Transport:
    """Requests over one channel, sent again where that is safe."""

    def __init__(
        self,
        channel: Channel,
        *,
        timeout: float = 30.0,
        reload_credentials: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`timeout`: seconds for a whole request with its repetitions. `reload_credentials`: tried once after a 401."""
        self._channel = channel
        self._timeout = timeout
        self._reload = reload_credentials
        self._reloaded_at = float("-inf")

    async def close(self) -> None:
        await self._channel.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        kind: str,
        verb: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        counted: bool = True,
    ) -> dict[str, Any]:
        """The decoded answer; an ApiError for every failure.

        `kind` and `verb` label the metrics; a write that is `counted` goes into the count of object writes.
        """
        headers = {"Accept": accept, "Content-Type": content_type}
        started = time.monotonic()
        code = "none"
        try:
            async with asyncio.timeout(self._timeout):
                status, answer = await self._attempts(method, path, kind, dict(query or {}), body, headers)
                code = str(status)
                return answer
        except TimeoutError as error:
            message = f"{method} {path}: no answer in {self._timeout:g} s"
            raise errors.ServerUnavailable(0, "Timeout", message) from error
        except errors.ApiError as error:
            code = str(error.status or "none")
            raise
        finally:
            metrics.api_seconds.labels(kind, verb).observe(time.monotonic() - started)
            if counted and method != "GET":
                metrics.api_writes.labels(kind, verb, code).inc()

    async def _attempts(
        self, method: str, path: str, kind: str, query: dict[str, str], body: Any, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS
            try:
                return await self._channel.exchange(method, path, query, body, headers)
            except errors.TooManyRequests as error:
                if last or error.retry_after > _LONGEST_PAUSE:
                    raise
                wait = max(error.retry_after, pause)
            except errors.Unauthorized:
                if last or not await self._renewed():
                    raise
                wait = 0.0
            except NotSent as error:
                if last:
                    raise errors.ServerUnavailable(0, "NotConnected", str(error)) from error
                wait = pause
            metrics.api_retries.labels(kind, "sent-again").inc()
            _log.debug("sending again", extra={"method": method, "path": path, "wait": wait})
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise AssertionError("the last attempt returns or raises")

    async def _renewed(self) -> bool:
        """After a 401, for credentials that rotate (a token file, an exec plugin): True when they were read anew."""
        now = time.monotonic()
        if self._reload is None or now - self._reloaded_at < _RELOAD_AT_MOST_EVERY:
            return False
        self._reloaded_at = now
        await self._reload()
        return True


def _decode(status: int, raw: bytes) -> dict[str, Any]:
    """The answer as JSON; for a failed request anything else (a proxy's page) becomes its message."""
    try:
        decoded: dict[str, Any] = json.loads(raw) if raw else {}
    except ValueError as error:
        text = raw[:200].decode(errors="replace").strip()
        if 200 <= status <= 299:
            raise errors.ServerUnavailable(status, "NotJson", f"the answer is not JSON: {text}") from error
        return {"message": text or f"HTTP {status}"}
    return decoded
