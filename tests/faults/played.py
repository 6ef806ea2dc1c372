"""How a test of this folder plays: a story told to a scene in virtual time, and the oracle's judgement of its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from simulator import oracle
from simulator.loop import Deadlock, Livelock, run
from simulator.scene import NotSettled, Scene

Story = Callable[[Scene], Awaitable[None]]


def problems_of(story: Story, seed: int) -> list[str]:
    """Everything that is wrong after the story was played under that seed, with its log if there is something."""

    async def played() -> list[str]:
        scene = Scene(seed)
        await scene.infrastructure()
        try:
            await story(scene)
            await scene.settled()
        except (NotSettled, AssertionError) as error:
            return [str(error), *oracle.judge(scene)]
        finally:
            scene.end()
        return oracle.judge(scene)

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return run(played())
    except (Deadlock, Livelock) as error:
        return [f"{type(error).__name__}: {error}"]
    finally:
        logging.disable(before)


def play(story: Story, seeds: range) -> None:
    """Play the story under each seed. AssertionError with the first seed that ends wrong."""
    for seed in seeds:
        found = problems_of(story, seed)
        assert not found, "\n".join([f"seed {seed}:", *found])
