"""The probe before libvirt's open: a listener that does not answer costs its deadline and no more."""

import socket
import threading
from collections.abc import Iterator

import pytest

from drivers.errors import ConnectFailed
from drivers.libvirt import probe as module
from drivers.libvirt.probe import probe
from drivers.libvirt.uri import parse


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
