"""What all documents are written with: elements as immutable values, and their text.

Values, because most of what a document says, others say as well: modules make such elements once, and an element
remembers the text that it was last written as. Texts are written here, as building a tree of lxml for them costs five
times as much; lxml then reads every text before anybody else does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from lxml import etree


class Element:
    """An XML element. Nobody changes one after it was made."""

    __slots__ = ("attributes", "children", "tag", "text", "told", "written")

    def __init__(
        self,
        tag: str,
        attributes: tuple[tuple[str, str], ...] = (),
        children: tuple[Element, ...] = (),
        text: str | None = None,
    ) -> None:
        """An element with children or a text, not both."""
        self.tag = tag
        self.attributes = attributes
        self.children = children
        self.text = text
        self.written: tuple[str, str, str] | None = None
        """What it was last written as: the first two say where it stood (see `_written`), the third is its text."""
        self.told: str | None = None
        """What fingerprints are made of, once it was asked for."""

    def with_children(self, *children: Element | None) -> Element:
        """The same with more children at its end; None is left out."""
        more = [child for child in children if child is not None]
        return Element(self.tag, self.attributes, (*self.children, *more), self.text) if more else self


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


def fingerprint(*parts: Element | str | None) -> str:
    """Sixteen hex digits that differ when any of the parts differs.

    They are kept in domains' metadata: how they are made can never change, or every running VM would seem to differ.
    """
    words = []
    for part in parts:
        told = _told(part) if isinstance(part, Element) else part or ""
        words.append(f"{'none' if part is None else 'some'}\0{told}\0\1")
    return hashlib.sha256("".join(words).encode()).hexdigest()[:16]


_TEXT = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
_IN_TEXT = str.maketrans(_TEXT)
_IN_ATTRIBUTES = str.maketrans({**_TEXT, '"': "&quot;", "\n": "&#10;", "\t": "&#9;"})


def _written(part: Element, line: str, around: str) -> str:
    """`line`: the line feed and indentation that the element stands at; `around`: the namespace that it stands in."""
    last = part.written
    if last is not None and last[0] == line and last[1] == around:
        return last[2]
    namespace, _, tag = part.tag.rpartition("}")
    pieces = [f"<{tag}"]
    if namespace != around:
        pieces.append(f' xmlns="{namespace[1:].translate(_IN_ATTRIBUTES)}"')
    for name, value in part.attributes:
        pieces.append(f' {name}="{value.translate(_IN_ATTRIBUTES)}"')
    if part.children:
        pieces.append(">")
        below = line + "  "
        for child in part.children:
            pieces.append(below)
            pieces.append(_written(child, below, namespace))
        pieces.append(f"{line}</{tag}>")
    elif part.text is not None:
        pieces.append(f">{part.text.translate(_IN_TEXT)}</{tag}>")
    else:
        pieces.append("/>")
    text = "".join(pieces)
    part.written = (line, around, text)
    return text


def _told(part: Element) -> str:
    if part.told is None:
        words = [part.tag]
        for pair in part.attributes:
            words += pair
        words.append("" if part.text is None else "=" + part.text)
        for child in part.children:
            words += ("(", _told(child), ")")
        part.told = "\0".join(words)
    return part.told
