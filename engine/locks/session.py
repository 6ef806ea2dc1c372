"""That this process is alive: one Lease, renewed; and until when it may believe that others know it.

The term counts from the moment at which the last renewal was *sent*: it reached the server at that moment or later, so
others, who count from when they see it, wait longer than we act.
"""

import asyncio
import itertools
import logging
import re
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass

from engine import errors, metrics
from engine.clock import BootClock, Clock, micro_timestamp
from engine.keys import Key, Object
from engine.kube import LEASES, KubeClient
from engine.locks.errors import SessionLost

_IDENTITY = re.compile(r"[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?")
_AGAIN = 0.25
"""Seconds before a renewal that failed is tried again."""

_log = logging.getLogger(__name__)


def lease_name(identity: str) -> str:
    """The name of the Lease of a session."""
    return f"session.{identity}"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The defaults are meant for replicas in one cluster.

    `duration`: how long others wait for a sign of life (whole seconds). `validity`: how long after sending a renewal we
    count on it; the ratio of both is how differently clocks may run. `interval` between renewals, `request` for one of
    them. `longest_call`: how long a call may last beyond the session.
    """

    duration: int = 10
    validity: float = 8.0
    interval: float = 2.0
    request: float = 1.0
    longest_call: float = 30.0

    def __post_init__(self) -> None:
        if not self.duration > self.validity > self.interval + self.request:
            raise ValueError("duration > validity > interval + request must hold")

    @property
    def grace(self) -> float:
        """From the last sign of life to the take-over of locks."""
        return self.duration + self.longest_call


class Session:
    """What the threads of a process share; `remaining`, `check` and `when_lost` may be called from any of them."""

    def __init__(
        self, identity: str, namespace: str, *, process: str, timing: Timing | None = None, clock: Clock | None = None
    ) -> None:
        """`identity`: of this process, never to be used again (pod uid and boot random, joined by a dot).

        `process`: what people call it, as the pod's name.
        """
        if not _IDENTITY.fullmatch(identity):
            raise ValueError(f"no part of an object's name: {identity!r}")
        self.identity = identity
        self.process = process
        self.timing = timing if timing is not None else Timing()
        self._namespace = namespace
        self._clock = clock if clock is not None else BootClock()
        self._guard = threading.Lock()
        self._until = float("-inf")
        self._lost: str | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._lease: Object = {}
        self._claims = itertools.count(1)

    # Asked by those who act

    def remaining(self) -> float:
        """Seconds for which this process is still known to be alive, without any further renewal; 0 once lost."""
        with self._guard:
            left = self._until - self._clock.monotonic()
            return left if self._lost is None and left > 0 else 0.0

    def check(self) -> None:
        """SessionLost unless it is alive. Found out of date, it is lost from then on, whatever its thread thinks."""
        if self.remaining() <= 0:
            self.lose("it was not renewed in time")
            raise SessionLost(f"the session {self.identity} is lost: {self._lost}")

    @property
    def lost(self) -> bool:
        """Whether it is over, for ever."""
        return self.remaining() <= 0

    def when_lost(self, listener: Callable[[str], None]) -> None:
        """Calls `listener(why)` as soon as it is lost, in the thread that finds out; at once if it is lost already."""
        with self._guard:
            why = self._lost
            if why is None:
                self._listeners.append(listener)
        if why is not None:
            listener(why)

    def lose(self, why: str, *, level: int = logging.WARNING) -> None:
        """Ends it for ever; only the first reason counts."""
        with self._guard:
            if self._lost is not None:
                return
            self._lost = why
            listeners, self._listeners = self._listeners, []
        _log.log(level, "the session is over", extra={"session": self.identity, "reason": why})
        for listener in listeners:
            listener(why)

    def next_claim(self) -> str:
        """The id of a claim of this process; never the same again."""
        return f"{self.identity}#{next(self._claims)}"

    # Done by the one that keeps it

    async def open(self, client: KubeClient) -> None:
        """Makes the Lease. An ApiError when that is refused, SessionLost when the identity is in use already."""
        spec = {"leaseDurationSeconds": self.timing.duration, "acquireTime": micro_timestamp(self._clock.now())}
        metadata = {"name": lease_name(self.identity), "namespace": self._namespace}
        lease = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
        spec |= {"holderIdentity": self.identity, "renewTime": spec["acquireTime"]}
        unclear = False
        while True:
            sent = self._clock.monotonic()
            try:
                async with asyncio.timeout(self.timing.request):
                    self._lease = await client.create(LEASES, lease)
            except errors.AlreadyExists as error:
                found = await client.get(LEASES, self._namespace, metadata["name"])
                if not unclear or found["spec"].get("acquireTime") != spec["acquireTime"]:
                    self.lose("its identity is in use")
                    raise SessionLost(f"the identity {self.identity} was used before") from error
                # Made by a request of ours whose answer was lost; nobody has a reason yet to count its age.
                self._lease, sent = found, self._clock.monotonic()
            except (errors.ServerUnavailable, errors.TooManyRequests, TimeoutError) as error:
                _log.warning("no session yet: %s", str(error) or "no answer")
                unclear = True
                await asyncio.sleep(_AGAIN)
                continue
            with self._guard:
                self._until = sent + self.timing.validity
            return

    async def keep(self, client: KubeClient) -> None:
        """Renews until it is lost, and returns then: at its end at the latest, also with a request under way."""
        pause = self.timing.interval
        while (left := self.remaining()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = self.timing.interval if await self._renew(client) else _AGAIN
        self.lose("it was not renewed in time")

    async def close(self, client: KubeClient) -> None:
        """An orderly end: nothing may be done under it from now on, and its Lease goes. Never raises an ApiError."""
        self.lose("it was closed", level=logging.INFO)
        if self._lease:
            try:
                async with asyncio.timeout(self.timing.request):
                    await client.delete(LEASES, Key.of(self._lease), uid=self._lease["metadata"]["uid"])
            except (errors.ApiError, TimeoutError) as error:
                _log.info("its Lease stays until somebody finds it dead: %s", str(error) or "no answer")

    async def _renew(self, client: KubeClient) -> bool:
        left = self.remaining()
        if left <= 0:
            return False
        sent = self._clock.monotonic()
        spec = {**self._lease["spec"], "renewTime": micro_timestamp(self._clock.now())}
        try:
            async with asyncio.timeout(min(self.timing.request, left)):
                self._lease = await client.replace(LEASES, {**self._lease, "spec": spec})
        except (errors.Conflict, errors.NotFound):
            await self._look(client)
            metrics.session_renewals.labels("conflict").inc()
            return False
        except (errors.ApiError, TimeoutError) as error:
            _log.warning("not renewed: %s", str(error) or "no answer", extra={"session": self.identity})
            metrics.session_renewals.labels("failed").inc()
            return False
        metrics.session_renewals.labels("ok").inc()
        with self._guard:
            # What was confirmed too late does not bring it back: others may have found it lost meanwhile.
            if self._lost is None and self._until > self._clock.monotonic():
                self._until = sent + self.timing.validity
        return True

    async def _look(self, client: KubeClient) -> None:
        """After a refusal: it was our own request with a lost answer, or somebody has ended this session."""
        try:
            async with asyncio.timeout(self.timing.request):
                found = await client.get(LEASES, self._namespace, lease_name(self.identity))
        except errors.NotFound:
            self.lose("its Lease was deleted")
        except (errors.ApiError, TimeoutError):
            return
        else:
            if found["metadata"]["uid"] != self._lease["metadata"]["uid"]:
                self.lose("its Lease was deleted")
            self._lease = found


class SessionThread:
    """Keeps a session in a thread of its own, with a client of its own: whatever the process does, it is renewed."""

    def __init__(self, session: Session, connect: Callable[[], Awaitable[KubeClient]]) -> None:
        """`connect`: makes the client, in that thread's event loop."""
        self._session = session
        self._connect = connect
        self._opened: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    async def start(self) -> None:
        """Returns once the session is alive. Raises what `connect` or `Session.open` raise."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def stop(self) -> None:
        """Closes the session and waits for the thread. Grants are to be released before."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, self._session.timing.request * 2 + 1)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            else:
                _log.exception("the session's thread ended")
        finally:
            self._session.lose("its thread ended")

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with await self._connect() as client:
            await self._session.open(client)
            self._opened.set_result(None)
            kept = asyncio.create_task(self._session.keep(client))
            stopped = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait((kept, stopped), return_when=asyncio.FIRST_COMPLETED)
                if kept.done():
                    kept.result()
            finally:
                for task in (kept, stopped):
                    task.cancel()
                await asyncio.gather(kept, stopped, return_exceptions=True)
                await self._session.close(client)
