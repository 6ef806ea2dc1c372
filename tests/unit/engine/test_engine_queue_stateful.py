"""Hypothesis plays a fleet against the queue: no key twice in work, none lost, limits and priorities kept."""

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.keys import Key
from engine.queue import KeyedQueue, Priority

KEYS = [Key("Thing", "ns", f"{group}{number}") for group in "xyz-" for number in range(3)]
LIMIT = 2


class HandClock:
    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


def group_of(key: Key) -> str | None:
    return None if key.name[0] == "-" else key.name[0]


class QueueMachine(RuleBasedStateMachine):
    """The model: `owed` are keys asked for whose work has not begun since; `due` the earliest due time of each."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        # Patience without end: the order is then strictly by priority, which the model can foretell.
        self.queue = KeyedQueue(self.clock, group_of=group_of, group_limit=LIMIT, patience=1e9, rng=random.Random(3))
        self.owed: dict[Key, Priority] = {}
        self.due: dict[Key, tuple[float, Priority]] = {}
        self.work: dict[Key, Priority] = {}

    def ask(self, key: Key, priority: Priority) -> None:
        self.owed[key] = min(priority, self.owed.get(key, priority))

    def promote(self) -> None:
        for key, (due, priority) in list(self.due.items()):
            if due <= self.clock.time:
                del self.due[key]
                self.ask(key, priority)

    def schedule(self, key: Key, delay: float, priority: Priority) -> None:
        due, held = self.due.get(key, (float("inf"), priority))
        self.due[key] = (min(due, self.clock.time + delay), min(held, priority))

    def full(self, key: Key, priority: Priority) -> bool:
        urgent = priority is Priority.URGENT
        same = [
            each
            for each, held in self.work.items()
            if group_of(each) == group_of(key) and (held is Priority.URGENT) is urgent
        ]
        return group_of(key) is not None and len(same) >= LIMIT

    @rule(key=st.sampled_from(KEYS), priority=st.sampled_from(Priority))
    def add(self, key: Key, priority: Priority) -> None:
        self.queue.add(key, priority)
        self.ask(key, priority)

    @rule(key=st.sampled_from(KEYS), delay=st.integers(1, 20), priority=st.sampled_from(Priority))
    def add_after(self, key: Key, delay: int, priority: Priority) -> None:
        self.queue.add_after(key, delay, priority)
        self.schedule(key, delay, priority)

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.clock.time += seconds

    @rule(lowest=st.sampled_from([Priority.PERIODIC, Priority.URGENT]))
    def take(self, lowest: Priority) -> None:
        self.promote()
        open_to = {
            key: priority
            for key, priority in self.owed.items()
            if key not in self.work and priority <= lowest and not self.full(key, priority)
        }
        taken = self.queue.take(lowest)
        if not open_to:
            assert taken is None
            return
        assert taken is not None, "work is there and nothing keeps it from being handed out"
        assert taken not in self.work, "two workers on one key"
        assert taken in open_to, "never asked for, or its group is full"
        assert open_to[taken] == min(open_to.values()), "something more urgent was passed over"
        self.work[taken] = self.owed.pop(taken)
        assert self.queue.priority_of(taken) == self.work[taken]

    @precondition(lambda self: self.work)
    @rule(data=st.data(), failed=st.booleans())
    def finish(self, data: st.DataObject, failed: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.work)))
        if failed:
            priority = self.work[key]
            self.schedule(key, self.queue.retry(key), priority)
        else:
            self.queue.forget(key)
        self.queue.done(key)
        del self.work[key]

    @invariant()
    def figures_agree(self) -> None:
        assert self.queue.in_work() == len(self.work)
        waiting = [key for key in self.owed if key not in self.work]
        assert self.queue.depth() + self.queue.scheduled() <= len(waiting) + len(self.due)

    def teardown(self) -> None:
        """Nothing is lost: everything asked for is handed out in the end."""
        for key in list(self.work):
            self.queue.done(key)
        self.work.clear()
        self.clock.time += 1000
        self.promote()
        handed = set()
        while (key := self.queue.take()) is not None:
            handed.add(key)
            self.queue.done(key)
        assert handed == set(self.owed)


QueueMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestQueueMachine = QueueMachine.TestCase
