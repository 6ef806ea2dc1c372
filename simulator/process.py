"""One controller as a process: begun, killed, frozen and thawed at any moment."""

from __future__ import annotations

import asyncio
import random
from contextvars import Context
from typing import Any

from engine.clock import Clock
from engine.kube import KubeClient
from engine.transport import Transport
from reconcilers.runtime import CannotList, Runtime
from simulator.apiserver import ApiServer
from simulator.channel import ApiChannel, Faults, WatchStream
from simulator.doors import Doorway, Gate, OpenGate
from simulator.hosts import DelayNext, HostsDoor
from simulator.loop import Scope, VirtualLoop
from simulator.web import WebServer

INSTALLATION = "11111111-1111-4111-8111-111111111111"
NAMESPACE = "hostler-system"


class ControllerProcess:
    """One controller with a runtime, a client and connections of its own."""

    def __init__(
        self,
        name: str,
        server: ApiServer,
        faults: Faults,
        directory: Any,
        delay_next: DelayNext,
        *,
        clock: Clock,
        rng: random.Random,
        web: WebServer,
        gate: Gate | None = None,
        installation: str = INSTALLATION,
    ) -> None:
        """`directory`: the driver's, made for this process alone; it is told when the process dies."""
        self.name = name
        self.scope = Scope(name)
        self.failure: BaseException | None = None
        self._server, self._faults, self._rng = server, faults, rng
        self._directory = directory
        self.gate = Doorway(gate if gate is not None else OpenGate())
        self.hosts = HostsDoor(directory, self.scope, self.gate, delay_next)
        self._client = KubeClient(Transport(ApiChannel(server, faults, self.scope, self.gate, rng)))
        self.runtime: Runtime | None = None
        self.watch: WatchStream | None = None
        self._settings = {
            "clock": clock,
            "locks_clock": clock,
            "installation": installation,
            "rng": rng,
            "connector": web.connector,
        }

    def start(self) -> None:
        """Begin, as the operator begins."""
        self._task = self.scope.run(self._main())

    def kill(self) -> None:
        """SIGKILL: nothing more is sent or heard; what is on its way arrives."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.kill(self.scope)
        Context().run(self._directory.kill)

    def freeze(self) -> None:
        """SIGSTOP."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.hosts.freeze()
        loop.freeze(self.scope)

    def thaw(self) -> None:
        """SIGCONT."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.thaw(self.scope)
        self.hosts.thaw()

    async def _main(self) -> None:
        try:
            while self.runtime is None:
                runtime = Runtime(
                    self._client,
                    self.hosts,
                    namespace=NAMESPACE,
                    instance=self.name,
                    **self._settings,  # type: ignore[arg-type]
                )
                try:
                    await runtime.load()
                except CannotList:
                    # The process ends, and is begun again by whoever looks after it.
                    await asyncio.sleep(self._rng.uniform(1.0, 10.0))
                    continue
                self.runtime = runtime
            self.watch = WatchStream(self._server, self.runtime, self.scope, self._faults, self._rng)
            Context().run(self.watch.start)
            self.runtime.start()
            self.failure = await self.runtime.ended()
        except Exception as error:
            self.failure = error
            raise
