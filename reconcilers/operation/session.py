"""How the session of a process is opened, for the locks of its operations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from engine.clock import Clock
from engine.kube import KubeClient
from engine.locks import Session, SessionThread
from engine.operations import Alive
from engine.operations.keeper import Begin


def in_thread(
    connect: Callable[[], Awaitable[KubeClient]], namespace: str, process: str, new_id: Callable[[], str]
) -> Begin:
    """Kept in a thread of its own, with a client of its own: a controller that is busy is still alive."""

    async def begin() -> Alive:
        session = Session(new_id(), namespace, process=process)
        thread = SessionThread(session, connect)
        await thread.start()
        return Alive(session, thread.stop)

    return begin


def in_loop(
    client: KubeClient, namespace: str, process: str, new_id: Callable[[], str], clock: Clock | None = None
) -> Begin:
    """Kept in the loop of the controller, where there are no threads: in virtual time."""

    async def begin() -> Alive:
        session = Session(new_id(), namespace, process=process, clock=clock)
        await session.open(client)
        kept = asyncio.get_running_loop().create_task(session.keep(client))

        async def stop() -> None:
            kept.cancel()
            await asyncio.gather(kept, return_exceptions=True)
            await session.close(client)

        return Alive(session, stop)

    return begin
