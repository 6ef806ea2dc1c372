"""The lab's own certificate authorities: who they are, and how they hand out certificates.

One authority signs for everything that belongs to the lab (hosts, control plane, the operator's client
identity); a second one, the stranger's, signs an identity that hosts must refuse.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.state import locked, write_atomically

LIFETIME = datetime.timedelta(days=3650)
RENEW_BEFORE = datetime.timedelta(days=7)
# Machines whose clocks differ a little must accept a certificate at once.
BACKDATED = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key in files: `certificate` (PEM), `key` (PEM, PKCS8, mode 0600), signed by `authority`."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority that lives in a folder as ca.crt and ca.key."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def path(self) -> Path:
        """The authority's certificate as a PEM file."""
        return self.folder / "ca.crt"

    @classmethod
    def open(cls, folder: Path, name: str) -> Authority:
        """The authority in this folder, made on the first call. Safe between processes and threads."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate_path, key_path = folder / "ca.crt", folder / "ca.key"
        with locked(folder / ".lock"):
            if not certificate_path.exists():
                _make_authority(name, certificate_path, key_path)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{key_path} does not hold an elliptic-curve key")
        return cls(folder, certificate, key)

    def issue(
        self,
        folder: Path,
        stem: str,
        common_name: str,
        *,
        organizations: Sequence[str] = (),
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        lifetime: datetime.timedelta = LIFETIME,
    ) -> Identity:
        """`folder`/`stem`.crt and .key: good as server (for the DNS `names` and IP `addresses`) and as client.

        Kept as they are when they already say all this and last for another week. A lifetime below zero is over.
        """
        identity = Identity(folder / f"{stem}.crt", folder / f"{stem}.key", self.path)
        subject = _subject(common_name, organizations)
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            if not self._still_good(identity, subject, alternatives):
                key = ec.generate_private_key(ec.SECP256R1())
                certificate = self._sign(key, subject, alternatives, lifetime)
                write_atomically(identity.key, _key_text(key), 0o600)
                write_atomically(identity.certificate, _certificate_text(certificate))
        return identity

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        alternatives: list[x509.GeneralName],
        lifetime: datetime.timedelta,
    ) -> x509.Certificate:
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = _builder(subject, self.certificate.subject, key.public_key(), lifetime, authority=False)
        builder = builder.add_extension(usages, critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _still_good(self, identity: Identity, subject: x509.Name, alternatives: list[x509.GeneralName]) -> bool:
        if not (identity.certificate.exists() and identity.key.exists()):
            return False
        certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
        try:
            said = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            said = []
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        lasts = certificate.not_valid_after_utc - RENEW_BEFORE > datetime.datetime.now(datetime.UTC)
        return issuer == ours and certificate.subject == subject and said == alternatives and lasts


def lab_authority(pki: Path) -> Authority:
    """The lab's authority; `pki` is the state folder's room for keys."""
    return Authority.open(pki, "lab")


def stranger_authority(pki: Path) -> Authority:
    """An authority that nothing in the lab trusts."""
    return Authority.open(pki / "stranger" / "authority", "stranger")


def client_identities(pki: Path) -> tuple[Identity, Identity]:
    """`pki`/client, which every host accepts, and `pki`/stranger, which knows the hosts and is refused by them."""
    ours, strange = lab_authority(pki), stranger_authority(pki)
    known = _client_identity(ours, [ours], pki / "client", "operator")
    # A libvirt client first asks its own authorities whether its own certificate is good.
    return known, _client_identity(strange, [ours, strange], pki / "stranger", "stranger")


def _client_identity(authority: Authority, trusted: Sequence[Authority], folder: Path, common_name: str) -> Identity:
    """A client's identity in `folder` under the names that Kubernetes TLS Secrets and libvirt clients expect.

    ca.crt, tls.crt, tls.key, and the same as cacert.pem, clientcert.pem, clientkey.pem (libvirt's `pkipath`).
    """
    identity = authority.issue(folder, "tls", common_name)
    authorities = "".join(authority.path.read_text() for authority in trusted)
    for name in ("ca.crt", "cacert.pem"):
        write_atomically(folder / name, authorities)
    write_atomically(folder / "clientcert.pem", identity.certificate.read_text())
    write_atomically(folder / "clientkey.pem", identity.key.read_text(), 0o600)
    return identity


def ssh_key(path: Path) -> str:
    """An ed25519 key for SSH: `path` (OpenSSH format, 0600) and `path`.pub, made once. Returns the public line."""
    public = path.with_name(f"{path.name}.pub")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / ".lock"):
        if not public.exists():
            key = ed25519.Ed25519PrivateKey.generate()
            line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            write_atomically(path, private.decode(), 0o600)
            write_atomically(public, f"{line.decode()} {path.name}\n")
        return public.read_text().strip()


def _make_authority(name: str, certificate_path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"{name} certificate authority", ())
    certificate = _builder(subject, subject, key.public_key(), LIFETIME, authority=True).sign(key, hashes.SHA256())
    write_atomically(key_path, _key_text(key), 0o600)
    write_atomically(certificate_path, _certificate_text(certificate))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    lifetime: datetime.timedelta,
    *,
    authority: bool,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        # libvirt before 11.6 insists on it, elliptic curve or not.
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _subject(common_name: str, organizations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _certificate_text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
