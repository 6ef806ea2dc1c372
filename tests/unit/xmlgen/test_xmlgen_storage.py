"""Volumes and pools."""

from __future__ import annotations

import libvirt
import pytest
from lxml import etree

from xmlgen.pool import directory_pool_xml
from xmlgen.volume import Layer, volume_xml


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_a_volume(kind: str, volume_schema: etree.RelaxNG) -> None:
    volume = etree.fromstring(volume_xml("a & <b>.qcow2", kind, 20 * 2**30))
    volume_schema.assertValid(volume)
    assert volume.findtext("name") == "a & <b>.qcow2"
    assert volume.findtext("capacity") == str(20 * 2**30)
    assert volume.findtext("allocation") == "0"
    assert volume.find("target/format").get("type") == kind
    assert volume.find("backingStore") is None


def test_an_overlay_names_the_layer_below_and_its_format(volume_schema: etree.RelaxNG) -> None:
    overlay = etree.fromstring(volume_xml("s2.qcow2", "qcow2", 2**20, Layer("base.raw", "raw")))
    assert overlay.findtext("backingStore/path") == "base.raw"
    assert overlay.find("backingStore/format").get("type") == "raw"
    # libvirt takes a bare name (the driver's contract shows it); its schema knows whole paths only.
    overlay.find("backingStore/path").text = "/srv/base.raw"
    volume_schema.assertValid(overlay)


@pytest.mark.parametrize(("kind", "below"), [("raw", "base.raw"), ("qcow2", "/srv/base.raw")])
def test_what_cannot_be_an_overlay(kind: str, below: str) -> None:
    with pytest.raises(ValueError, match="cannot be an overlay"):
        volume_xml("s2", kind, 2**20, Layer(below, "raw"))


def test_a_pool(pool_schema: etree.RelaxNG) -> None:
    pool = etree.fromstring(directory_pool_xml("hostler.fast-1", "/srv/a & b"))
    pool_schema.assertValid(pool)
    assert (pool.get("type"), pool.findtext("target/path")) == ("dir", "/srv/a & b")


def test_libvirt_takes_both() -> None:
    connection = libvirt.open("test:///default")
    pool = connection.storagePoolCreateXML(directory_pool_xml("hostler.fast-1", "/srv/vms"))
    try:
        volume = pool.createXML(volume_xml("default.a-1.qcow2", "qcow2", 2**20))
        assert volume.info()[1] == 2**20
    finally:
        pool.destroy()
        connection.close()
