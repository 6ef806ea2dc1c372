"""Kubernetes Events, for what a user would want to know; folded, bounded and never in anybody's way.

events.k8s.io/v1, not core/v1: the same objects in the same store (kubectl shows both alike), but with a series that
counts repetitions by design, where core/v1 has only fields that it calls deprecated.
"""

import asyncio
import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from engine import errors, metrics
from engine.clock import Clock, micro_timestamp
from engine.keys import Key, Object
from engine.kube import EVENTS, KubeClient

_NOTE = 1024
_WORD = 128

_log = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]
_Sameness = tuple[str, str, str, str]


@dataclass(slots=True)
class _Series:
    regarding: Object
    type: EventType
    reason: str
    note: str
    action: str
    key: Key
    first: datetime
    last: datetime
    seen: float
    count: int = 1
    posted: bool = False
    posted_at: float = float("-inf")


@dataclass(slots=True)
class _Bucket:
    tokens: float
    since: float


class Recorder:
    """Takes events without waiting and posts them from `run`.

    The same object, type, reason and message within `window` seconds is one Event with a growing count, which is
    written at most every `repeat_after` seconds. Different events of one object are bounded to `burst` at once and
    one more every `refill` seconds; what is over is counted and dropped. Failing to post is logged, nothing more.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        component: str,
        instance: str,
        clock: Clock,
        window: float = 600.0,
        repeat_after: float = 30.0,
        burst: int = 20,
        refill: float = 60.0,
        remembered: int = 4096,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """`component`: a qualified name, as `hostler.dev/operator`; `instance`: which process, as the pod's name.
        `new_id` makes what keeps the names of Events apart.
        """
        self._client = client
        self._component = component
        self._instance = instance[:_WORD]
        self._clock = clock
        self._window, self._repeat_after = window, repeat_after
        self._burst, self._refill = burst, refill
        self._remembered = remembered
        self._new_id = new_id
        self._series: OrderedDict[_Sameness, _Series] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._pending: dict[Key, _Series] = {}
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def record(
        self,
        obj: Object,
        event_type: EventType,
        reason: str,
        message: str,
        *,
        action: str | None = None,
    ) -> None:
        """Notes an event about `obj`. `reason`: CamelCase, why; `action`: CamelCase, what was done, else `reason`."""
        sameness = (obj["metadata"]["uid"], event_type, reason, message)
        now = self._clock.monotonic()
        series = self._series.get(sameness)
        if series is not None and now - series.seen <= self._window:
            series.count += 1
            series.seen, series.last = now, self._clock.now()
            self._series.move_to_end(sameness)
            if now - series.posted_at < self._repeat_after:
                metrics.events.labels("folded").inc()
                return
        else:
            if not self._allowed(obj["metadata"]["uid"], now):
                metrics.events.labels("dropped").inc()
                return
            series = self._begin(obj, event_type, reason, message, action or reason, now)
            self._remember(sameness, series)
        self._pending[series.key] = series
        self._idle.clear()
        self._news.set()

    async def run(self) -> None:
        """Posts what was recorded, for ever; cancel it to end."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._pending:
                key = next(iter(self._pending))
                await self._post(self._pending.pop(key))
            self._idle.set()

    async def drain(self, deadline: float) -> bool:
        """Waits at most `deadline` seconds until `run` has posted everything; whether it has."""
        try:
            await asyncio.wait_for(self._idle.wait(), deadline)
        except TimeoutError:
            return False
        return True

    async def _post(self, series: _Series) -> None:
        series.posted_at = self._clock.monotonic()
        try:
            await self._send(series)
        except errors.ApiError as error:
            metrics.events.labels("failed").inc()
            _log.warning("event not posted: %s", error, extra={"reason": series.reason, "about": series.regarding})
        else:
            series.posted = True
            metrics.events.labels("posted").inc()

    async def _send(self, series: _Series) -> None:
        if series.posted:
            try:
                await self._client.patch_event(series.key, {"series": _count(series)})
            except errors.NotFound:
                _log.debug("the event has expired; posting it anew")
            else:
                return
        await self._client.create_event(self._event(series))

    def _begin(self, obj: Object, event_type: EventType, reason: str, message: str, action: str, now: float) -> _Series:
        key = Key.of(obj)
        regarding = {"apiVersion": obj["apiVersion"], "kind": key.kind, "name": key.name, "uid": obj["metadata"]["uid"]}
        if key.namespace:
            regarding["namespace"] = key.namespace
        # Events about cluster-scoped objects live in `default`: the API accepts them nowhere else.
        event_key = Key(EVENTS.kind, key.namespace or "default", f"{key.name[:200]}.{self._new_id()}")
        moment = self._clock.now()
        return _Series(
            regarding, event_type, reason[:_WORD], _shortened(message), action[:_WORD], event_key, moment, moment, now
        )

    def _event(self, series: _Series) -> Object:
        event = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": series.key.name, "namespace": series.key.namespace},
            "eventTime": micro_timestamp(series.first),
            "type": series.type,
            "reason": series.reason,
            "note": series.note,
            "action": series.action,
            "regarding": series.regarding,
            "reportingController": self._component,
            "reportingInstance": self._instance,
        }
        return event | ({"series": _count(series)} if series.count > 1 else {})

    def _remember(self, sameness: _Sameness, series: _Series) -> None:
        self._series[sameness] = series
        self._series.move_to_end(sameness)
        while len(self._series) > self._remembered:
            self._series.popitem(last=False)

    def _allowed(self, uid: str, now: float) -> bool:
        """A token bucket per object."""
        bucket = self._buckets.setdefault(uid, _Bucket(float(self._burst), now))
        self._buckets.move_to_end(uid)
        while len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        bucket.tokens = min(float(self._burst), bucket.tokens + (now - bucket.since) / self._refill)
        bucket.since = now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True


def _count(series: _Series) -> Object:
    return {"count": series.count, "lastObservedTime": micro_timestamp(series.last)}


def _shortened(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= _NOTE:
        return message
    return encoded[: _NOTE - 3].decode(errors="ignore") + "..."
