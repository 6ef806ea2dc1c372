"""Sizes are read as Kubernetes reads them, and whatever the API server stores can be read."""

import re
from decimal import ROUND_CEILING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity
from pydantic import TypeAdapter, ValidationError

from crds.quantity import Quantity, as_quantity, from_bytes, to_bytes

STORED = re.compile(TypeAdapter(Quantity).json_schema()["pattern"])
WRITTEN = st.from_regex(
    r"[0-9]{1,12}(\.[0-9]{1,6})?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]{1,2}|E[0-9]{1,2})?", fullmatch=True
)


@settings(deadline=None)
@given(WRITTEN)
def test_like_the_kubernetes_client(text: str) -> None:
    assert to_bytes(text) == int(parse_quantity(text).to_integral_value(rounding=ROUND_CEILING))


@settings(deadline=None)
@given(st.from_regex(STORED, fullmatch=True))
def test_what_is_stored_can_be_read_and_is_above_zero(text: str) -> None:
    assert 0 < to_bytes(text) < 2**61


@settings(deadline=None)
@given(st.integers(1, 2**59))
def test_bytes_and_back(size: int) -> None:
    assert to_bytes(from_bytes(size)) == size
    assert STORED.fullmatch(from_bytes(size)) or from_bytes(size).endswith("Ei") or len(from_bytes(size)) > 5


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1k", 1000), ("1Ki", 1024), ("1.5Gi", 3 * 2**29), ("0.1", 1), ("1e3", 1000), ("+2M", 2000000)],
)
def test_readings(text: str, size: int) -> None:
    assert to_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1GiB", "1gb", "Gi", "1m", "1K", "0x10", "1\n", "١"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        to_bytes(text)
    assert not STORED.fullmatch(text)


@pytest.mark.parametrize("text", ["0", "0Gi", "0.0", "00", "-5", "1E", "1e3", "9999P", "1n", "5m"])
def test_never_stored(text: str) -> None:
    assert not STORED.fullmatch(text)


@pytest.mark.parametrize("value", [True, 1.5, None, ["1Gi"]])
def test_other_types_are_no_size(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Quantity).validate_python(value)


def test_an_integer_is_read_as_text() -> None:
    assert TypeAdapter(Quantity).validate_python(1024) == "1024"


def test_cel_reads_both_forms() -> None:
    assert (
        as_quantity("self.size") == "(type(self.size) == int ? quantity('0').add(int(self.size)) : quantity(self.size))"
    )
