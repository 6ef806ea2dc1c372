"""The probe before libvirt's open: a listener that does not answer costs its deadline and no more."""

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.errors import ConnectFailed
from drivers.libvirt import probe as module
from drivers.libvirt.probe import probe
from drivers.libvirt.uri import parse
from lab.pki import Identity, client_identities, lab_authority


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def uri_of(server: socket.socket, transport: str) -> str:
    return f"qemu+{transport}://127.0.0.1:{server.getsockname()[1]}/system"


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_silence_is_unreachable(listener: socket.socket, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_SECONDS", 0.1)
    with pytest.raises(ConnectFailed, match="did not answer within") as failed:
        probe(parse(uri_of(listener, transport)), None)
    assert failed.value.reason == "Unreachable"


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_any_answer_will_do(listener: socket.socket, transport: str) -> None:
    """Whether the answer is a good one is for libvirt to say."""
    asked = []

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(4096))
            connection.sendall(b"no protocol that anybody knows")

    thread = threading.Thread(target=answer)
    thread.start()
    probe(parse(uri_of(listener, transport)), None)
    thread.join(5)
    assert asked[0]


def test_nobody_there_is_unreachable(listener: socket.socket) -> None:
    uri = uri_of(listener, "tcp")
    listener.close()
    with pytest.raises(ConnectFailed, match="is libvirtd running") as failed:
        probe(parse(uri), None)
    assert failed.value.reason == "Unreachable"


def test_no_such_socket_is_unreachable() -> None:
    with pytest.raises(ConnectFailed) as failed:
        probe(parse("qemu+unix:///system?socket=/nowhere/libvirt-sock"), None)
    assert failed.value.reason == "Unreachable"


def test_what_cannot_be_probed_is_left_to_libvirt() -> None:
    probe(parse("qemu+ssh://nobody.invalid/system"), None)
    probe(parse("test:///default"), None)
    probe(parse("qemu:///system"), None)


def serve_tls(listener: socket.socket, identity: Identity) -> threading.Thread:
    """One handshake as a daemon makes it, and one byte."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)

    def answer() -> None:
        connection, _ = listener.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.sendall(b"\1")
        except ssl.SSLError:
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize(("days", "reason"), [(-0.01, "CertificateExpired"), (1, None)])
def test_a_host_whose_certificate_has_expired(
    listener: socket.socket, tmp_path: Path, days: float, reason: str | None
) -> None:
    client_identities(tmp_path)
    lifetime = datetime.timedelta(days=days)
    server = serve_tls(listener, lab_authority(tmp_path).issue(tmp_path / "host", "server", "kvm1", lifetime=lifetime))
    try:
        if reason is None:
            probe(parse(uri_of(listener, "tls")), tmp_path / "client")
        else:
            with pytest.raises(ConnectFailed, match="renew it on the host") as failed:
                probe(parse(uri_of(listener, "tls")), tmp_path / "client")
            assert failed.value.reason == reason
    finally:
        server.join(5)


def test_a_host_of_another_authority_is_for_libvirt_to_refuse(listener: socket.socket, tmp_path: Path) -> None:
    client_identities(tmp_path / "ours")
    server = serve_tls(listener, lab_authority(tmp_path / "theirs").issue(tmp_path / "host", "server", "kvm1"))
    probe(parse(uri_of(listener, "tls")), tmp_path / "ours" / "client")
    server.join(5)
