"""What holds for every test of the project."""

import asyncio

# Up to Python 3.13, asking for the event loop where none was ever set makes one, which nobody closes; looptime asks
# around every test, also synchronous ones. Once "none" has been set, asking is an answerable question.
asyncio.set_event_loop(None)
