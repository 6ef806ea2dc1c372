"""What all documents are written with: elements as immutable values, and their text.

Values, because a document is kept and rendered more than once. Their text is written here, as building a tree of lxml
for it costs five times as much; lxml then reads every text before anybody else does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from lxml import etree

REMEMBERED = 2048
"""Elements of which the text and the fingerprint are remembered: most of what a document says, others say as well."""
SMALL = 5
"""Indentation (in characters) from which on elements are small enough for their text to be remembered."""


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
    return Element(tag, pairs, tuple([child for child in content if isinstance(child, Element)]))


def to_text(root: Element) -> str:
    """The element with two spaces of indentation per level, ending with a line feed.

    Raises ValueError for text that XML cannot carry (control characters).
    """
    text = _written(root, "\n", "")
    try:
        etree.fromstring(text)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"XML cannot carry this text: {error}") from error
    return text + "\n"


@lru_cache(REMEMBERED)
def fingerprint(*parts: Element | str | None) -> str:
    """Sixteen hex digits that differ when any of the parts differs.

    They are kept in domains' metadata: how they are made can never change, or every running VM would seem to differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        words = ["none" if part is None else "some"]
        if isinstance(part, Element):
            _tell(words, part)
        else:
            words.append(part or "")
        words.append("\1")
        digest.update("\0".join(words).encode())
    return digest.hexdigest()[:16]


_TEXT = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_IN_TEXT = str.maketrans(_TEXT)
_IN_ATTRIBUTES = str.maketrans({**_TEXT, '"': "&quot;", "\n": "&#10;", "\t": "&#9;"})


def _written(part: Element, line: str, around: str) -> str:
    """`line`: the line feed and indentation that the element stands at; `around`: the namespace that it stands in."""
    namespace, _, tag = part.tag.rpartition("}")
    pieces = [f"<{tag}"]
    if namespace != around:
        pieces.append(f' xmlns="{namespace[1:].translate(_IN_ATTRIBUTES)}"')
    for name, value in part.attributes:
        pieces.append(f' {name}="{value.translate(_IN_ATTRIBUTES)}"')
    if part.children:
        pieces.append(">")
        below = line + "  "
        write = _remembered if len(below) >= SMALL else _written
        for child in part.children:
            pieces.append(below)
            pieces.append(write(child, below, namespace))
        pieces.append(f"{line}</{tag}>")
    elif part.text is not None:
        pieces.append(f">{part.text.translate(_IN_TEXT)}</{tag}>")
    else:
        pieces.append("/>")
    return "".join(pieces)


_remembered = lru_cache(REMEMBERED)(_written)


def _tell(words: list[str], part: Element) -> None:
    words.append(part.tag)
    for pair in part.attributes:
        words += pair
    words.append("" if part.text is None else "=" + part.text)
    for child in part.children:
        words.append("(")
        _tell(words, child)
        words.append(")")
