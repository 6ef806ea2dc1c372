"""What a lab remembers is never mixed up, lost between threads, or taken for something else."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.state import Process, State, adopt, write_atomically


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "lab")
    state.create()
    return state


def test_folder_is_the_argument_then_the_variable_then_the_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_STATE", "/somewhere/lab")
    assert State("mine").folder == tmp_path / "mine"
    assert State().folder == Path("/somewhere/lab")
    monkeypatch.delenv("LAB_STATE")
    assert State().folder == tmp_path / ".lab"


def test_facts_written_by_many_threads_are_all_kept(state):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: state.remember(**{f"fact{number}": number}), range(40)))
    assert state.facts == {f"fact{number}": number for number in range(40)}


def test_none_forgets_a_fact(state):
    state.remember(port=1, other=2)
    state.remember(port=None)
    assert state.facts == {"other": 2}


def test_recorded_process_is_found_while_it_lives(state):
    with subprocess.Popen(["sleep", "60"]) as child:
        process = Process.of(child.pid)
        assert process is not None
        state.record("sleeper", process)
        assert state.process("sleeper") == process
        assert state.recorded() == ["sleeper"]
        child.kill()
    assert state.process("sleeper") is None


def test_recycled_pid_is_not_the_recorded_process(state):
    ourselves = Process.of(os.getpid())
    assert ourselves is not None
    state.record("earlier", Process(ourselves.pid, ourselves.started - 1))
    assert state.process("earlier") is None


def test_zombie_counts_as_ended():
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Process.of(child.pid) is None
        assert not Process(child.pid, 0).alive()
    assert child.returncode == 3


def test_adopted_child_leaves_no_zombie():
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
    adopt(pid)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not Process(pid, 0).alive()
    assert not Path(f"/proc/{pid}").exists()


def test_process_whose_name_holds_parentheses_and_spaces_is_read_right(tmp_path):
    program = tmp_path / "a) R (b"
    program.write_text("#!/bin/sh\nsleep 60 & wait\n")
    program.chmod(0o755)
    with subprocess.Popen([str(program)], start_new_session=True) as child:
        process = Process.of(child.pid)
        assert process is not None
        assert process.alive()
        os.killpg(child.pid, 9)


def test_write_atomically_replaces_content_and_mode_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, "new", 0o600)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
