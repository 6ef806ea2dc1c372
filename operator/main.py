"""The operator process: brings all rooms together, runs until it is told to stop, and leaves the guests alone."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from operator_http import Health, serve
from operator_settings import Settings, parse
from operator_start import StartFailed, connect, installation_id, load
from operator_watch import Watch

from crds import KINDS
from drivers.libvirt.directory import LibvirtDirectory
from engine import errors, logs, metrics, sync
from engine.cache import Cache
from engine.clock import SystemClock
from engine.controller import Controller
from engine.keys import Key
from engine.kube import KubeClient, Resource
from engine.queue import KeyedQueue, Priority
from engine.recorder import Recorder
from engine.status import StatusWriter
from reconcilers.context import FIELD_MANAGER, Context
from reconcilers.jobs import Jobs
from reconcilers.objects import API, NAMESPACE, SECRET
from reconcilers.registry import CRITICAL, RECONCILERS
from reconcilers.wiring import install_indexes, woken_by, woken_by_host

log = logging.getLogger("operator")

AUDIT_SECONDS = 300.0
"""Time between two metadata-only lists of each kind, which repair what the watch lost."""
RESYNC_SECONDS = 600.0
"""Time in which every object is looked at again, without being woken."""
COUNT_DELAY = 1.0
"""Seconds by which a host's own counts follow what happens to its domains."""


class Operator:
    """The running process."""

    def __init__(self, settings: Settings, client: KubeClient, installation: str) -> None:
        """Build everything; nothing runs yet."""
        self.settings = settings
        self.client = client
        clock = SystemClock()
        self.cache = Cache()
        install_indexes(self.cache)
        self.queue = KeyedQueue(clock, group_of=self._group, group_limit=settings.per_host)
        loop = asyncio.get_running_loop()
        self.hosts = LibvirtDirectory(loop, observe=metrics.observe_driver_call)
        self.jobs = Jobs(self.queue.add)
        self.recorder = Recorder(
            client,
            component="hostler.dev/operator",
            instance=os.environ.get("HOSTNAME") or socket.gethostname(),
            clock=clock,
        )
        self.context = Context(
            client=client,
            cache=self.cache,
            queue=self.queue,
            hosts=self.hosts,
            writer=StatusWriter(client, self.cache, manager=FIELD_MANAGER, critical=CRITICAL),
            recorder=self.recorder,
            clock=clock,
            jobs=self.jobs,
            installation=installation,
            namespace=settings.namespace,
        )
        self.controller = Controller(
            queue=self.queue,
            cache=self.cache,
            reconcilers={kind: partial(reconcile, self.context) for kind, reconcile in RECONCILERS.items()},
            clock=clock,
            workers=settings.workers,
        )
        self.stopping = asyncio.Event()
        self.failure: BaseException | None = None
        self.health = Health(self.queue)
        self._loop = loop
        self._watches: list[Watch] = []

    async def run(self) -> int:
        """Work until SIGTERM, SIGINT or a failure. Returns the exit code."""
        for name in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(name, self.stopping.set)
        tasks: list[asyncio.Task[Any]] = []
        http = None
        try:
            http = await self._serve()
            for key in await load(self.client, self.cache, self.settings.namespace):
                self.queue.add(key, Priority.PERIODIC)
            self.cache.watch(self._changed)
            self.hosts.subscribe(self._observed)
            self._start_watches()
            tasks = [
                asyncio.create_task(work, name=name)
                for name, work in (
                    ("controller", self.controller.run()),
                    ("events", self.recorder.run()),
                    ("audit", self._audit()),
                    ("resync", self._resync()),
                )
            ]
            self.health.ready = True
            log.info("ready", extra={"installation": self.context.installation})
            stopped = asyncio.create_task(self.stopping.wait(), name="stop")
            done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            for task in done - {stopped}:
                self.failure = task.exception() or RuntimeError(f"{task.get_name()} has ended")
        finally:
            await self._stop(tasks)
            if http is not None:
                await http.cleanup()
        if self.failure is not None:
            log.error("ends: %s", self.failure, exc_info=self.failure)
            return 1
        log.info("stopped")
        return 0

    async def _serve(self) -> Any:
        if not self.settings.http_port:
            return None
        try:
            return await serve(self.health, self.settings.http_address, self.settings.http_port)
        except OSError as error:
            where = f"{self.settings.http_address}:{self.settings.http_port}"
            raise StartFailed(
                f"health and metrics cannot be served on {where} ({error}): choose another --http-port"
            ) from error

    async def _stop(self, tasks: list[asyncio.Task[Any]]) -> None:
        """No new work, time for what runs, then the connections. Guests are never touched by our end."""
        self.health.ready = False
        for watch in self._watches:
            watch.stop()
        cut = await self.controller.stop(self.settings.stop_seconds)
        if cut:
            log.warning("cut off at the end of the stop time: %s", ", ".join(str(key) for key in sorted(cut)))
        await self.jobs.close()
        await self.recorder.drain(2.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.hosts.close()

    # What wakes whom

    def _start_watches(self) -> None:
        resources = [*(API[kind.kind] for kind in KINDS), NAMESPACE]
        self._watches = [
            Watch(resources, self._event, self._loop, self._watch_ended),
            Watch([SECRET], self._event, self._loop, self._watch_ended, namespace=self.settings.namespace),
        ]
        for watch in self._watches:
            watch.start()
        self.health.watching = lambda: all(watch.is_alive() for watch in self._watches)

    def _event(self, type_: str | None, obj: dict[str, Any]) -> None:
        if type_ == "DELETED":
            self.cache.delete(Key.of(obj), obj["metadata"].get("uid"))
        else:
            self.cache.upsert(obj)

    def _watch_ended(self, error: BaseException | None) -> None:
        if not self.stopping.is_set():
            self.failure = error or RuntimeError("a watch has ended")
            self.stopping.set()

    def _changed(self, key: Key, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        for woken in woken_by(self.cache, key, old, new):
            self.queue.add(woken)

    def _observed(self, host: str, uuid: str | None) -> None:
        for key in woken_by_host(self.cache, host, uuid):
            self.queue.add(key)
        if uuid is not None:
            self.queue.add_after(Key("Host", "", host), COUNT_DELAY)

    def _group(self, key: Key) -> str | None:
        """VMs take turns by the host that they are on."""
        if key.kind != "VirtualMachine":
            return None
        obj = self.cache.get(key)
        placement = ((obj or {}).get("status") or {}).get("placement") or {}
        host = placement.get("host")
        return str(host) if host else None

    # What repairs

    async def _audit(self) -> None:
        """Compare the cache with the server from time to time; a watch can lose a deletion."""
        scopes: list[tuple[Resource, str | None]] = [(API[kind.kind], None) for kind in KINDS]
        scopes += [(NAMESPACE, None), (SECRET, self.settings.namespace)]
        while True:
            await asyncio.sleep(AUDIT_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load
            for resource, namespace in scopes:
                try:
                    repaired = await sync.audit(self.client, self.cache, resource, namespace)
                except errors.ApiError as error:
                    log.warning("audit of %s put off: %s", resource.plural, error)
                    continue
                if repaired:
                    log.warning("repaired what the watch had lost: %s", ", ".join(str(key) for key in sorted(repaired)))

    async def _resync(self) -> None:
        """Look at every object from time to time, a few at a time."""
        while True:
            keys = [key for kind in KINDS for key in self.cache.keys(kind.kind)]
            if not keys:
                await asyncio.sleep(RESYNC_SECONDS)
            for key in keys:
                await asyncio.sleep(RESYNC_SECONDS / len(keys))
                self.queue.add(key, Priority.PERIODIC)


async def run(settings: Settings) -> int:
    """Connect, build, run. Returns the exit code."""
    client = await connect(settings)
    try:
        installation = await installation_id(client, settings.namespace)
        return await Operator(settings, client, installation).run()
    finally:
        await client.close()


def main() -> int:
    """The process."""
    settings = parse()
    if settings.kubeconfig is not None:
        os.environ["KUBECONFIG"] = str(settings.kubeconfig)
    logs.configure("json" if settings.log_format == "json" else "text", settings.log_level.upper())
    try:
        return asyncio.run(run(settings))
    except StartFailed as problem:
        log.error("cannot start: %s", problem)
        return 2
    except errors.ApiError as problem:
        log.error("cannot start: the API server said %s", problem)
        return 2


if __name__ == "__main__":
    sys.exit(main())
