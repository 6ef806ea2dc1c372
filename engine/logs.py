"""Logging that names its object.

Whatever logs while an object is being worked on (a reconciler, a driver, the client) says for which object and in
which pass, without having been handed either: both travel in context variables, and every format shows them.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from engine.keys import Key

_key: ContextVar[Key | None] = ContextVar("engine_log_key", default=None)
_correlation: ContextVar[str] = ContextVar("engine_log_correlation", default="")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


@contextmanager
def bind(key: Key, correlation_id: str) -> Iterator[None]:
    """Everything logged inside names that object and that pass, also in tasks and `asyncio.to_thread` begun inside."""
    key_token, correlation_token = _key.set(key), _correlation.set(correlation_id)
    try:
        yield
    finally:
        _key.reset(key_token)
        _correlation.reset(correlation_token)


def correlation_id() -> str:
    """The id of the pass that is running, to be handed to hosts; "" outside of one."""
    return _correlation.get()


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, object, correlationId, and what `extra` gave."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        key = _key.get()
        if key is not None:
            line["object"] = {"kind": key.kind, "namespace": key.namespace, "name": key.name}
        if _correlation.get():
            line["correlationId"] = _correlation.get()
        line.update(_extras(record))
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For a terminal: time, level, object and pass, message."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        key = _key.get()
        subject = f" {key} [{_correlation.get()}]" if key is not None else ""
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        text = f"{when} {record.levelname[0]} {record.name}{subject}: {record.getMessage()}{extras}"
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return text


def configure(
    form: Literal["json", "text"] = "json", level: int | str = logging.INFO, stream: TextIO | None = None
) -> None:
    """Sends every logger of the process through one handler; replaces what was configured before."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
