"""Hostler on the lab's real parts, with faults between all of them. `make faults-real` sees to the lab.

The operator reaches the API server through the lab's proxy; the tests do not. Slices (SLICE=i/n) share the work, and
what has passed for a commit is not run again: the file that RESULTS names remembers it, with the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab
from lab.apifaults import ApiFaults
from tests.faults_real.crashing import Crashing
from tests.faults_real.results import Figures, Results, slice_of
from tests.integration.system.cluster import Cluster
from tests.integration.system.conftest import cluster, infrastructure, lab
from tools.deployment import Deployment

__all__ = ["cluster", "infrastructure", "lab"]  # fixtures, used by name

_results = pytest.StashKey[Results]()


def pytest_configure(config: pytest.Config) -> None:
    named = os.environ.get("RESULTS")
    config.stash[_results] = Results(Path(named) if named else None, version())


def version() -> str:
    """What is under test: the commit, and a hash of what was changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changes = subprocess.run([*git, "diff", "HEAD"], capture_output=True, check=True).stdout
    hashed = subprocess.run([*git, "hash-object", "--stdin"], input=changes, capture_output=True, check=True).stdout
    return f"{commit}+{hashed.decode()[:12]}" if changes else commit


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    chosen = set(slice_of([item.nodeid for item in here], os.environ.get("SLICE", "1/1")))
    passed = config.stash[_results].passed
    out = [item for item in here if item.nodeid not in chosen or item.nodeid in passed]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "teardown" and report.passed and item.stash.get(_called, False):
        item.config.stash[_results].record(item.nodeid)
    if report.when == "call":
        item.stash[_called] = report.passed
    return report


_called = pytest.StashKey[bool]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash[_results].table():
        terminalreporter.write_line(line)


@pytest.fixture(scope="package")
def deployment(lab: Lab) -> Iterator[Deployment]:
    """Hostler's operator, which reaches the API server through the proxy."""
    deployment = Deployment(lab)
    lab.api_faults.up()
    lab.api_faults.clear()
    deployment.install()
    deployment.kubeconfig.write_text(lab.api_faults.through(deployment.kubeconfig.read_text()))
    deployment.stop()
    deployment.start()
    yield deployment
    deployment.stop()


@pytest.fixture
def faults(cluster: Cluster) -> Iterator[ApiFaults]:
    """Faults before the operator's API server; none stays."""
    faults = cluster.lab.api_faults
    yield faults
    faults.clear()


@pytest.fixture
def crashing(cluster: Cluster, tmp_path: Path) -> Iterator[Crashing]:
    """An operator that dies at a chosen call; afterwards the usual one runs again."""
    yield Crashing(cluster, tmp_path)
    cluster.deployment.kill()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Where a test says what it has measured."""
    return Figures(request.config.stash[_results], request.node.nodeid)


@pytest.fixture(scope="session")
def full_time() -> bool:
    """Whether faults last as long as they are claimed to be outlived (FULL_TIME=1), not a tenth of it."""
    return bool(json.loads(os.environ.get("FULL_TIME") or "0"))
