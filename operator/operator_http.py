"""Health and metrics over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from engine.queue import KeyedQueue

STUCK_SECONDS = 600.0
"""Age of the oldest waiting key at which the process counts as stuck."""


@dataclass
class Health:
    """What the probes answer by."""

    queue: KeyedQueue
    ready: bool = False
    watching: Callable[[], bool] = lambda: False

    def live(self) -> str | None:
        """What is wrong with the process, or None."""
        if self.ready and not self.watching():
            return "a watch has ended"
        if self.queue.oldest_age() > STUCK_SECONDS:
            return f"the oldest key has waited for {self.queue.oldest_age():.0f} s"
        return None


async def serve(health: Health, address: str, port: int) -> web.AppRunner:
    """Serve /healthz, /readyz and /metrics; the runner's `cleanup` ends it. Raises OSError when the port is taken."""

    async def healthz(_: web.Request) -> web.Response:
        problem = health.live()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok" if health.ready else "starting", status=200 if health.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        health.queue.export_metrics()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
