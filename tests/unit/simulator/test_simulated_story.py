"""The simulated API server takes the story in; the integration tests compare it with the real one."""

from __future__ import annotations

import asyncio
import random

from engine.clock import LoopClock
from engine.transport import Transport
from simulator.apiserver import ApiServer
from simulator.channel import ApiChannel, Faults
from simulator.doors import OpenGate
from simulator.loop import Scope, run
from tests.integration.api.story import Outcome, Story


async def simulated(namespace: str) -> list[Outcome]:
    """The story, as the simulated API server goes through it."""
    rng = random.Random(1)
    server = ApiServer(LoopClock(), asyncio.get_running_loop().call_later, rng)
    channel = ApiChannel(server, Faults(), Scope("story"), OpenGate(), rng)
    return await Story(Transport(channel), namespace).tell()


def test_the_story_is_told_to_its_end():
    outcomes = dict(run(simulated("tale")))
    assert outcomes["front is gone"] and outcomes["held is gone"] and outcomes["child is gone"]
    assert outcomes["nothing new"] == ["Forbidden", 403]
    assert outcomes["a conflict"] == ["Conflict", 409]
