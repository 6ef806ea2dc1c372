"""What a host's URI may say, and its credentials as files."""

import stat
from pathlib import Path

import pytest

from drivers.errors import ConnectFailed
from drivers.hypervisor import HostTarget
from drivers.libvirt.connection import Connector
from drivers.libvirt.credentials import Credentials
from drivers.libvirt.uri import Address, Transport, parse, with_parameters

TLS = {"ca.crt": b"ca\n", "tls.crt": b"cert\n", "tls.key": b"key\n"}
SSH = {"ssh-privatekey": b"key without a last line end", "known_hosts": b"host key\n"}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu+tls://kvm1.example/system", (Transport.TLS, "kvm1.example", 16514, None)),
        ("qemu://kvm1.example/system", (Transport.TLS, "kvm1.example", 16514, None)),
        ("qemu+tls://[2001:db8::1]:1234/system", (Transport.TLS, "2001:db8::1", 1234, None)),
        ("qemu+ssh://root@kvm1/system", (Transport.SSH, "kvm1", 22, None)),
        ("qemu+tcp://kvm1/system", (Transport.TCP, "kvm1", 16509, None)),
        ("qemu+unix:///system?socket=/run/x", (Transport.UNIX, "", None, "/run/x")),
        ("qemu:///system", (Transport.UNIX, "", None, None)),
        ("test:///default", (Transport.TEST, "", None, None)),
    ],
)
def test_a_uri_is_taken_apart(uri: str, expected: tuple[Transport, str, int | None, str | None]) -> None:
    assert parse(uri) == Address(expected[0], uri, expected[1], expected[2], expected[3])


@pytest.mark.parametrize(
    "uri",
    [
        "http://kvm1/",
        "xen+tls://kvm1/",
        "qemu+ext://kvm1/system",
        "qemu+libssh2://kvm1/system",
        "qemu+tls:///system",
        "qemu+tls://kvm1:port/system",
        "qemu+tcp://user:secret@kvm1/system",
        "qemu+ssh://kvm1/system?command=/bin/sh",
        "qemu+ssh://kvm1/system?keyfile=/etc/shadow",
        "qemu+tls://kvm1/system?no_verify=1",
        "qemu+tls://kvm1/system?pkipath=/",
        "qemu+tls://kvm1/system?NO_VERIFY=1",
        "qemu+tls://kvm1/system?x=1;no_verify=1",
        "qemu+ssh://kvm1/system?command",
        "qemu+tcp://kvm1/system?authfile=/etc/passwd",
        "qemu+tls://kvm1/sys\ntem",
        "qemu+ssh://-oProxyCommand=id/system",
        "qemu+ssh://-l@kvm1/system",
        "qemu+tls://..",
    ],
)
def test_a_uri_that_cannot_be_used_is_refused(uri: str) -> None:
    with pytest.raises(ConnectFailed) as refused:
        parse(uri)
    assert refused.value.reason == "BadURI"


def test_parameters_are_added() -> None:
    assert with_parameters("qemu+tls://h/system", {"pkipath": "/a b"}) == "qemu+tls://h/system?pkipath=/a%20b"
    assert with_parameters("qemu+tls://h/system?x=1", {"y": "2"}) == "qemu+tls://h/system?x=1&y=2"
    assert with_parameters("qemu+tls://h/system", {}) == "qemu+tls://h/system"


def made(uri: str, credentials: dict[str, bytes]) -> Credentials:
    return Credentials(parse(uri), HostTarget("h", uri, credentials))


@pytest.mark.parametrize(
    ("uri", "credentials", "missing"),
    [
        ("qemu+tls://h/system", {}, "ca.crt, tls.crt, tls.key"),
        ("qemu+tls://h/system", TLS | {"tls.key": b""}, "tls.key"),
        ("qemu+ssh://h/system", {"ssh-privatekey": b"x"}, "known_hosts"),
        ("qemu+tcp://h/system", {"username": b"x"}, "password"),
    ],
)
def test_what_is_missing_is_named(uri: str, credentials: dict[str, bytes], missing: str) -> None:
    with pytest.raises(ConnectFailed, match=missing) as refused:
        Connector(HostTarget("h", uri, credentials))
    assert refused.value.reason == "CredentialsIncomplete"


def test_tls_files_are_private_and_go_away() -> None:
    credentials = made("qemu+tls://h/system", TLS)
    assert credentials.folder is None, "nothing is written before it is needed"
    uri = credentials.uri()
    folder = credentials.folder
    assert folder is not None
    assert uri == f"qemu+tls://h/system?pkipath={folder}"
    assert credentials.uri() == uri
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "cacert.pem": b"ca\n",
        "clientcert.pem": b"cert\n",
        "clientkey.pem": b"key\n",
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    credentials.close()
    assert not folder.exists()
    with pytest.raises(ConnectFailed):
        credentials.uri()


def test_ssh_takes_its_rules_from_its_own_folder() -> None:
    credentials = made("qemu+ssh://root@h/system", SSH)
    uri = credentials.uri()
    folder = credentials.folder
    assert folder is not None
    try:
        assert f"keyfile={folder}/identity" in uri
        command = Path(uri.partition("command=")[2].partition("&")[0])
        assert command.stat().st_mode & 0o111, "the command can be executed"
        config = (folder / "ssh_config").read_text()
        assert f"UserKnownHostsFile {folder}/known_hosts" in config
        assert "StrictHostKeyChecking yes" in config
        assert (folder / "identity").read_bytes().endswith(b"\n")
    finally:
        credentials.close()


def test_each_host_has_a_folder_of_its_own() -> None:
    first, second = made("qemu+tls://h/system", TLS), made("qemu+tls://h/system", TLS)
    assert first.uri() != second.uri()
    first.close()
    assert second.folder is not None
    assert second.folder.exists()
    second.close()


def test_a_login_is_given_for_sasl_only() -> None:
    assert made("qemu+tcp://h/system", {}).login is None
    assert made("qemu+tcp://h/system", {"username": b"u", "password": b"p"}).login == ("u", "p")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() -> None:
    living = made("qemu+tls://h/system", TLS)
    living.uri()
    assert living.folder is not None
    abandoned = living.folder.with_name("hostler-credentials-abandoned")
    abandoned.mkdir()
    (abandoned / "clientkey.pem").write_bytes(b"key")
    after = made("qemu+tls://h/system", TLS)
    after.uri()
    assert not abandoned.exists()
    assert living.folder.exists()
    living.close()
    after.close()
