"""One controller, put together: cache, queue, workers, and what wakes and repairs them.

Everything that decides and acts is in here; what differs between processes is handed in (API server, hosts, clock,
chance). The operator adds watches, signals and HTTP; the simulator runs the same controller on a world in memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import aiohttp

from crds import KINDS
from drivers.hypervisor import HostDirectory
from engine import errors, sync
from engine.cache import Cache
from engine.clock import Clock
from engine.controller import Controller
from engine.keys import Key
from engine.kube import KubeClient, Resource
from engine.operations import Keeper, Operations, Retention
from engine.operations.keeper import Begin
from engine.queue import KeyedQueue, Priority
from engine.recorder import Recorder
from engine.status import StatusWriter
from reconcilers.context import FIELD_MANAGER, Context
from reconcilers.jobs import Jobs
from reconcilers.objects import API, NAMESPACE, SECRET
from reconcilers.operation import TYPES
from reconcilers.operation.session import in_loop
from reconcilers.registry import CRITICAL, RECONCILERS
from reconcilers.wiring import counted_by, install_indexes, woken_by, woken_by_host

log = logging.getLogger(__name__)

AUDIT_SECONDS = 300.0
"""Time between two metadata-only lists of each kind, which repair what the watch lost."""
RESYNC_SECONDS = 600.0
"""Time in which every object is looked at again, without being woken."""
COUNT_DELAY = 1.0
"""Seconds by which counts in a status follow what they count: a host's domains, a storage domain's disks."""
LAST_EVENTS_SECONDS = 2.0
"""How long the end may wait until the last Events are posted."""


class CannotList(Exception):
    """A kind could not be listed, so nothing may begin; the ApiError is its cause."""

    def __init__(self, resource: Resource) -> None:
        """`resource`: what was to be listed."""
        super().__init__(f"{resource.plural} cannot be listed")
        self.resource = resource


class Runtime:
    """One controller: `load`, then `start`; feed it with `event`; `stop` at the end."""

    def __init__(
        self,
        client: KubeClient,
        hosts: HostDirectory,
        *,
        clock: Clock,
        installation: str,
        namespace: str,
        instance: str,
        workers: int = 48,
        per_host: int = 12,
        rng: random.Random | None = None,
        connector: Callable[[], aiohttp.BaseConnector | None] = lambda: None,
        begin: Begin | None = None,
        locks_clock: Clock | None = None,
        retention: Retention | None = None,
    ) -> None:
        """Build everything; nothing runs yet. `rng`: where all chance comes from, identifiers included.

        `connector`: how web servers are reached. `begin`: how the session of this process is opened, once an operation
        needs it; None: in this loop. `locks_clock`: what that session goes by; None: a clock that no suspension stops.
        `retention`: of operations that have ended.
        """
        self._rng = rng if rng is not None else random.SystemRandom()
        self.cache = Cache()
        install_indexes(self.cache)
        self.queue = KeyedQueue(clock, group_of=self._group, group_limit=per_host, rng=self._rng)
        self.hosts = hosts
        self.jobs = Jobs(self.queue.add)
        self.recorder = Recorder(
            client, component="hostler.dev/operator", instance=instance, clock=clock, new_id=self._new_id
        )
        self.context = Context(
            client=client,
            cache=self.cache,
            queue=self.queue,
            hosts=hosts,
            writer=StatusWriter(client, self.cache, manager=FIELD_MANAGER, critical=CRITICAL),
            recorder=self.recorder,
            clock=clock,
            jobs=self.jobs,
            installation=installation,
            namespace=namespace,
            new_id=self._new_id,
            connector=connector,
        )
        session = begin if begin is not None else in_loop(client, namespace, instance, self._new_id, locks_clock)
        keeper = Keeper(session, client, namespace=namespace, clock=locks_clock, rng=self._rng)
        self.operations = self._operations(keeper, retention)
        self.context.operations = self.operations
        self.controller = Controller(
            queue=self.queue,
            cache=self.cache,
            reconcilers={kind: partial(reconcile, self.context) for kind, reconcile in RECONCILERS.items()},
            clock=clock,
            workers=workers,
            rng=self._rng,
        )
        self.scopes: tuple[tuple[Resource, str | None], ...] = (
            *((API[kind.kind], None) for kind in KINDS),
            (NAMESPACE, None),
            (SECRET, namespace),
        )
        """What is listed and watched, each in one namespace or, for None, in all."""
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []

    def _operations(self, keeper: Keeper, retention: Retention | None) -> Operations[Context]:
        ctx = self.context
        return Operations(
            client=ctx.client,
            cache=ctx.cache,
            writer=ctx.writer,
            recorder=ctx.recorder,
            clock=ctx.clock,
            keeper=keeper,
            wake=self.queue.add,
            types=TYPES,
            world=ctx,
            namespace=ctx.namespace,
            rng=self._rng,
            retention=retention,
        )

    async def load(self) -> None:
        """List everything into the cache and queue all our objects. Raises CannotList."""
        for resource, namespace in self.scopes:
            try:
                await sync.load(self._client, self.cache, resource, namespace)
            except errors.ApiError as error:
                raise CannotList(resource) from error
        for kind in KINDS:
            for key in self.cache.keys(kind.kind):
                self.queue.add(key, Priority.PERIODIC)

    def start(self) -> None:
        """Begin to work; everything has been loaded."""
        self.cache.watch(self._changed)
        self.hosts.subscribe(self._observed)
        work: tuple[tuple[str, Coroutine[Any, Any, None]], ...] = (
            ("controller", self.controller.run()),
            ("events", self.recorder.run()),
            ("audit", self._audit()),
            ("resync", self._resync()),
        )
        self._tasks = [asyncio.create_task(part, name=name) for name, part in work]

    async def ended(self) -> BaseException:
        """Wait until a part of it ends by itself, which none of them should; the error that ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in self._tasks if task in done)
        return first.exception() or RuntimeError(f"{first.get_name()} has ended")

    async def stop(self, seconds: float) -> frozenset[Key]:
        """No new work, `seconds` for what runs, then the connections. Guests are never touched by our end.

        Returns the keys whose work was cut off.
        """
        cut = await self.controller.stop(seconds)
        await self.jobs.close()
        await self.operations.close(cut)
        await self.recorder.drain(min(seconds, LAST_EVENTS_SECONDS))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hosts.close()
        return cut

    # What wakes whom

    def event(self, type_: str | None, obj: dict[str, Any]) -> None:
        """Take in what a watch says: (event type, object); the type is None for objects of a list."""
        if type_ == "DELETED":
            metadata = obj["metadata"]
            self.cache.delete(Key.of(obj), metadata.get("uid"), metadata.get("resourceVersion"))
        else:
            self.cache.upsert(obj)

    def _changed(self, key: Key, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        for woken in sorted(woken_by(self.cache, key, old, new)):
            self.queue.add(woken)
        for counting in sorted(counted_by(key, old, new)):
            self.queue.add_after(counting, COUNT_DELAY)

    def _observed(self, host: str, uuid: str | None) -> None:
        view = self.context.view(host) if uuid is None else None
        held = [domain.uuid for domain in view.inventory.domains] if view is not None and view.inventory else []
        for key in sorted(woken_by_host(self.cache, host, uuid, held)):
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

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    # What repairs

    async def _audit(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_SECONDS * self._rng.uniform(0.9, 1.1))
            await self.audit()

    async def audit(self) -> None:
        """Compare the cache with the server; a watch can lose a deletion, and a store can be set back.

        What was repaired is looked at again, also where only its status has changed: nobody here wrote that one.
        """
        for resource, namespace in self.scopes:
            try:
                repaired = await sync.audit(self._client, self.cache, resource, namespace)
            except errors.ApiError as error:
                log.warning("audit of %s put off: %s", resource.plural, error)
                continue
            if repaired:
                log.warning("repaired what the watch had lost: %s", ", ".join(str(key) for key in sorted(repaired)))
            for key in sorted(repaired):
                if key.kind in RECONCILERS:
                    self.queue.add(key)

    async def _resync(self) -> None:
        """Look at every object from time to time, a few at a time."""
        while True:
            keys = [key for kind in KINDS for key in self.cache.keys(kind.kind)]
            if not keys:
                await asyncio.sleep(RESYNC_SECONDS)
            for key in keys:
                await asyncio.sleep(RESYNC_SECONDS / len(keys))
                self.queue.add(key, Priority.PERIODIC)
