"""Whether a daemon answers at all, asked with a deadline before libvirt's open is called.

libvirt's open has none: it waits for as long as a frozen daemon keeps its socket, and for ever if that host then loses
power. Certificates, keys and logins are judged by libvirt itself; but that the host's certificate has expired, which
libvirt writes to its log only, is said here.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from pathlib import Path

from drivers.errors import ConnectFailed
from drivers.libvirt.uri import Address, Transport

STEP_SECONDS = 5.0
"""How long each step (connect, handshake, answer) may take."""

_HAS_EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""

# The remote protocol's AUTH_LIST call: it needs no login and changes nothing. The fields are length, program, version,
# procedure, type (call), serial and status of virnetprotocol.x.
_AUTH_LIST = struct.pack(">IIIIIII", 28, 0x20008086, 1, 66, 0, 0, 0)


def probe(address: Address, folder: Path | None) -> None:
    """Blocking: return once something at the address answered. folder: client certificates for TLS.

    Raises ConnectFailed(Unresolvable, Unreachable, TLSRefused, CertificateExpired).
    """
    where = f"{address.host} port {address.port}" if address.host else str(address.socket)
    try:
        if address.transport is Transport.UNIX and address.socket is not None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(STEP_SECONDS)
                connection.connect(address.socket)
                _ask(connection)
        elif address.transport is Transport.TCP:
            with socket.create_connection((address.host, address.port), STEP_SECONDS) as connection:
                _ask(connection)
        elif address.transport is Transport.TLS:
            context = _context(folder)
            with socket.create_connection((address.host, address.port), STEP_SECONDS) as connection:
                _shake_hands(connection, context)
    except socket.gaierror as error:
        raise ConnectFailed(
            f"the name {address.host} cannot be resolved: {error.strerror}; check the URI and DNS",
            reason="Unresolvable",
        ) from error
    except TimeoutError as error:
        raise ConnectFailed(f"{where} did not answer within {STEP_SECONDS:g} s", reason="Unreachable") from error
    except OSError as error:
        raise ConnectFailed(
            f"{where} cannot be reached: {error.strerror or error}; is libvirtd running and listening there?",
            reason="Unreachable",
        ) from error


def _ask(connection: socket.socket) -> None:
    connection.sendall(_AUTH_LIST)
    # Any answer will do, and so does the end.
    connection.recv(1)


def _shake_hands(connection: socket.socket, context: ssl.SSLContext) -> None:
    try:
        with context.wrap_socket(connection) as secured:
            # One byte says that the server took the client's certificate.
            secured.recv(1)
    except ssl.SSLError as error:
        # Refused, but answered: libvirt's own open says why.
        if getattr(error, "verify_code", None) == _HAS_EXPIRED:
            raise ConnectFailed(
                "the host's TLS certificate, or that of its authority, has expired: renew it on the host, "
                "and restart libvirtd there",
                reason="CertificateExpired",
            ) from error


def _context(folder: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if folder is not None:
        with contextlib.suppress(ssl.SSLError):
            context.load_verify_locations(folder / "cacert.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(folder / "clientcert.pem", folder / "clientkey.pem")
        except ssl.SSLError as error:
            raise ConnectFailed(
                f"tls.crt and tls.key are not a certificate and its private key: {error.reason or error}",
                reason="TLSRefused",
            ) from error
    return context
