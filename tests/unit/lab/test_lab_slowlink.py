"""A slow lane keeps order, delays every frame by the same time, and loses what a cable would lose."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.slowlink import Lane


@given(st.lists(st.floats(0, 10), max_size=30), st.floats(0, 5))
def test_every_frame_leaves_in_order_and_never_early(times, delay):
    arrivals = sorted(times)
    frames = iter(range(len(arrivals)))
    left = []
    clock = 0.0
    lane = Lane(lambda: bytes([next(frames)]), lambda frame: left.append((clock, frame[0])), delay)
    for clock in arrivals:
        lane.take(clock)
        lane.deliver(clock)
    clock = 100.0
    assert lane.deliver(clock) is None
    assert [frame for _, frame in left] == list(range(len(arrivals)))
    assert all(moment >= arrivals[frame] + delay for moment, frame in left)


def test_deliver_tells_when_the_next_frame_is_due():
    lane = Lane(lambda: b"x", lambda frame: None, 0.5)
    lane.take(10.0)
    assert lane.deliver(10.2) == pytest.approx(0.3)


def test_frame_too_many_is_lost():
    left = []
    lane = Lane(lambda: b"x", left.append, 1, limit=2)
    for _ in range(3):
        lane.take(0)
    lane.deliver(2)
    assert len(left) == 2


def raising(number):
    def action(*_):
        raise OSError(number, "no")

    return action


def test_link_that_is_down_loses_frames_silently():
    Lane(raising(errno.ENETDOWN), raising(errno.ENETDOWN), 0).take(0)
    lane = Lane(lambda: b"x", raising(errno.ENETDOWN), 0)
    lane.take(0)
    assert lane.deliver(1) is None


def test_other_errors_are_not_swallowed():
    with pytest.raises(OSError, match="no"):
        Lane(raising(errno.EBADF), raising(errno.EBADF), 0).take(0)
