"""What a host is made of follows from its lab and its number alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.hosts.layout import Layout, daemons, libvirtd_conf, network_commands, qemu_conf, sshd_config
from lab.state import State


def _layout(number: int, folder: str = "/labs/one") -> Layout:
    return Layout(State(Path(folder)), number)


def test_identity_is_stable_and_belongs_to_one_lab() -> None:
    assert _layout(1).uuid == _layout(1).uuid
    everyone = [_layout(1), _layout(2), _layout(1, "/labs/two")]
    assert len({layout.uuid for layout in everyone}) == 3
    assert len({layout.hardware_address("eth0") for layout in everyone}) == 3
    assert _layout(1).hardware_address("eth0") != _layout(1).hardware_address("lan")


def test_hardware_addresses_are_local_and_of_one_station() -> None:
    first = int(_layout(7).hardware_address("eth0").split(":")[0], 16)
    assert first & 0b11 == 0b10


@pytest.mark.parametrize(
    ("number", "ssh_and_tcp", "unprivileged"), [(1, False, False), (2, True, False), (3, False, True)]
)
def test_hosts_differ_in_transports_and_in_who_runs_qemu(number: int, ssh_and_tcp: bool, unprivileged: bool) -> None:
    layout = _layout(number)
    assert (f"listen_tcp = {int(ssh_and_tcp)}\n" in libvirtd_conf(layout)) is True
    assert (["/usr/sbin/sshd"] in daemons(layout)) is ssh_and_tcp
    assert ('user = "libvirt-qemu"\n' in qemu_conf(layout)) is unprivileged
    assert f"dynamic_ownership = {int(unprivileged)}\n" in qemu_conf(layout)
    # Remembering owners is Debian's default: said only where it is otherwise.
    assert ("remember_owner" in qemu_conf(layout)) is not unprivileged


def test_settings_are_written_as_libvirt_reads_them() -> None:
    text = libvirtd_conf(_layout(1))
    assert f'host_uuid = "{_layout(1).uuid}"\n' in text
    assert 'listen_addr = "10.77.0.11"\n' in text
    assert "listen_tls = 1\n" in text
    assert "namespaces = []\n" in qemu_conf(_layout(1))


def test_a_host_listens_only_on_its_own_address() -> None:
    assert "ListenAddress 10.77.0.12\n" in sshd_config(_layout(2))
    assert "address replace 10.77.0.12/24 dev eth0\n" in network_commands(_layout(2))
