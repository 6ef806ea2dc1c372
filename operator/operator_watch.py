"""The watches: kopf tells what changed, and that goes to the cache. The only module that knows kopf.

kopf runs in threads with event loops of their own, so that it neither handles our signals nor cancels our tasks. Its
high-level handlers are not used: they react to edges, write annotations, and cannot coalesce. `on.event` neither writes
nor waits; it hands the raw event over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import kopf

from engine.kube import Resource

# kopf logs every event that it hands over, and that it does not handle our signals: neither is news.
logging.getLogger("kopf").setLevel(logging.WARNING)
logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)

Sink = Callable[[str | None, dict[str, Any]], None]
"""Called in the operator's loop with (event type, object); the type is None for objects of a first or repeated list."""


AT_ONCE = 32
"""Events that the operator's loop takes in without doing anything else."""


class EndlessBackoff:
    """Delays before an API call is tried again, for ever: kopf's own end the process after a minute."""

    def __iter__(self) -> Iterator[float]:
        for delay in (0.5, 1.0, 2.0, 3.0, 5.0, 8.0):
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        while True:
            yield random.uniform(8.0, 15.0)  # noqa: S311


class NoAnnotations(kopf.DiffBaseStorage):
    """kopf keeps no last-handled state of objects: nothing of it may ever show in an annotation."""

    def build(self, *, body: Any, **_: Any) -> Any:
        """Nothing, instead of a deep copy of each object of each event: nothing is ever compared."""
        return {}

    def fetch(self, *, body: Any) -> None:
        """Nothing is known of what was handled last."""

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Nothing is kept."""


class NoProgress(kopf.ProgressStorage):
    """kopf's own handlers, whose progress this would be, are not used."""

    def fetch(self, **_: Any) -> None:
        """There is none."""

    def store(self, **_: Any) -> None:
        """Nothing is kept."""

    def purge(self, **_: Any) -> None:
        """Nothing is kept."""

    def touch(self, **_: Any) -> None:
        """Nothing is written."""

    def clear(self, *, essence: Any) -> Any:
        """There is nothing in it."""
        return essence


class Watch(threading.Thread):
    """Watches some resources, in all namespaces or in one, until stopped; ends early only by an error."""

    def __init__(
        self,
        resources: Iterable[Resource],
        sink: Sink,
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[BaseException | None], None],
        *,
        namespace: str | None = None,
    ) -> None:
        """`on_end` is called in `loop` when the watch has ended, with the error that ended it."""
        super().__init__(name=f"watch-{namespace or 'all'}", daemon=True)
        self._resources = tuple(resources)
        self._sink = sink
        self._loop = loop
        self._on_end = on_end
        self._namespace = namespace
        self._events: deque[tuple[str | None, dict[str, Any]]] = deque()
        self._told = False
        self._ending = threading.Event()  # not `_stop`: Thread has a method of that name

    def stop(self) -> None:
        """End the watch soon."""
        self._ending.set()

    def run(self) -> None:
        """The thread: kopf in a loop of its own."""
        error: BaseException | None = None
        try:
            asyncio.run(self._watch())
        except BaseException as failure:
            error = failure
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_end, error)

    async def _watch(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            clusterwide=self._namespace is None,
            namespaces=[self._namespace] if self._namespace is not None else (),
            stop_flag=self._ending,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)(_login)
        for resource in self._resources:
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(self._handle)
        return registry

    async def _handle(self, event: Any, **_: Any) -> None:
        self._events.append((event["type"], dict(event["object"])))
        # The operator's loop is told once of many: waking it from another thread costs more than what it is told.
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        """In the operator's loop: a few events, and the rest after what else has become due."""
        self._told = False  # before the look: what is appended later tells anew
        try:
            for _ in range(min(AT_ONCE, len(self._events))):
                self._sink(*self._events.popleft())
        finally:
            if self._events and not self._told:
                self._told = True
                self._loop.call_soon(self._hand_over)


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """The pod's service account, else the kubeconfig; again whenever a token has expired."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = "hostler.dev/kopf-unused"  # never our own: kopf removes what it does not need
    settings.persistence.diffbase_storage = NoAnnotations()
    settings.persistence.progress_storage = NoProgress()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = EndlessBackoff()
    return settings
