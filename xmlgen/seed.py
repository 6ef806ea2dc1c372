"""The cloud-init seed: a small ISO image that cloud-init's NoCloud source finds by its label."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from io import BytesIO

from pycdlib.pycdlib import PyCdlib

LABEL = "cidata"
HOSTNAME_MAX = 63
_BYTES = "surrogateescape"


@dataclass(frozen=True)
class SeedInput:
    """What a guest is told."""

    instance_id: str
    """Another id makes cloud-init run again as on a first boot."""
    hostname: str
    user_data: str | None
    """The user-data document; None for an empty one. Bytes that are no UTF-8 (a gzip archive) are in it as `decoded`
    has them."""
    network_data: str | None
    """The network-config document; None leaves it to the guest's default (DHCP)."""


def decoded(document: bytes) -> str:
    """A document of any bytes as text that the seed gives back byte for byte."""
    return document.decode(errors=_BYTES)


def seed_digest(seed: SeedInput) -> str:
    """Sixteen hex digits of what the seed says. The image itself carries times, so its bytes cannot be compared."""
    return hashlib.sha256(json.dumps(asdict(seed), sort_keys=True).encode()).hexdigest()[:16]


def seed_iso(seed: SeedInput) -> bytes:
    """The image: meta-data, user-data and, where there is one, network-config (ISO 9660 with Joliet and Rock Ridge)."""
    files = [
        ("METADATA", "meta-data", _meta_data(seed)),
        ("USERDATA", "user-data", seed.user_data or "#cloud-config\n"),
    ]
    if seed.network_data is not None:
        files.append(("NETWORK", "network-config", seed.network_data))
    iso = PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for plain, name, text in files:
        data = text.encode(errors=_BYTES)
        iso.add_fp(BytesIO(data), len(data), f"/{plain}.;1", rr_name=name, joliet_path=f"/{name}")
    image = BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def _meta_data(seed: SeedInput) -> str:
    hostname = seed.hostname[:HOSTNAME_MAX].rstrip("-.")
    # Every JSON string is a YAML string: nothing in a name can break out of it.
    return f"instance-id: {json.dumps(seed.instance_id)}\nlocal-hostname: {json.dumps(hostname)}\n"
