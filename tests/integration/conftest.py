"""What holds for every test on the lab: a failure shows what the lab's programs logged meanwhile."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from lab import Lab

SHOWN = 4000
"""Characters of each log, from its end."""
_LOGS = ("logs/operator.log", "logs/kvm*.log", "hosts/*/log/libvirtd.log", "hosts/*/log/qemu/*.log")
_before = pytest.StashKey[dict[Path, int]]()


def _logs(item: pytest.Item) -> dict[Path, int]:
    """Size of each log of the lab that the tests run in, and of the test's own."""
    states = [Path(os.environ.get("LAB_STATE", ".lab"))]
    own = getattr(item, "funcargs", {}).get("lab")
    if isinstance(own, Lab):
        states.append(own.state.folder)
    return {path: path.stat().st_size for state in states for pattern in _LOGS for path in sorted(state.glob(pattern))}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    item.stash[_before] = _logs(item)
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for path, size in _logs(item).items():
            begin = item.stash.get(_before, {}).get(path, 0)
            if size > begin:
                text = path.read_bytes()[max(begin, size - SHOWN) :].decode(errors="replace")
                report.sections.append((f"{path.parent.parent.name}/{path.name}", text))
    return report
