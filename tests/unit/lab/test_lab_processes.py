"""Processes are started so that they can be found and ended, and waits end with the reason."""

import os
import time
from pathlib import Path

import pytest

from lab.errors import CommandFailedError, DeadlineError, LabError
from lab.processes import children, end, end_tree, entering, marked, run, send, spawn, wait_until
from lab.state import Process, State


@pytest.fixture
def state(tmp_path: Path):
    state = State(tmp_path / "lab")
    state.create()
    yield state
    end(marked(state), grace=0)


def test_run_returns_what_the_command_says():
    assert run(["cat"], stdin="hello") == "hello"


def test_failed_command_says_which_and_why():
    with pytest.raises(CommandFailedError, match="exit status 3: no such thing") as caught:
        run(["sh", "-c", "echo no such thing >&2; exit 3"])
    assert caught.value.code == 3


def test_run_gives_up_in_time():
    with pytest.raises(DeadlineError, match=r"0\.1 s"):
        run(["sleep", "60"], timeout=0.1)


def test_missing_program_points_to_setup():
    with pytest.raises(LabError, match=r"lab/setup\.py"):
        run(["no-such-program-at-all"])


def test_spawned_process_is_recorded_logged_marked_and_in_its_own_session(state):
    process = spawn(state, "talker", ["sh", "-c", 'echo "$COLOUR"; sleep 60'], environment={"COLOUR": "green"})
    assert state.process("talker") == process
    assert os.getsid(process.pid) == process.pid
    wait_until("its word", lambda: "green" in state.log("talker").read_text(), 5)
    wait_until("its child", lambda: len(marked(state)) == 2, 5)


def test_marks_of_other_labs_are_not_ours(state, tmp_path):
    other = State(tmp_path / "lab2")
    process = spawn(other, "theirs", ["sleep", "60"])
    wait_until("its mark", lambda: marked(other), 5)
    assert marked(state) == []
    end([process], grace=0)


def test_end_tree_ends_children_too_and_stubborn_ones(state):
    process = spawn(state, "stubborn", ["sh", "-c", "trap '' TERM; sleep 61 & while :; do sleep 0.1; done"])
    wait_until("its children", lambda: len(children(process.pid)) == 2, 5)
    offspring = [Process.of(pid) for pid in children(process.pid)]
    end_tree(process, grace=0.2)
    assert not process.alive()
    assert not any(child.alive() for child in offspring if child)


def test_end_asks_first(state):
    process = spawn(state, "polite", ["sh", "-c", "trap 'echo bye; exit' TERM; echo ready; sleep 60 & wait"])
    wait_until("its trap", lambda: "ready" in state.log("polite").read_text(), 5)
    end([process])
    assert "bye" in state.log("polite").read_text()


def test_signal_never_reaches_a_process_that_started_at_another_time(state):
    process = spawn(state, "innocent", ["sleep", "60"])
    assert not send(Process(process.pid, process.started - 1), 9)
    assert process.alive()


def test_wait_returns_what_the_probe_found():
    found = iter([None, "", "treasure"])
    assert wait_until("treasure", lambda: next(found), 5) == "treasure"


def test_wait_fails_with_the_log_when_time_is_over(state):
    state.log("x").write_text("the reason\n")
    with pytest.raises(DeadlineError, match=r"(?s)a miracle: not within 0\.05 s.*the reason"):
        wait_until("a miracle", lambda: None, 0.05, log=state.log("x"))


def test_wait_fails_at_once_when_the_process_has_ended(state):
    process = spawn(state, "dying", ["sh", "-c", "sleep 0.1; echo last words"])
    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"(?s)its process ended.*last words"):
        wait_until("an answer", lambda: None, 30, process=process, log=state.log("dying"))
    assert time.monotonic() - began < 10


def test_entering_nothing_is_nothing_and_default_is_network_and_mounts():
    assert entering(None) == []
    assert entering(7) == ["nsenter", "--target", "7", "--net", "--mount", "--"]
    assert entering(7, "uts") == ["nsenter", "--target", "7", "--uts", "--"]
