"""What can go wrong between us and the API server, typed by what to do next.

EngineError
  QueueClosed              no more work is handed out
  ApiError                 the API server did not do what was asked
    BadRequest             400  we said it wrong: a bug of ours
    Unauthorized           401  who we are was not accepted
    Forbidden              403  our role lacks this, or the namespace is going away
    NotFound               404  gone, or never there
    AlreadyExists          409  somebody was first
    Conflict               409  the object changed since it was read: observe again
    Expired                410  the list or watch is too old: begin again
    Invalid                422  a rule of the schema; `causes` name the fields
    TooManyRequests        429  `retry_after` seconds
    ServerUnavailable      network, time-out, 5xx: a write may or may not have been done
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class EngineError(Exception):
    """Root of everything the engine raises on purpose."""


class QueueClosed(EngineError):
    """The queue hands out no more work."""


class ApiError(EngineError):
    """`status`: HTTP status, 0 when there was no answer. `reason`: the API's machine word. `message`: for people."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class BadRequest(ApiError):
    """The request itself is malformed, for example an unknown field under strict validation."""


class Unauthorized(ApiError):
    """The credentials were not accepted."""


class Forbidden(ApiError):
    """The role of this process lacks a permission, or the namespace is being deleted."""


class NotFound(ApiError):
    """The object, or its whole kind, is not there."""


class AlreadyExists(ApiError):
    """An object with that name is there already."""


class Conflict(ApiError):
    """The object is no longer the one that was read."""


class Expired(ApiError):
    """The position in a list or watch is too old."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason of an Invalid: the path of the field (may be empty) and what is wrong with it."""

    field: str
    message: str


class Invalid(ApiError):
    """Refused by the schema or by admission; `causes` name the fields."""

    def __init__(self, status: int, reason: str, message: str, causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(status, reason, message)
        self.causes = causes


class TooManyRequests(ApiError):
    """The server is protecting itself; `retry_after` in seconds."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(status, reason, message)
        self.retry_after = retry_after


class ServerUnavailable(ApiError):
    """No usable answer: whether a write was done is not known."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    408: ServerUnavailable,
}


# A server-side apply of a field that the schema lacks is answered with 500, though it is the request that is wrong.
_UNTYPED_APPLY = "failed to create typed patch object"


def from_response(status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> ApiError:
    """The typed error for an HTTP answer; `body` is its `metav1.Status`, or empty when it sent none."""
    reason, message = str(body.get("reason", "")), str(body.get("message", f"HTTP {status}"))
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(status, reason, message)
    if status == 422:
        return Invalid(status, reason, message, _causes(body))
    if status == 429:
        return TooManyRequests(status, reason, message, _retry_after(body, headers))
    if status == 500 and _UNTYPED_APPLY in message:
        return BadRequest(status, reason, message)
    if status >= 500:
        return ServerUnavailable(status, reason, message)
    return _BY_STATUS.get(status, ApiError)(status, reason, message)


def _causes(body: Mapping[str, Any]) -> tuple[Cause, ...]:
    causes = (body.get("details") or {}).get("causes") or ()
    return tuple(Cause(str(cause.get("field", "")), str(cause.get("message", ""))) for cause in causes)


def _retry_after(body: Mapping[str, Any], headers: Mapping[str, str]) -> float:
    said = headers.get("Retry-After") or (body.get("details") or {}).get("retryAfterSeconds")
    try:
        return max(0.0, float(said or 1.0))
    except ValueError:  # an HTTP date: no API server sends one, a proxy in between may
        return 1.0
