"""`python -m drivers.contract`: what it says without any host, and how it sums up."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.contract import Contract
from drivers.contract.__main__ import main
from drivers.contract.timings import Timings


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_the_list_names_every_check_and_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(check.name in said and check.promise in said for check in Contract.checks())


def test_bad_arguments_say_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tls = "qemu+tls://kvm1/system"
    assert "--uri is needed" in refused(capsys)
    assert "there is no check 'nope'" in refused(capsys, "--uri", tls, "--check", "nope")
    assert "begins with qemu+tls://" in refused(capsys, "--uri", "http://kvm1/")
    assert "is no folder" in refused(capsys, "--uri", tls, "--credentials", str(tmp_path / "none"))
    assert "needs ca.crt, tls.crt, tls.key" in refused(capsys, "--uri", tls, "--credentials", str(tmp_path))
    assert "begins with /" in refused(capsys, "--uri", "qemu+tcp://kvm1/system", "--directory", "images")


def test_a_host_where_nothing_listens_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--uri", "qemu+tcp://127.0.0.1:1/system"]) == 1
    assert "no connection to the host: Unreachable:" in capsys.readouterr().err


def test_only_calls_that_were_answered_are_timed() -> None:
    timings = Timings()
    for milliseconds in range(1, 102):
        timings("start", milliseconds / 1000, "ok")
    timings("start", 60.0, "HostTimeout")
    timings("define", 0.004, "ok")
    assert timings.table().splitlines() == [
        '    "define": Latency(0.0040, 0.0040),  # 1 calls',
        '    "start": Latency(0.0510, 0.0960),  # 101 calls',
    ]
