"""What all documents are written with: elements as immutable values, turned into text by lxml in one go.

Values, because a document is kept and rendered more than once, and because making lxml's own elements one by one
costs ten times as much as making them as children of one tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lxml import etree


class Element(NamedTuple):
    """An XML element."""

    tag: str
    attributes: tuple[tuple[str, str], ...] = ()
    children: tuple[Element, ...] = ()
    text: str | None = None

    def with_children(self, *children: Element | None) -> Element:
        """The same with more children at its end; None is left out."""
        return self._replace(children=(*self.children, *(child for child in children if child is not None)))

    def with_attributes(self, attributes: Mapping[str, str]) -> Element:
        """The same with more attributes."""
        return self._replace(attributes=(*self.attributes, *attributes.items()))


def element(tag: str, attributes: Mapping[str, str] | None = None, *content: Element | str | None) -> Element:
    """An element with attributes and either children (None is left out) or one string as its text."""
    pairs = tuple(attributes.items()) if attributes else ()
    if len(content) == 1 and isinstance(content[0], str):
        return Element(tag, pairs, (), content[0])
    return Element(tag, pairs, tuple(child for child in content if isinstance(child, Element)))


def to_text(root: Element) -> str:
    """The element with two spaces of indentation per level, ending with a line feed.

    Raises ValueError for text that XML cannot carry (control characters).
    """
    tree = etree.Element(root.tag, dict(root.attributes), nsmap=_default_namespace(root))
    _grow(tree, root, "\n  ")
    return etree.tostring(tree, encoding="unicode") + "\n"


def fingerprint(*parts: Element | str | None) -> str:
    """Sixteen hex digits that differ when any of the parts differs.

    They are kept in domains' metadata: how they are made can never change, or every running VM would seem to differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        words = list(_words(part)) if isinstance(part, Element) else [part or ""]
        digest.update("\0".join(["none" if part is None else "some", *words, "\1"]).encode())
    return digest.hexdigest()[:16]


def _grow(parent: etree._Element, source: Element, indentation: str) -> None:
    if source.text is not None:
        parent.text = source.text
    if not source.children:
        return
    parent.text = indentation
    for child in source.children:
        made = etree.SubElement(parent, child.tag, dict(child.attributes), nsmap=_default_namespace(child))
        made.tail = indentation
        if child.children or child.text is not None:
            _grow(made, child, indentation + "  ")
    made.tail = indentation[:-2]


def _default_namespace(part: Element) -> dict[str | None, str] | None:
    """Without it lxml would invent a prefix."""
    return {None: part.tag[1:].partition("}")[0]} if part.tag.startswith("{") else None


def _words(part: Element) -> Iterator[str]:
    yield part.tag
    for pair in part.attributes:
        yield from pair
    yield "" if part.text is None else "=" + part.text
    for child in part.children:
        yield "("
        yield from _words(child)
        yield ")"
