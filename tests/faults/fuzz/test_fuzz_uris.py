"""URIs, credentials and paths: every string is refused with a reason, or means what it says and nothing else."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import ConnectFailed
from drivers.hypervisor import HostTarget
from drivers.libvirt.credentials import Credentials
from drivers.libvirt.uri import Transport, parse
from reconcilers.disk.place import file_problem
from tests.faults.fuzz.campaign import campaign, tried
from tests.unit.reconcilers.builders import disk, storage

SECRETS = {"authfile", "command", "keyfile", "known_hosts", "netcat", "no_tty", "no_verify", "pkipath", "sshauth"}
PIECES = st.sampled_from(
    [
        *(
            "qemu",
            "test",
            "+",
            "tls",
            "ssh",
            "tcp",
            "unix",
            "://",
            "/",
            "//",
            "kvm1",
            "kvm1.example",
            "[::1]",
            "@",
            ":",
        ),
        *("16514", "99999", "root", "-l", "-oProxyCommand=id", "?", "&", ";", "=", "#", "system", "%2e%2e", "..", "1"),
        *("$(id)", "`id`", "\n", "\0", "ä", " ", "/etc/passwd"),
        *("socket", "no_verify", "NO_VERIFY", "Command", "pkipath", "%6eo_verify"),
    ]
)
WHOLE = st.tuples(
    st.sampled_from(["qemu+tls://", "qemu+ssh://", "qemu+tcp://", "qemu+unix://"]),
    st.lists(PIECES, max_size=8).map("".join),
).map("".join)
URIS = st.one_of(WHOLE, WHOLE, st.lists(PIECES, max_size=8).map("".join), st.text(max_size=40))


@campaign(6000)
@given(uri=URIS)
def test_a_uri_is_refused_or_plain(uri: str) -> None:
    try:
        address = parse(uri)
    except ConnectFailed as refusal:
        tried("URIs", refusal.reason)
        return
    tried("URIs", str(address.transport))
    assert address.uri == uri
    assert uri.isprintable()
    assert uri.isascii()
    if address.transport in (Transport.UNIX, Transport.TEST):
        return
    assert re.match(r"[A-Za-z0-9_:]", address.host)
    names = [word.partition("=")[0].lower() for word in re.split("[&;]", urlsplit(uri).query)]
    assert not SECRETS.intersection(names)


@campaign(300)
@given(
    transport=st.sampled_from(["tls", "ssh"]),
    keys=st.dictionaries(
        st.sampled_from(
            ["ca.crt", "tls.crt", "tls.key", "ssh-privatekey", "known_hosts", "../../etc/passwd", "/x", "a/b"]
        ),
        st.binary(min_size=1, max_size=40),
    ),
    whole=st.booleans(),
)
def test_credentials_stay_in_their_folder(transport: str, keys: dict[str, bytes], whole: bool) -> None:
    if whole:
        keys = dict.fromkeys(["ca.crt", "tls.crt", "tls.key", "ssh-privatekey", "known_hosts"], b"\0x") | keys
    address = parse(f"qemu+{transport}://kvm1/system")
    try:
        credentials = Credentials(address, HostTarget("kvm1", address.uri, keys))
    except ConnectFailed as refusal:
        tried("credentials", refusal.reason)
        return
    try:
        credentials.uri()
        folder = credentials.folder
        assert folder is not None
        found = sorted(path.name for path in Path(folder).rglob("*"))
        expected = {
            "tls": ["cacert.pem", "clientcert.pem", "clientkey.pem"],
            "ssh": ["identity", "known_hosts", "ssh_config"],
        }
        assert found == expected[transport]
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        credentials.close()
    assert not folder.exists()
    tried("credentials", transport)


PARTS = st.sampled_from(
    ["..", ".", "", "srv", "vms", "a.qcow2", "etc", "passwd", "a.json", "%2e%2e", "a b", "\0", "~", "x.import"]
)
PATHS = st.tuples(st.sampled_from(["", "/", "//", "/srv/vms/", "/srv/vms/../"]), st.lists(PARTS, max_size=5)).map(
    lambda pair: pair[0] + "/".join(pair[1])
)


@campaign(3000)
@given(path=PATHS, kind=st.sampled_from(["file", "existing"]))
def test_a_path_is_one_file_of_the_directory_or_is_refused(path: str, kind: str) -> None:
    source = {"path": path or "x"} | ({"checksum": "sha256:" + "0" * 64} if kind == "file" else {})
    domain = storage().build()
    refusal = file_problem(disk(source={kind: source}).build(), domain)
    if refusal is not None:
        assert refusal.reason in ("PathOutside", "OwnedByOther")
        assert refusal.message
        tried("paths", refusal.reason)
        return
    tried("paths", "taken")
    taken = PurePosixPath(domain.spec.directory.path, path or "x")
    assert str(taken.parent) == domain.spec.directory.path
    assert taken.name not in ("..", ".", "")
