"""Hostler as a whole, on the lab's real parts: one operator for all tests of this folder, a namespace for each.

The tests run inside the lab (`make test` sees to it): LAB_STATE names it. Whatever a test breaks it mends, and after
each one every host is connected again and the oracle must be silent.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from lab import Lab
from lab.oracle import Oracle
from tests.integration.system.cluster import Cluster
from tools.deployment import Deployment

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def lab() -> Lab:
    """The lab that the tests run in."""
    lab = Lab()
    if not lab.control.is_inside():
        pytest.fail(
            "these tests run inside a lab: `make test`, or `python -m lab up && python -m lab exec -- pytest …`"
        )
    return lab


@pytest.fixture(scope="package")
def deployment(lab: Lab) -> Iterator[Deployment]:
    """Hostler's manifests applied, and its operator running under its own account."""
    deployment = Deployment(lab)
    deployment.install()
    deployment.stop()
    deployment.start()
    yield deployment
    deployment.stop()


@pytest.fixture(scope="package")
def infrastructure(deployment: Deployment) -> Cluster:
    """Three hosts Up in a pool, shared and host-local storage, and a network."""
    cluster = Cluster(deployment, "default")
    cluster.declare_infrastructure()
    return cluster


@pytest.fixture
def cluster(infrastructure: Cluster, deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A namespace of its own in a cluster that is whole; afterwards nothing of it is left, nowhere."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:30].strip("-")
    cluster = Cluster(deployment, f"t{next(_numbers)}-{words}")
    cluster.create_namespace()
    oracle = Oracle(cluster.lab.state, from_now=True)
    yield cluster
    cluster.mend()
    cluster.delete_namespace()
    assert oracle.check() == []
