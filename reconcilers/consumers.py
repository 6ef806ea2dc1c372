"""Which namespaces may use a pool, a storage domain or a network."""

from __future__ import annotations

from collections.abc import Mapping

from crds.base import Consumers


def allowed(consumers: Consumers | None, namespace_labels: Mapping[str, str] | None) -> bool:
    """Whether a namespace with these labels may use the object.

    Nothing declared, and an empty selector, allow everyone; a namespace that is not known (None) has no labels.
    """
    return consumers is None or consumers.namespace_selector.matches(dict(namespace_labels or {}))
