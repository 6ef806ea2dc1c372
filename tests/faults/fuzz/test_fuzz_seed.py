"""Cloud-init: what was given comes out of the image byte for byte, for a reader that is not the writer."""

from __future__ import annotations

import struct

import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.fuzz.campaign import campaign, tried
from xmlgen.seed import SeedInput, decoded, seed_digest, seed_iso

BLOCK = 2048
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,3}", fullmatch=True)
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
DOCUMENTS = st.one_of(
    st.binary(max_size=5000),
    st.text(max_size=500).map(str.encode),
    YAML.map(lambda value: b"#cloud-config\n" + yaml.safe_dump(value, allow_unicode=True).encode()),
    st.integers(1, 300).map(lambda blocks: b"\x1f\x8b" * (BLOCK // 2) * blocks),
    st.sampled_from([b"]]>", b"\0", b"\r\n", b"---\n...\n", "\ufffe\uffff".encode(), b"$(reboot)`id`"]),
).filter(bool)


def files(image: bytes) -> dict[str, bytes]:
    """Files of the root directory by Joliet name, read from ECMA-119's own layout."""
    at = 16
    while image[at * BLOCK] != 2:
        assert image[at * BLOCK] != 255, "no Joliet volume"
        at += 1
    record = image[at * BLOCK + 156 :]
    place, size = (struct.unpack_from("<I", record, offset)[0] for offset in (2, 10))
    directory, found, here = image[place * BLOCK : place * BLOCK + size], {}, 0
    while here < len(directory) and directory[here]:
        length, flags, name_length = directory[here], directory[here + 25], directory[here + 32]
        name = directory[here + 33 : here + 33 + name_length]
        start, count = (struct.unpack_from("<I", directory, here + offset)[0] for offset in (2, 10))
        if not flags & 2:
            found[name.decode("utf-16be").removesuffix(";1")] = image[start * BLOCK : start * BLOCK + count]
        here += length
    return found


@campaign(300)
@given(name=NAMES, user=DOCUMENTS, network=st.none() | st.text(max_size=300))
def test_every_document_survives(name: str, user: bytes, network: str | None) -> None:
    seed = SeedInput("0b1f7a52-7f5d-4b8e-8f0e-3f1c2d4e5f60", name, decoded(user), network)
    image = seed_iso(seed)
    found = files(image)
    assert image[16 * BLOCK + 40 :][:6] == b"cidata"
    assert found["user-data"] == user
    assert found.get("network-config") == (None if network is None else network.encode())
    meta = yaml.safe_load(found["meta-data"])
    assert meta["instance-id"] == seed.instance_id
    hostname = meta["local-hostname"]
    assert isinstance(hostname, str)
    assert name.startswith(hostname)
    assert 0 < len(hostname) <= 63
    assert hostname[-1] not in "-."
    tried("cloud-init documents", "text" if user.isascii() else "other bytes")


@campaign(400)
@given(one=DOCUMENTS, other=DOCUMENTS)
def test_different_documents_have_different_digests(one: bytes, other: bytes) -> None:
    first, second = (seed_digest(SeedInput("u", "n", decoded(document), None)) for document in (one, other))
    assert (first == second) == (one == other)
    tried("cloud-init digests", "equal" if one == other else "different")
