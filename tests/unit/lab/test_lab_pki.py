"""The lab's authorities and what they sign, judged by OpenSSL."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.pki import Authority, client_identities, lab_authority, ssh_key


def _verify(certificate: Path, authority: Path, *options: str) -> bool:
    command = ["openssl", "verify", "-x509_strict", "-CAfile", authority, *options, certificate]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_a_certificate_is_good_for_its_names_as_server_and_as_client(tmp_path: Path) -> None:
    authority = lab_authority(tmp_path)
    made = authority.issue(
        tmp_path / "kvm1", "server", "kvm1.lab", names=["kvm1.lab", "kvm1"], addresses=["10.77.0.11"]
    )
    for options in (
        ("-purpose", "sslserver", "-verify_hostname", "kvm1"),
        ("-purpose", "sslserver", "-verify_ip", "10.77.0.11"),
        (
            "-purpose",
            "sslclient",
        ),
    ):
        assert _verify(made.certificate, authority.path, *options), options
    assert not _verify(made.certificate, authority.path, "-verify_hostname", "kvm2.lab")
    assert made.key.stat().st_mode & 0o777 == 0o600


def test_it_is_kept_until_it_must_say_something_else(tmp_path: Path) -> None:
    authority = lab_authority(tmp_path)
    first = authority.issue(tmp_path, "server", "kvm1.lab", names=["kvm1.lab"]).certificate.read_bytes()
    assert (
        lab_authority(tmp_path).issue(tmp_path, "server", "kvm1.lab", names=["kvm1.lab"]).certificate.read_bytes()
        == first
    )
    other = authority.issue(tmp_path, "server", "kvm1.lab", names=["kvm1.lab", "kvm1"]).certificate.read_bytes()
    assert other != first
    again = authority.issue(tmp_path, "server", "kvm1.lab", organizations=["lab"], names=["kvm1.lab", "kvm1"])
    assert again.certificate.read_bytes() != other


def test_another_authority_signs_anew(tmp_path: Path) -> None:
    for name in ("one", "two"):
        authority = Authority.open(tmp_path / name, name)
        made = authority.issue(tmp_path, "client", "somebody")
        assert _verify(made.certificate, authority.path)


def test_a_stranger_knows_the_lab_but_is_not_known_to_it(tmp_path: Path) -> None:
    known, stranger = client_identities(tmp_path)
    authority = lab_authority(tmp_path).path
    assert _verify(known.certificate, authority)
    assert not _verify(stranger.certificate, authority)
    # A libvirt client asks its own authorities about itself and about the server.
    assert _verify(stranger.certificate, tmp_path / "stranger" / "cacert.pem")
    assert _verify(known.certificate, tmp_path / "stranger" / "cacert.pem")
    for folder in ("client", "stranger"):
        names = {"ca.crt", "tls.crt", "tls.key", "cacert.pem", "clientcert.pem", "clientkey.pem"}
        assert names <= {file.name for file in (tmp_path / folder).iterdir()}
        assert (tmp_path / folder / "clientkey.pem").stat().st_mode & 0o777 == 0o600


def test_an_ssh_key_is_made_once_and_read_by_ssh(tmp_path: Path) -> None:
    line = ssh_key(tmp_path / "id_ed25519")
    assert ssh_key(tmp_path / "id_ed25519") == line
    derived = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "id_ed25519"], capture_output=True, text=True)
    assert derived.stdout.split()[:2] == line.split()[:2]
