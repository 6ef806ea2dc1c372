"""Fixtures: a lab of one libvirt host without an API server, and a connection to it that leaves no domain behind."""

from __future__ import annotations

from collections.abc import Iterator

import libvirt
import pytest

from lab.api import Lab
from lab.hosts import Host
from lab.processes import marked

KEEP_NVRAM = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab, with its host kvm1."""
    lab = Lab(tmp_path_factory.mktemp("one_host") / "lab")
    try:
        lab.up(1, control_plane=False)
        yield lab
    finally:
        lab.down()
    assert not marked(lab.state)


@pytest.fixture(scope="module")
def host(lab: Lab) -> Host:
    """The host."""
    return lab.host("kvm1")


@pytest.fixture
def connection(host: Host) -> Iterator[libvirt.virConnect]:
    """A connection to its daemon."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open(host.uri_unix)
    yield connection
    for found in connection.listAllDomains():
        if found.isActive():
            found.destroy()
        found.undefineFlags(KEEP_NVRAM)
    connection.close()
