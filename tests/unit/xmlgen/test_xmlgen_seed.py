"""The cloud-init seed, read back as a guest would."""

from __future__ import annotations

from io import BytesIO

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pycdlib.pycdlib import PyCdlib

from xmlgen.seed import SeedInput, decoded, seed_digest, seed_iso

SEED = SeedInput("uid-1", "web", "#cloud-config\nhostname: ä\n", "version: 2\n")


def read(image: bytes) -> tuple[str, dict[str, bytes], dict[str, bytes]]:
    """Label, files by Joliet name, files by Rock Ridge name."""
    iso = PyCdlib()
    iso.open_fp(BytesIO(image))
    label = iso.pvd.volume_identifier.decode().strip()
    joliet, rock_ridge = {}, {}
    for kind, found in (("joliet_path", joliet), ("rr_path", rock_ridge)):
        for child in iso.list_children(**{kind: "/"}):
            if child.is_dir():
                continue
            name = child.rock_ridge.name().decode() if kind == "rr_path" else child.file_identifier().decode("utf-16be")
            data = BytesIO()
            iso.get_file_from_iso_fp(data, **{kind: f"/{name}"})
            found[name] = data.getvalue()
    iso.close()
    return label, joliet, rock_ridge


def test_a_guest_finds_what_was_put_in() -> None:
    label, joliet, rock_ridge = read(seed_iso(SEED))
    assert label == "cidata"
    assert joliet == rock_ridge
    assert joliet.keys() == {"meta-data", "user-data", "network-config"}
    assert joliet["user-data"] == SEED.user_data.encode()
    assert joliet["network-config"] == SEED.network_data.encode()
    assert yaml.safe_load(joliet["meta-data"]) == {"instance-id": "uid-1", "local-hostname": "web"}


@pytest.mark.parametrize("document", [bytes(range(256)), b"\x1f\x8b\x08\0\xff", "ä\u2028]]>\0".encode()])
def test_any_bytes_come_out_as_they_went_in(document: bytes) -> None:
    seed = SeedInput("uid-1", "web", decoded(document), None)
    _, files, _ = read(seed_iso(seed))
    assert files["user-data"] == document
    assert seed_digest(seed) != seed_digest(SeedInput("uid-1", "web", document.decode(errors="replace") + "?", None))


def test_what_is_not_said_is_left_to_the_guest() -> None:
    _, files, _ = read(seed_iso(SeedInput("uid-1", "web", None, None)))
    assert files.keys() == {"meta-data", "user-data"}
    assert yaml.safe_load(files["user-data"]) is None


@settings(deadline=None, max_examples=25)
@given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True))
def test_the_host_name_is_one(name: str) -> None:
    _, files, _ = read(seed_iso(SeedInput("uid-1", name, None, None)))
    hostname = yaml.safe_load(files["meta-data"])["local-hostname"]
    assert name.startswith(hostname)
    assert 0 < len(hostname) <= 63
    assert hostname[-1] not in "-."


def test_the_digest_is_of_the_content() -> None:
    others = [
        SeedInput("uid-2", "web", SEED.user_data, SEED.network_data),
        SeedInput("uid-1", "web2", SEED.user_data, SEED.network_data),
        SeedInput("uid-1", "web", "other", SEED.network_data),
        SeedInput("uid-1", "web", SEED.user_data, None),
    ]
    assert len({seed_digest(seed) for seed in [SEED, *others]}) == 5
    assert seed_digest(SEED) == seed_digest(SeedInput("uid-1", "web", "#cloud-config\nhostname: ä\n", "version: 2\n"))
    assert len(seed_digest(SEED)) == 16
