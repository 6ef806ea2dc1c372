"""MAC addresses that stay."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from xmlgen.mac import stable_mac


@settings(deadline=None, max_examples=25)
@given(st.text(), st.text(), st.integers(0, 9))
def test_it_is_a_unicast_address_of_qemus_range(uid: str, nic: str, attempt: int) -> None:
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", stable_mac(uid, nic, attempt))
    assert stable_mac(uid, nic, attempt) == stable_mac(uid, nic, attempt)


def test_card_vm_and_attempt_make_it() -> None:
    made = {stable_mac("a", "lan"), stable_mac("a", "dmz"), stable_mac("b", "lan"), stable_mac("a", "lan", 1)}
    assert len(made) == 4


def test_it_never_changes() -> None:
    assert stable_mac("0b1f7a52", "lan") == "52:54:00:13:5f:f5"
