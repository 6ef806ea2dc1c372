"""The operator process: brings all rooms together, runs until it is told to stop, and leaves the guests alone."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from operator_http import Health, serve
from operator_settings import Settings, parse
from operator_start import StartFailed, connect, installation_id, load, session_client
from operator_watch import Watch

from drivers.hypervisor import HostDirectory
from drivers.libvirt.directory import LibvirtDirectory
from engine import errors, logs, metrics
from engine.clock import SystemClock
from engine.kube import KubeClient
from engine.operations import Retention
from reconcilers.operation.session import in_thread
from reconcilers.runtime import Runtime

log = logging.getLogger("operator")


class Operator:
    """The running process: a controller, its watches, its probes, and the signals that end it."""

    def __init__(self, settings: Settings, client: KubeClient, installation: str, hosts: HostDirectory) -> None:
        """Build everything; nothing runs yet."""
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        process = os.environ.get("HOSTNAME") or socket.gethostname()
        self.runtime = Runtime(
            client,
            hosts,
            clock=SystemClock(),
            installation=installation,
            namespace=settings.namespace,
            instance=process,
            workers=settings.workers,
            per_host=settings.per_host,
            begin=in_thread(
                partial(session_client, settings), settings.namespace, process, new_id=lambda: str(uuid.uuid4())
            ),
            retention=Retention(
                settings.keep_succeeded, settings.keep_failed, settings.keep_operations, settings.keep_operations
            ),
        )
        self.stopping = asyncio.Event()
        self.failure: BaseException | None = None
        self.health = Health(self.runtime.queue)
        self._watches: list[Watch] = []

    async def run(self) -> int:
        """Work until SIGTERM, SIGINT or a failure. Returns the exit code."""
        for name in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(name, self.stopping.set)
        http = None
        try:
            http = await self._serve()
            await load(self.runtime)
            self._start_watches()
            self.runtime.start()
            self.health.ready = True
            log.info("ready", extra={"installation": self.runtime.context.installation})
            await self._until_the_end()
        finally:
            await self._stop()
            if http is not None:
                await http.cleanup()
        if self.failure is not None:
            log.error("ends: %s", self.failure, exc_info=self.failure)
            return 1
        log.info("stopped")
        return 0

    async def _until_the_end(self) -> None:
        stopped = asyncio.create_task(self.stopping.wait(), name="stop")
        ended = asyncio.create_task(self.runtime.ended(), name="ended")
        await asyncio.wait([stopped, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            self.failure = ended.result()
        for task in (stopped, ended):
            task.cancel()
        await asyncio.gather(stopped, ended, return_exceptions=True)

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

    async def _stop(self) -> None:
        """No new work, time for what runs, then the connections. Guests are never touched by our end."""
        self.health.ready = False
        for watch in self._watches:
            watch.stop()
        cut = await self.runtime.stop(self.settings.stop_seconds)
        if cut:
            log.warning("cut off at the end of the stop time: %s", ", ".join(str(key) for key in sorted(cut)))

    def _start_watches(self) -> None:
        scopes = self.runtime.scopes
        self._watches = [
            Watch(
                [resource for resource, of in scopes if of == namespace],
                self.runtime.event,
                self._loop,
                self._watch_ended,
                namespace=namespace,
            )
            for namespace in dict.fromkeys(namespace for _, namespace in scopes)
        ]
        for watch in self._watches:
            watch.start()
        self.health.watching = lambda: all(watch.is_alive() for watch in self._watches)

    def _watch_ended(self, error: BaseException | None) -> None:
        if not self.stopping.is_set():
            self.failure = error or RuntimeError("a watch has ended")
            self.stopping.set()


def libvirt_hosts() -> HostDirectory:
    """Hosts behind libvirt, with every call measured."""
    return LibvirtDirectory(asyncio.get_running_loop(), observe=metrics.observe_driver_call)


def collect_seldom() -> None:
    """Look for garbage in cycles every 50,000 new objects, not every 700, and never among what start-up has made.

    Nearly all there is here is cached and lives on, and each look goes through it: at 700, that is a tenth of the time
    that it takes to make a thousand VMs, in the simulator.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


async def run(settings: Settings, hosts: Callable[[], HostDirectory] = libvirt_hosts) -> int:
    """Connect, build, run. Returns the exit code. `hosts`: how hosts are reached, called once in the event loop."""
    collect_seldom()
    client = await connect(settings)
    try:
        installation = await installation_id(client, settings.namespace)
        return await Operator(settings, client, installation, hosts()).run()
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
