"""What holds for every test of the project."""

import asyncio
import gc

# Up to Python 3.13, asking for the event loop where none was ever set makes one, which nobody closes; looptime asks
# around every test, also synchronous ones. Once "none" has been set, asking is an answerable question.
asyncio.set_event_loop(None)


def pytest_collection_finish() -> None:
    """Have nobody look for garbage among modules and collected tests: the simulator asks for a whole search at the end
    of each run, which took 0.1 s for them alone.
    """
    gc.collect()
    gc.freeze()
