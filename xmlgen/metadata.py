"""The metadata of a domain: who it belongs to, and fingerprints of what it was defined from.

libvirt stores it with the domain and gives it back; drivers read it (element and attribute names below are the contract
between the two). The namespace is the default one, not a prefix: libvirt's setMetadata adds its own prefix and refuses
an element that declares that prefix already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from xmlgen.xml import Element, element, to_text

NAMESPACE = "https://hostler.dev/domain/v1"
PREFIX = "hostler"
"""The prefix to give to libvirt's setMetadata."""


@dataclass(frozen=True)
class Identity:
    """Who a domain belongs to."""

    installation: str
    """Id of the installation of Hostler."""
    namespace: str
    name: str
    uid: str
    epoch: int
    """Placement epoch: rises with each decision to run the VM somewhere."""


def metadata_xml(identity: Identity, sections: Iterable[tuple[str, str]]) -> str:
    """The element `vm` with the identity as attributes and a child `section` (name, sha) for each fingerprint."""
    return to_text(metadata_element(identity, sections))


def metadata_element(identity: Identity, sections: Iterable[tuple[str, str]]) -> Element:
    """The same, for its place in a document."""
    attributes = {
        "installation": identity.installation,
        "namespace": identity.namespace,
        "name": identity.name,
        "uid": identity.uid,
        "epoch": str(identity.epoch),
    }
    return element(f"{{{NAMESPACE}}}vm", attributes, *(_section(name, sha) for name, sha in sections))


@lru_cache(2048)
def _section(name: str, sha: str) -> Element:
    return element(f"{{{NAMESPACE}}}section", {"name": name, "sha": sha})
