"""How a host is to be reached: its spec, its pool's settings and its Secret, made into a target."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from crds.host import Host
from crds.host_pool import HostPool
from drivers.hypervisor import HostTarget
from reconcilers.standing import Verdict, stalled

_NEEDED: Mapping[str, frozenset[str]] = {
    "qemu+tls": frozenset({"ca.crt", "tls.crt", "tls.key"}),
    "qemu+ssh": frozenset({"ssh-privatekey", "known_hosts"}),
    "qemu+tcp": frozenset(),
    "qemu+unix": frozenset(),
}
"""Keys of the credentials Secret that each transport cannot do without."""
_LOGIN = frozenset({"username", "password"})


def target_of(
    host: Host, pool: HostPool | None, secret: Mapping[str, Any] | None, namespace: str
) -> HostTarget | Verdict:
    """The target of a host, or what a person must mend first. `secret`: the Secret that the spec names."""
    if pool is None:
        return stalled(
            "PoolNotFound", f"there is no HostPool {host.spec.pool}: create it, or make the Host in another pool"
        )
    uri = _split(host.spec.uri)
    if isinstance(uri, Verdict):
        return uri
    credentials = _credentials(host, uri, secret, namespace)
    if isinstance(credentials, Verdict):
        return credentials
    return HostTarget(
        name=host.metadata.name,
        uri=host.spec.uri,
        credentials=credentials,
        heartbeat_seconds=pool.spec.monitoring.heartbeat_seconds,
        audit_seconds=pool.spec.monitoring.audit_seconds,
    )


def _split(text: str) -> SplitResult | Verdict:
    advice = "write it as qemu+tls://HOST/system (also qemu+ssh, qemu+tcp, qemu+unix)"
    try:
        uri = urlsplit(text)
        uri.port  # noqa: B018 - raises for a port that is no number
    except ValueError as error:
        return stalled("BadURI", f"spec.uri {text} cannot be read ({error}): {advice}")
    if uri.scheme not in _NEEDED:
        return stalled("BadURI", f"spec.uri {text} has no transport that is known: {advice}")
    if uri.scheme != "qemu+unix" and not uri.hostname:
        return stalled("BadURI", f"spec.uri {text} names no host: {advice}")
    return uri


def _credentials(
    host: Host, uri: SplitResult, secret: Mapping[str, Any] | None, namespace: str
) -> dict[str, bytes] | Verdict:
    name, needed = host.spec.credentials_secret, _NEEDED[uri.scheme]
    if name is None:
        if needed:
            keys = ", ".join(sorted(needed))
            advice = f"name a Secret of namespace {namespace} with {keys} in spec.credentialsSecret"
            return stalled("CredentialsMissing", f"{uri.scheme} needs credentials: {advice}")
        return {}
    if secret is None:
        return stalled("CredentialsMissing", f"there is no Secret {name} in namespace {namespace}: create it")
    data = _decoded(secret)
    if isinstance(data, str):
        return stalled("CredentialsIncomplete", f"Secret {name} of namespace {namespace}: {data} is not base64")
    wanted = needed | (_LOGIN if uri.scheme == "qemu+tcp" and _LOGIN & data.keys() else frozenset())
    missing = sorted(key for key in wanted if not data.get(key))
    if missing:
        message = f"Secret {name} of namespace {namespace} lacks {', '.join(missing)}, which {uri.scheme} needs: add it"
        return stalled("CredentialsIncomplete", message)
    return {key: data[key] for key in sorted(data) if key in wanted}


def _decoded(secret: Mapping[str, Any]) -> dict[str, bytes] | str:
    """The Secret's data, or the key that cannot be decoded."""
    data: dict[str, bytes] = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            data[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            return str(key)
    return data
