"""Kubernetes quantities: sizes as people write them (`2Gi`, `500M`, `1073741824`) and as bytes.

Why not a library: this room may import pydantic only, and the reader is fifteen lines; a test compares it with the
Kubernetes client's own parser.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from crds.base import Rule, rules

_SUFFIX = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_PATTERN = re.compile(r"\+?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([kMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?")
# What the API server takes: above zero, and below 2 EiB, which every call of a host can carry. An integer within the
# maximum is within the pattern too when it is written as text.
_STORED_PATTERN = (
    r"^(0\.[0-9]*[1-9][0-9]*(k|Ki|[MGTP]i?)?|[1-9][0-9]{0,17}(\.[0-9]+)?|[1-9][0-9]{0,14}(\.[0-9]+)?(k|Ki)"
    r"|[1-9][0-9]{0,8}(\.[0-9]+)?[MG]i?|[1-9][0-9]{0,5}(\.[0-9]+)?Ti?|[1-9][0-9]{0,2}(\.[0-9]+)?Pi?)$"
)
_STORED_MAXIMUM = 2**59


def to_bytes(quantity: str | int) -> int:
    """The size in bytes, rounded up to a whole byte.

    Raises ValueError for what is no quantity or is negative.
    """
    match = _PATTERN.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is not a size: write it as a number with Ki, Mi, Gi or Ti, for example 20Gi")
    number, suffix, exponent = match.groups()
    factor = Decimal(10) ** int(exponent) if exponent else Decimal(_SUFFIX[suffix or ""])
    return int((Decimal(number) * factor).to_integral_value(rounding="ROUND_CEILING"))


def from_bytes(size: int) -> str:
    """The shortest exact binary quantity of a size in bytes."""
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        factor = _SUFFIX[suffix]
        if size and size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)


def about(size: int) -> str:
    """The size in bytes for a person to read, rounded: 1.5Gi."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if size >= _SUFFIX[suffix]:
            return f"{size / _SUFFIX[suffix]:.1f}{suffix}"
    return f"{size} bytes"


def _check(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a size")
    to_bytes(value)
    return str(value)


# The pattern is the guarantee, the rules are the explanation. They may cost little: the API server's estimate takes
# an int-or-string for as long as a whole request, so that one `quantity()` is all that fits in a list of thirty.
Quantity = Annotated[
    str,
    BeforeValidator(_check),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": _STORED_PATTERN,
            "maxLength": 32,
            "minimum": 1,
            "maximum": _STORED_MAXIMUM,
            **rules(
                Rule("type(self) == int || isQuantity(self)", "must be a size, for example 20Gi"),
                Rule(
                    "type(self) == int ? self > 0"
                    " : !self.startsWith('-') && (!self.startsWith('0') || self.startsWith('0.'))",
                    "must be a size above zero, for example 20Gi",
                ),
            ),
        }
    ),
]
"""A size: a string or integer on the wire, a string here; `to_bytes` gives its bytes."""


Bandwidth = Annotated[
    str,
    BeforeValidator(_check),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": _STORED_PATTERN.replace("^(", "^(0|", 1),
            "maxLength": 32,
            "minimum": 0,
            "maximum": _STORED_MAXIMUM,
            **rules(
                Rule(
                    "type(self) == int ? self >= 0 : isQuantity(self) && !self.startsWith('-')",
                    "must be a size a second, for example 50Mi, or 0 for no limit",
                ),
            ),
        }
    ),
]
"""A size a second, 0 included: a string or integer on the wire, a string here."""


def as_quantity(path: str) -> str:
    """CEL that reads a stored size, string or integer, as a quantity.

    Through `add`, because `quantity(string(…))` of a number costs too much in the API server's estimate.
    """
    return f"(type({path}) == int ? quantity('0').add(int({path})) : quantity({path}))"
