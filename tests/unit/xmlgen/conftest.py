"""The switch that writes golden files anew: `pytest tests/unit/xmlgen --regenerate-golden`."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

SCHEMAS = Path("/usr/share/libvirt/schemas")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="write the golden documents anew")


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--regenerate-golden", default=False))


def _schema(name: str) -> etree.RelaxNG:
    path = SCHEMAS / name
    if not path.is_file():
        pytest.fail(f"{path} is missing: install the Debian package libvirt0, which ships libvirt's schemas")
    return etree.RelaxNG(etree.parse(path))


@pytest.fixture(scope="session")
def domain_schema() -> etree.RelaxNG:
    return _schema("domain.rng")


@pytest.fixture(scope="session")
def volume_schema() -> etree.RelaxNG:
    return _schema("storagevol.rng")


@pytest.fixture(scope="session")
def pool_schema() -> etree.RelaxNG:
    return _schema("storagepool.rng")
