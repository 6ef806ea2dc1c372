"""How a host is reached: every transport works, and each thing that can be wrong has its reason and heals."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from datetime import timedelta

import pytest

from lab.hosts import Host
from lab.pki import lab_authority
from tests.integration.system.cluster import Cluster, Object, firmware_vm, host
from tests.integration.system.test_typed_reasons import stalled
from tools.deployment import NAMESPACE


def secret(name: str, **data: str) -> Object:
    """A Secret in the operator's namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": data,
    }


def identity(cluster: Cluster, name: str, folder: str) -> Object:
    """The Secret of this name with a TLS identity of the lab."""
    files = ("ca.crt", "tls.crt", "tls.key")
    return secret(name, **{file: (cluster.lab.state.pki / folder / file).read_text() for file in files})


@contextlib.contextmanager
def expiring_certificate(host: Host) -> Iterator[None]:
    """The host's certificate expires while its daemon runs (with an expired one, libvirtd does not start at all)."""
    folder, names = host.layout.path("etc") / "pki", [host.layout.full_name]
    good = {name: (folder / name).read_bytes() for name in ("server.crt", "server.key")}
    lab_authority(host.layout.state.pki).issue(folder, "server", names[0], names=names, lifetime=timedelta(seconds=15))
    host.daemon_stop()
    host.daemon_start()
    try:
        yield
    finally:
        for name, content in good.items():
            (folder / name).write_bytes(content)
        host.daemon_stop()
        host.daemon_start()


@pytest.fixture
def newcomer(cluster: Cluster) -> Iterator[str]:
    """The name of a Host object that does not exist, for the machine kvm3, which no other Host stands for."""
    cluster.delete("host", "kvm3")
    cluster.wait_gone("host", "kvm3")
    yield "newcomer"
    cluster.delete("host", "newcomer")
    cluster.wait_gone("host", "newcomer")
    cluster.apply(host("kvm3", "qemu+tls://kvm3.lab/system"))
    cluster.lab.kubectl("delete", "secret", "-n", NAMESPACE, "newcomer", "--ignore-not-found")


def test_each_wrong_connection_has_its_reason_and_heals(cluster: Cluster, newcomer: str) -> None:
    own = "newcomer"
    for uri in ("qemu+pigeon://kvm3.lab/system", "kvm3.lab", "qemu+tls://me:secret@kvm3.lab/system"):
        assert "spec.uri" in cluster.refused(host(newcomer, uri, credentialsSecret=own))
    cluster.apply(host(newcomer, "qemu+tls://kvm3.lab/system", credentialsSecret=own))
    stalled(cluster, "host", newcomer, "CredentialsMissing", own, NAMESPACE, "create it")
    cluster.apply(secret(own, **{"ca.crt": "x"}))
    stalled(cluster, "host", newcomer, "CredentialsIncomplete", "tls.crt", "tls.key")
    cluster.apply(identity(cluster, own, "stranger"))
    stalled(cluster, "host", newcomer, "TLSRefused")
    cluster.patch("host", newcomer, {"uri": "qemu+tls://nowhere.lab/system"})
    stalled(cluster, "host", newcomer, "Unresolvable", "nowhere.lab")
    cluster.patch("host", newcomer, {"uri": "qemu+tls://kvm3.lab:1/system"})
    stalled(cluster, "host", newcomer, "Unreachable", "kvm3.lab port 1")
    cluster.patch("host", newcomer, {"uri": "qemu+tls://kvm3.lab/system"})
    stalled(cluster, "host", newcomer, "TLSRefused")
    kvm3 = cluster.lab.host("kvm3")
    with expiring_certificate(kvm3):
        stalled(cluster, "host", newcomer, "CertificateExpired", "on the host", "renew")
    authority = lab_authority(cluster.lab.state.pki)
    authority.issue(cluster.lab.state.pki / "expired", "tls", "operator", lifetime=timedelta(minutes=-1))
    shutil.copy(authority.path, cluster.lab.state.pki / "expired")
    cluster.apply(identity(cluster, own, "expired"))
    stalled(cluster, "host", newcomer, "CertificateExpired", "tls.crt", "renew")
    cluster.apply(identity(cluster, own, "client"))
    cluster.wait_phase("host", newcomer, "Up")
    cluster.wait_condition("host", newcomer, "Ready", "True", "Up")
    # The same machine twice would be counted twice.
    cluster.apply(host("kvm3", "qemu+tls://kvm3.lab/system"))
    stalled(cluster, "host", "kvm3", "DuplicateHost", newcomer, "delete one of the two")
    cluster.delete("host", "kvm3")
    cluster.wait_gone("host", "kvm3")


def test_ssh_and_tcp_serve_as_well_as_tls(cluster: Cluster) -> None:
    keys = cluster.lab.state.pki / "ssh"
    private, known = (keys / "id_ed25519").read_text(), (keys / "known_hosts").read_text()
    kvm2 = cluster.lab.host("kvm2")
    cluster.apply(firmware_vm("web", placement={"host": "kvm2"}))
    cluster.running("web")
    pid = kvm2.qemu(f"{cluster.namespace}.web").pid
    try:
        cluster.apply(secret("kvm2-ssh", **{"ssh-privatekey": private, "known_hosts": "other.lab ssh-ed25519 AAAA\n"}))
        cluster.apply(host("kvm2", str(kvm2.uri_ssh), credentialsSecret="kvm2-ssh"))
        stalled(cluster, "host", "kvm2", "HostKeyUnknown")
        cluster.apply(secret("kvm2-ssh", **{"ssh-privatekey": private, "known_hosts": known}))
        cluster.wait_phase("host", "kvm2", "Up")
        cluster.wait_condition("host", "kvm2", "Ready", "True", "Up")
        cluster.running("web")
        # Files travel over it too: the seed is uploaded and the marker is read.
        over_ssh = firmware_vm("ssh", placement={"host": "kvm2"}, cloudInit={"userData": "#cloud-config\n"})
        cluster.apply(over_ssh)
        cluster.running("ssh")
        tcp = {"apiVersion": "hostler.dev/v1alpha1", "kind": "Host", "metadata": {"name": "kvm2"}}
        cluster.apply({**tcp, "spec": {"pool": "default", "uri": str(kvm2.uri_tcp)}})
        cluster.wait_condition("host", "kvm2", "Ready", "True", "Up")
        cluster.delete("hvm", "ssh")
        cluster.wait_gone("hvm", "ssh")
        assert cluster.running("web")["status"]["placement"]["host"] == "kvm2"
        assert kvm2.qemu(f"{cluster.namespace}.web").pid == pid
    finally:
        cluster.apply(host("kvm2", kvm2.uri_tls))
        cluster.lab.kubectl("delete", "secret", "-n", NAMESPACE, "kvm2-ssh", "--ignore-not-found")
