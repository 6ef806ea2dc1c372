"""Files by which Kubernetes clients know where the API server is, and who they are."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from lab.pki import Identity

CONTEXT = "lab"


def with_certificate(server: str, identity: Identity) -> str:
    """A kubeconfig for the holder of this client certificate; nothing outside the file is referred to."""
    user = {
        "client-certificate-data": _encoded(identity.certificate),
        "client-key-data": _encoded(identity.key),
    }
    return _document(server, identity.authority, "admin", user, "default")


def with_token(server: str, authority: Path, user: str, token: str, namespace: str) -> str:
    """A kubeconfig for the bearer of this token."""
    return _document(server, authority, user, {"token": token}, namespace)


def _document(server: str, authority: Path, name: str, user: dict[str, str], namespace: str) -> str:
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": _encoded(authority)}}
        ],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name, "namespace": namespace}}],
        "current-context": CONTEXT,
    }
    return yaml.safe_dump(content, sort_keys=False)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
