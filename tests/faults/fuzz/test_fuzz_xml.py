"""XML: whatever text a document is made from is in it as it was, or is refused; no document is ever broken."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.faults.fuzz.campaign import campaign, tried
from tests.unit.xmlgen.cases import LINUX, disk, domain, nic, spec
from xmlgen.domain import Identity, Image, generate, render
from xmlgen.volume import volume_xml
from xmlgen.xml import element, to_text

TEXT = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            [
                *("]]>", "<![CDATA[", "&", "&lt;", "&#0;", "<", ">", '"', "'", "<?x?>", "<!--", "-->", "<!DOCTYPE x>"),
                *("\0", "\x01", "\x1f", "\x7f", "\x85", "\u2028", "\ufffe", "\uffff", "\ud800", "\U0001f600"),
                *("\t", "\n", "\r", "\r\n"),
            ]
        ),
        max_size=6,
    ).map("".join),
)  # fmt: skip


def carried(text: str) -> bool:
    """Whether XML 1.0 has characters for this text (its production Char)."""
    return all(c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" for c in text)


@campaign(1500)
@given(one=TEXT, other=TEXT)
def test_text_is_carried_or_refused(one: str, other: str) -> None:
    try:
        written = to_text(element("a", {"x": one, "y": other}, element("b", {}, other)))
    except ValueError:
        assert not carried(one + other)
        tried("XML text", "refused")
        return
    assert carried(one + other)
    read = etree.fromstring(written.encode())
    assert (read.get("x"), read.get("y"), read.findtext("b") or "") == (one, other, other)
    assert [child.tag for child in read] == ["b"]
    tried("XML text", "carried")


@campaign(1000)
@given(words=st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT))
def test_a_domain_document_is_never_broken(words: tuple[str, str, str, str, str]) -> None:
    model, path, bridge, namespace, name = words
    try:
        declared = spec(disks=[disk("root")], nics=[nic("lan", network=bridge or "x")], cpu={"model": model or "x"})
        made = domain(declared, images=lambda _: Image(f"/{path}", "qcow2"), seed=f"/{path}")
        source = dataclasses.replace(made, identity=Identity("i", namespace, name, namespace, 1))
        document = render(generate(source), LINUX)
    except ValueError:
        assert not carried("".join(words))
        tried("domain documents", "refused")
        return
    root = etree.fromstring(document)
    assert root.findtext("cpu/model") == (model or "x")
    assert {found.get("file") for found in root.iterfind("devices/disk/source")} == {f"/{path}"}
    assert root.find("devices/interface/source").get("bridge") == (bridge or "x")
    (vm,) = root.find("metadata")
    assert (vm.get("namespace"), vm.get("name")) == (namespace, name)
    assert len(root.findall("devices/disk")) == 2
    tried("domain documents", "whole")


@campaign(1000)
@given(name=TEXT)
def test_a_volume_document_is_never_broken(name: str) -> None:
    try:
        document = volume_xml(name, "raw", 512)
    except ValueError:
        assert not carried(name)
        tried("volume documents", "refused")
        return
    assert etree.fromstring(document).findtext("name") == name
    tried("volume documents", "whole")
