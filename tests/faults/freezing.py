"""A controller that stands still between its check and its call, while another one works."""

from __future__ import annotations

import asyncio
from contextvars import Context

from simulator.doors import Call, Send
from simulator.process import ControllerProcess
from simulator.scene import Scene


class FreezeOnce:
    """Stops the controller in whose doors it stands right before a call, with another one beside it."""

    def __init__(self, scene: Scene, verb: str, seconds: float | None, *, nth: int = 1) -> None:
        """`verb`: the call that is held up (`verb:kind`, or a part of that), or a field that it writes; `nth`: which of
        its like. `seconds` None: until it is thawed.
        """
        self.scene, self.verb, self.seconds = scene, verb, seconds
        self.process: ControllerProcess | None = None
        """Who stands still, once somebody does."""
        self._left = nth

    @property
    def done(self) -> bool:
        """Whether the call came."""
        return self.process is not None

    def thaw(self) -> None:
        """Have it go on."""
        assert self.process is not None, "nobody was frozen"
        self.process.thaw()

    async def enter(self, call: Call, send: Send) -> None:
        """See doors.Gate."""
        if not self.done and call.acts and self.verb in f"{call.verb}:{call.kind}":
            self._left -= 1
            if self._left == 0:
                await self._freeze()
        send(0.0, _nothing)

    async def _freeze(self) -> None:
        self.process = self.scene.controller
        self.process.freeze()
        self.scene.restart_in(0.5)
        if self.seconds is not None:
            asyncio.get_running_loop().call_later(self.seconds, self.process.thaw, context=Context())
        await asyncio.sleep(0)


def hold_up(scene: Scene, verb: str, seconds: float | None, *, nth: int = 1) -> FreezeOnce:
    """Have the newest controller freeze before that call."""
    gate = FreezeOnce(scene, verb, seconds, nth=nth)
    scene.controller.gate.inner = gate
    return gate


def _nothing() -> None:
    """Nobody waits for it."""
