"""Names on hosts: readable, unique, and short enough with everything that is put behind them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmlgen import names

LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
OBJECT = st.builds(
    lambda parts, repeat: ".".join(parts * repeat)[:253].strip("-."), st.lists(LABEL, min_size=1, max_size=4),
    st.integers(1, 8),
)  # fmt: skip
FORMATS = st.sampled_from(["qcow2", "raw"])
LONG = "n" * 253


def test_short_names_read_as_what_they_name() -> None:
    assert names.domain_name("default", "web") == "default.web"
    volume = names.volume_name("default", "web-root", "1234", "qcow2")
    assert volume == "default.web-root-03ac6742.qcow2"
    assert names.record_name(volume) == "default.web-root-03ac6742.qcow2.json"
    assert names.trash_name(volume, 1700000000) == "default.web-root-03ac6742.qcow2.trash-1700000000"
    assert names.import_name(volume) == "default.web-root-03ac6742.qcow2.import"
    assert names.seed_name("default", "web", "1234", "0123456789") == "default.web-03ac6742.0123456789.seed.iso"
    assert names.nvram_name("default", "web", "1234") == "default.web-03ac6742.nvram.fd"
    assert names.pool_name("fast", "1234") == "hostler.fast-03ac6742"


@settings(deadline=None, max_examples=50)
@given(OBJECT, OBJECT, LABEL, st.sampled_from(["", "-0123abcd", ".b"]))
def test_a_seed_is_known_as_its_vms_under_every_uid(one: str, other: str, namespace: str, tail: str) -> None:
    other = one[:200] + tail if tail else other
    made = names.seed_name(namespace, one, "some uid", "0123456789abcdef")
    assert names.is_seed_of(made, namespace, one)
    assert names.is_seed_of(made, namespace, other) == (one == other)
    assert not names.is_seed_of(names.nvram_name(namespace, one, "some uid"), namespace, one)


@settings(deadline=None, max_examples=25)
@given(OBJECT, OBJECT, LABEL, LABEL)
def test_two_vms_never_share_a_domain_name(one: str, other: str, namespace: str, elsewhere: str) -> None:
    first, second = names.domain_name(namespace, one), names.domain_name(elsewhere, other)
    assert (first == second) == ((namespace, one) == (elsewhere, other))
    # 247 bytes is the longest name that libvirt 9 can define: it writes NAME.xml.new.
    assert len(first) <= 245


@settings(deadline=None, max_examples=25)
@given(LABEL, st.integers(200, 253))
def test_names_that_differ_only_where_they_are_cut_stay_apart(namespace: str, length: int) -> None:
    stem = "n" * (length - 1)
    cut = {names.domain_name(namespace, stem + letter) for letter in "abc"}
    assert len(cut) == 3
    volumes = {names.volume_name(namespace, stem + letter, "uid", "raw") for letter in "abc"}
    assert len(volumes) == 3


def test_a_cut_name_is_no_name_of_another_object() -> None:
    cut = names.domain_name("default", LONG)
    assert "_" in cut
    assert len(cut) == 245


@settings(deadline=None, max_examples=25)
@given(LABEL, OBJECT, st.uuids(), FORMATS)
def test_every_file_name_fits(namespace: str, name: str, uid: object, kind: str) -> None:
    volume = names.volume_name(namespace, name, str(uid), kind)
    sidecars = [
        names.record_name(volume),
        names.trash_name(names.record_name(volume), 2**63),
        names.import_name(volume),
    ]
    seed = names.seed_name(namespace, name, str(uid), "0" * 64)
    nvram = names.nvram_name(namespace, name, str(uid))
    sidecars += [
        names.trash_name(volume, 2**63),
        seed,
        nvram,
        names.trash_name(seed, 2**63),
        names.trash_name(nvram, 1),
    ]
    assert max(len(file_name.encode()) for file_name in [volume, *sidecars]) <= 255
    assert all(names.is_ours(file_name) for file_name in sidecars)
    assert not names.is_ours(volume)
    assert len(names.pool_name(name, str(uid))) + len(".xml.new") <= 255


@settings(deadline=None, max_examples=25)
@given(LABEL, OBJECT, st.uuids(), FORMATS)
def test_a_volume_name_says_whose_it_is(namespace: str, name: str, uid: object, kind: str) -> None:
    volume = names.volume_name(namespace, name, str(uid), kind)
    parsed = names.parse_volume_name(volume)
    assert parsed is not None
    assert (parsed.namespace, parsed.format) == (namespace, kind)
    if "_" not in volume:
        assert parsed.name == name


def test_files_of_others_are_not_ours() -> None:
    for name in ("debian.qcow2", "install.iso", "notes.txt", "config.json", "lost+found", ".raw.jsonx", "trash-1"):
        assert not names.is_ours(name), name
    for name in ("debian.qcow2", "default.web-0a1b2c3d.qcow2.json", "web-0a1b2c3d.qcow2", "Default.web-0a1b2c3d.raw"):
        assert names.parse_volume_name(name) is None, name


def test_records_of_volumes_that_were_taken_over_are_ours() -> None:
    assert names.is_ours(names.record_name("golden.qcow2"))
    assert names.is_ours(names.trash_name("golden.qcow2", 5))
    assert names.is_ours(names.MARKER)


@pytest.mark.parametrize("name", ["web", "w" * 253])
def test_all_files_of_an_object_begin_alike(name: str) -> None:
    beginning = names.beginning("n" * 63, name)
    made = [
        names.volume_name("n" * 63, name, "uid", "qcow2"),
        names.seed_name("n" * 63, name, "uid", "0" * 64),
        names.nvram_name("n" * 63, name, "uid"),
    ]
    assert all(file.startswith(beginning) for file in made)
