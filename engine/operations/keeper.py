"""The session of a process, for its operations: opened when the first of them needs a lock, anew after it was lost.

A process without operations has none, and renews nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine import errors
from engine.clock import Clock
from engine.kube import KubeClient
from engine.locks import Abandoned, Grant, Locks, Recover, Session

OPEN_SECONDS = 10.0
"""How long one who needs a lock waits for the session; later it is tried again."""


@dataclass(frozen=True)
class Alive:
    """A session that is being kept. `stop`: an orderly end of it; its grants were released or left before."""

    session: Session
    stop: Callable[[], Awaitable[None]]


Begin = Callable[[], Awaitable[Alive]]
"""Opens a session with an identity that was never used, and keeps it from then on. An ApiError, or SessionLost."""


class Keeper:
    """`recover` is the hook of the locks; it is set before the first of them is taken."""

    def __init__(
        self, begin: Begin, client: KubeClient, *, namespace: str, clock: Clock | None, rng: random.Random
    ) -> None:
        """`namespace`: the operator's own, where Leases are. `clock`: None for that of locks."""
        self.recover: Recover | None = None
        self._begin = begin
        self._client = client
        self._namespace = namespace
        self._clock, self._rng = clock, rng
        self._opening: asyncio.Task[Alive] | None = None
        self._alive: Alive | None = None
        self._locks: Locks | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def locks(self) -> Locks:
        """The locks of a session that is alive. An ApiError when it could not be opened."""
        if self._locks is not None and not self._locks.session.lost:
            return self._locks
        self.lost()
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        opening = self._opening
        done, _ = await asyncio.wait((opening,), timeout=OPEN_SECONDS)
        if not done:
            raise errors.ServerUnavailable(0, "NoSession", f"no session was opened in {OPEN_SECONDS:g} s")
        if self._opening is opening:
            self._opening = None
        alive = opening.result()
        if self._alive is not alive:
            self._alive = alive
            self._locks = Locks(
                self._client,
                alive.session,
                namespace=self._namespace,
                recover=self._recovered,
                clock=self._clock,
                rng=self._rng,
            )
        assert self._locks is not None, "it was made with the session"
        return self._locks

    def lost(self) -> None:
        """The session is over, or was found to be: what is left of it ends by itself."""
        if self._locks is None or not self._locks.session.lost:
            return
        locks, alive, self._locks, self._alive = self._locks, self._alive, None, None
        ending = asyncio.get_running_loop().create_task(self._end(locks, alive))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """An orderly end; every grant was released or left."""
        locks, alive, self._locks, self._alive = self._locks, self._alive, None, None
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        await self._end(locks, alive)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _open(self) -> Alive:
        return await self._begin()

    async def _recovered(self, abandoned: Abandoned, grant: Grant) -> None:
        assert self.recover is not None, "whoever takes locks says how they are recovered"
        await self.recover(abandoned, grant)

    @staticmethod
    async def _end(locks: Locks | None, alive: Alive | None) -> None:
        if locks is not None:
            await locks.close()
        if alive is not None:
            await alive.stop()
