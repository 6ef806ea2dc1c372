"""Opening connections: probe, open, set keepalive; every failure has a reason that a person can act on."""

from __future__ import annotations

import re
import threading
from typing import Any

import libvirt

from drivers.deadlines import KEEPALIVE_COUNT, KEEPALIVE_INTERVAL
from drivers.errors import ConnectFailed
from drivers.hypervisor import HostTarget
from drivers.libvirt.credentials import Credentials
from drivers.libvirt.probe import probe
from drivers.libvirt.uri import Address, Transport, parse


class Connector:
    """Opens connections to one host. Construction checks URI and credentials and touches neither network nor disk."""

    def __init__(self, target: HostTarget) -> None:
        """Raises ConnectFailed (BadURI, CredentialsIncomplete)."""
        self._address = parse(target.uri)
        self._credentials = Credentials(self._address, target)
        self._lock = threading.Lock()

    def open(self) -> libvirt.virConnect:
        """Blocking: a new connection with keepalive. Raises ConnectFailed."""
        with self._lock:
            uri = self._credentials.uri()
        probe(self._address, self._credentials.folder)
        login = self._credentials.login

        def answer(questions: list[list[Any]], opaque: Any) -> int:
            del opaque
            if login is None:
                return -1
            for question in questions:
                question[4] = login[0] if question[0] == libvirt.VIR_CRED_AUTHNAME else login[1]
            return 0

        try:
            kinds = [libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE]
            connection = libvirt.openAuth(uri, [kinds, answer, None], 0)
            if self._address.transport is not Transport.TEST:
                connection.setKeepAlive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            raise classify_open(error, self._address) from error
        return connection

    def close(self) -> None:
        """Remove the credentials' files. Connections that are open stay open; there will be no new ones."""
        with self._lock:
            self._credentials.close()


_AUTH_CODES = frozenset(
    {
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    }
)

_TEXTS: tuple[tuple[str, str, str], ...] = (
    (r"host key verification failed|host key is known|no .*host key", "HostKeyUnknown",
     "the host's SSH key is not the one in known_hosts of the credentials Secret"),
    (r"permission denied|too many authentication failures|load key|invalid format", "AuthFailed",
     "the host did not take the SSH key of the credentials Secret"),
    (r"could not resolve|name or service not known|temporary failure in name resolution", "Unresolvable",
     "the host's name cannot be resolved; check the URI and DNS"),
    (r"connection refused|no route to host|timed out|unreachable|failed to connect socket", "Unreachable",
     "nothing answers there; is libvirtd running and listening?"),
    (r"certificate .*has expired", "CertificateExpired",
     "a certificate in the credentials Secret (tls.crt or ca.crt) has expired: renew it there"),
    (r"certificate|tls|x509|gnutls", "TLSRefused",
     "TLS was refused; check that both certificates come from the same authority and name the right host"),
    (r"authentication|not authori[sz]ed", "AuthFailed",
     "the daemon did not take the login of the credentials Secret"),
    (r"no connection driver available|unexpected .* uri|invalid uri|unable to parse uri", "BadURI",
     "libvirt cannot use this URI"),
)  # fmt: skip


def classify_open(error: libvirt.libvirtError, address: Address) -> ConnectFailed:
    """Why a connection was refused, and what to do about it."""
    text = " ".join((error.get_error_message() or str(error)).split())
    if error.get_error_code() in _AUTH_CODES and address.transport is not Transport.TLS:
        return ConnectFailed(f"the daemon wants a login that it takes: {text}", reason="AuthFailed")
    for pattern, reason, advice in _TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return ConnectFailed(f"{advice}: {text}", reason=reason)
    if address.transport is Transport.TLS and re.search(r"end of file|reset by peer|broken pipe", text, re.IGNORECASE):
        # A daemon that does not like a certificate closes the connection and says why in its own log only.
        return ConnectFailed(f"the daemon closed the connection during TLS; see its log: {text}", reason="TLSRefused")
    return ConnectFailed(f"no connection: {text}", reason="Unreachable")
