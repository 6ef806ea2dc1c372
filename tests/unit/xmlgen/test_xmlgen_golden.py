"""Each golden document: as it was, valid by libvirt's schema, and taken by libvirt's test driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from tests.unit.xmlgen.cases import CASES, LINUX, UUID
from xmlgen.domain import generate, render
from xmlgen.metadata import NAMESPACE

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def connection() -> Iterator[libvirt.virConnect]:
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


@pytest.mark.parametrize("case", CASES)
def test_the_document_is_as_it_was(case: str, regenerate: bool) -> None:
    document = render(generate(CASES[case]), LINUX)
    golden = GOLDEN / f"{case}.xml"
    if regenerate:
        golden.write_text(document)
    assert document == golden.read_text()


def test_no_golden_document_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_the_document_is_valid(case: str, domain_schema: etree.RelaxNG) -> None:
    domain_schema.assertValid(etree.fromstring(render(generate(CASES[case]), LINUX)))


@pytest.mark.parametrize("case", CASES)
def test_libvirt_takes_the_document(case: str, connection: libvirt.virConnect) -> None:
    root = etree.fromstring(render(generate(CASES[case]), LINUX))
    root.set("type", "test")
    domain = connection.defineXML(etree.tostring(root, encoding="unicode"))
    try:
        assert domain.UUIDString() == UUID
        stored = etree.fromstring(domain.XMLDesc())
        # The whole document, as libvirt understood it: nothing that was written is lost.
        for path in ("devices/disk", "devices/interface", "devices/rng", "devices/watchdog", "devices/panic"):
            assert len(stored.findall(path)) == len(root.findall(path)), path
        assert stored.find(f"metadata/{{{NAMESPACE}}}vm").get("name") == "web"
    finally:
        domain.undefine()
