"""What a host's URI may say, and what the driver adds to it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from drivers.errors import ConnectFailed
from drivers.hypervisor import HostTarget


class Transport(StrEnum):
    """How the daemon is reached."""

    TLS = "tls"
    SSH = "ssh"
    TCP = "tcp"
    UNIX = "unix"
    TEST = "test"
    """libvirt's own mock driver, in this process."""


_PORTS = {Transport.TLS: 16514, Transport.TCP: 16509, Transport.SSH: 22}

# They name programs and files of this machine, or switch a check off: the driver alone decides on those.
_RESERVED = frozenset(
    {
        "authfile",
        "command",
        "keyfile",
        "known_hosts",
        "known_hosts_verify",
        "netcat",
        "no_tty",
        "no_verify",
        "pkipath",
        "sshauth",
    }
)
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")


@dataclass(frozen=True)
class Address:
    """A host's URI, taken apart."""

    transport: Transport
    uri: str
    host: str
    port: int | None
    socket: str | None
    """The daemon's socket, for unix."""


def parse(uri: str) -> Address:
    """Take a URI apart. Raises ConnectFailed(BadURI) with what to change."""
    if re.search(r"[^!-~]", uri):
        raise _bad(uri, "it holds a space, a control character or a letter beyond ASCII")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise _bad(uri, str(error)) from error
    driver, _, transport_name = parts.scheme.partition("+")
    if driver == "test" and not transport_name:
        return Address(Transport.TEST, uri, "", None, None)
    if driver not in {"qemu", "test"}:
        raise _bad(uri, "it begins with qemu+tls://, qemu+ssh://, qemu+tcp:// or qemu+unix://")
    try:
        transport = Transport(transport_name or ("tls" if parts.hostname else "unix"))
    except ValueError as error:
        raise _bad(uri, f"the transport {transport_name} is not one of tls, ssh, tcp, unix") from error
    # As libvirt reads them: the names in any case, parted by & or ;, with or without a value.
    parameters = {
        name.lower(): value for name, value in parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True)
    }
    if reserved := sorted(_RESERVED & parameters.keys()):
        raise _bad(uri, f"{', '.join(reserved)} cannot be set: keys and checks come from the credentials Secret")
    if parts.password is not None:
        raise _bad(uri, "a password belongs into the credentials Secret")
    if (parts.username or "").startswith("-"):
        raise _bad(uri, "a user's name does not begin with '-'")
    if transport is Transport.UNIX:
        return Address(transport, uri, "", None, parameters.get("socket"))
    if not parts.hostname:
        raise _bad(uri, "it names no host")
    if not _HOST.fullmatch(parts.hostname):
        raise _bad(uri, f"{parts.hostname} is neither the name of a host nor an address")
    return Address(transport, uri, parts.hostname, port or _PORTS[transport], parameters.get("socket"))


def with_parameters(uri: str, parameters: dict[str, str]) -> str:
    """The URI with more query parameters."""
    if not parameters:
        return uri
    separator = "&" if urlsplit(uri).query else "?"
    return uri + separator + urlencode(parameters, quote_via=quote, safe="/")


def required_credentials(address: Address, target: HostTarget) -> tuple[str, ...]:
    """Keys of the credentials Secret that this transport cannot do without."""
    if address.transport is Transport.TLS:
        return ("ca.crt", "tls.crt", "tls.key")
    if address.transport is Transport.SSH:
        return ("ssh-privatekey", "known_hosts")
    if address.transport is Transport.TCP and target.credentials.keys() & {"username", "password"}:
        return ("username", "password")
    return ()


def check_credentials(address: Address, target: HostTarget) -> None:
    """Raises ConnectFailed(CredentialsIncomplete) naming what is missing."""
    missing = [key for key in required_credentials(address, target) if not target.credentials.get(key)]
    if missing:
        raise ConnectFailed(
            f"qemu+{address.transport} needs {', '.join(missing)} in the host's credentials Secret",
            reason="CredentialsIncomplete",
        )


def _bad(uri: str, why: str) -> ConnectFailed:
    return ConnectFailed(f"the URI {uri!r} cannot be used: {why}", reason="BadURI")
