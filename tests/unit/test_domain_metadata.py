"""The stamp of a domain is written in one room and read in another, and neither may import the other."""

from __future__ import annotations

from drivers import xmlread
from drivers.model import Identity as Read
from xmlgen.metadata import NAMESPACE, PREFIX, Identity, metadata_xml

UUID = "6a1f1d0e-5b0e-4a53-9a39-4f4b0f0a8f11"


def test_a_driver_reads_what_is_stamped() -> None:
    sections = (("cpu", "1f"), ("ua-disk-root", "2e"))
    stamp = metadata_xml(Identity("installation", "team", "web", "uid-1", 7), sections)
    document = f"<domain><name>team.web</name><uuid>{UUID}</uuid><metadata>{stamp}</metadata></domain>"
    observed = xmlread.read_domain(document)
    assert observed.identity == Read("installation", "team", "web", "uid-1", 7)
    assert observed.sections == sections


def test_both_speak_of_one_namespace_and_key() -> None:
    assert (xmlread.METADATA_URI, xmlread.METADATA_KEY) == (NAMESPACE, PREFIX)
