"""Virtual time for tests of coroutines."""

import pytest

# Plain: when all wait, the clock moves to the next timer at once. looptime would turn 42 empty rounds before each step.
virtual_time = pytest.mark.looptime(end=1_000_000, noop_cycles=0)
"""For a module (`pytestmark = virtual_time`) or one test. The world ends after 1,000,000 s."""
