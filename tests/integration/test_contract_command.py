"""Users try a host of their own with `python -m drivers.contract`: here one of the lab's.

Runs inside the lab (`python -m lab exec -- python -m pytest ...`); LAB_STATE names it.
"""

from __future__ import annotations

import subprocess
import sys

from lab.api import Lab


def contract(*arguments: str) -> subprocess.CompletedProcess[str]:
    lab = Lab()
    command = [sys.executable, "-m", "drivers.contract", "--credentials", str(lab.state.pki / "client")]
    command += ["--uri", lab.host("kvm1").uri_tls, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_host_is_tried_with_a_line_for_each_check() -> None:
    checks = ["a_connected_host_says_what_it_is", "destroying_may_be_repeated", "a_killed_guest_has_crashed"]
    chosen = [argument for check in checks for argument in ("--check", check)]
    done = contract("--directory", "/srv/local/", "--latencies", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["ok", "ok", "not"]
    assert [check for check, line in zip(checks, lines, strict=False) if check in line] == checks
    assert "needs root on the host" in lines[2]
    assert "2 kept, 0 failed, 1 not run" in lines
    assert any(line.startswith('    "start": Latency(') for line in lines)


def test_a_promise_that_is_not_kept_is_named_and_the_status_says_so() -> None:
    # sysfs answers to every new file: no.
    done = contract("--directory", "/sys/class/net", "--check", "a_volume_is_never_overwritten")
    assert done.returncode == 1
    assert "failed" in done.stdout and "promised: Making a volume" in done.stdout
    assert "0 kept, 1 failed, 0 not run" in done.stdout


def test_a_directory_that_is_not_there_is_said_so_at_once() -> None:
    done = contract("--directory", "/srv/none")
    assert done.returncode == 1
    assert "the directory /srv/none of the host cannot be used: PathMissing" in done.stderr
    assert done.stdout == ""
