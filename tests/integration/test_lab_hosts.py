"""The lab's hosts: real libvirtd daemons that boot, break and come back as hosts do."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lab.api import Lab
from lab.errors import DeadlineError, LabError
from lab.hosts import Host, cli, status, up
from lab.hosts.guests import start_guest, stop_guest
from lab.network import Fabric
from lab.processes import end, marked, namespace, run, wait_until


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("hosts") / "lab")
    try:
        lab.up(3, control_plane=False)
        yield lab
    finally:
        lab.down()
    assert not marked(lab.state)


@pytest.fixture
def kvm1(lab: Lab) -> Iterator[Host]:
    yield from _healthy(lab.host("kvm1"))


@pytest.fixture
def kvm2(lab: Lab) -> Iterator[Host]:
    yield from _healthy(lab.host("kvm2"))


@pytest.fixture
def kvm3(lab: Lab) -> Iterator[Host]:
    yield from _healthy(lab.host("kvm3"))


def _healthy(host: Host) -> Iterator[Host]:
    yield host
    host.power_on()
    host.resume()
    host.slow(0)
    host.heal()
    host.heal(guests=True)
    host.mount_shared()
    host.daemon_start()
    for qemu in host.qemus():
        stop_guest(host, qemu.name)


def _image(folder: Path, name: str) -> Path:
    image = folder / name
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"])
    return image


def _owner(file: Path) -> str:
    return pwd.getpwuid(file.stat().st_uid).pw_name


def _remembered(file: Path) -> list[str]:
    """What libvirt has noted on the file about those who use it."""
    return [name for name in os.listxattr(file) if "libvirt" in name]


def _tls(lab: Lab, target: Host, identity: str) -> str:
    return f"{target.uri_tls}?pkipath={lab.state.pki / identity}"


def _virsh(lab: Lab, uri: str, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return lab.exec(["virsh", "--connect", uri, *words], timeout=timeout)


# What a host is


def test_each_host_is_somebody_of_its_own(lab: Lab) -> None:
    kinds = ("net", "mnt", "pid", "uts", "ipc")
    for host in lab.hosts:
        assert host.run("hostname").strip() == f"{host.name}.lab"
        assert f"<uuid>{host.uuid}</uuid>" in host.virsh("capabilities")
        assert host.virsh("hostname").strip() == f"{host.name}.lab"
        assert not lab.exec(["ping", "-c1", "-W2", f"{host.name}.lab"]).returncode
    for kind in kinds:
        assert len({namespace(pid, kind) for pid in (os.getpid(), *(host.init.pid for host in lab.hosts))}) == 4
    assert len({host.uuid for host in lab.hosts}) == 3
    assert len({host.boot_id for host in lab.hosts}) == 3


def test_it_has_no_device_that_would_be_in_the_way(kvm1: Host) -> None:
    assert "kvm" not in kvm1.run("ls", "/dev").split()
    assert "<domain type='kvm'" not in kvm1.virsh("capabilities")


def test_a_known_client_is_let_in_by_tls_and_a_stranger_is_not(lab: Lab, kvm1: Host) -> None:
    assert _virsh(lab, _tls(lab, kvm1, "client"), "uri").returncode == 0
    refused = _virsh(lab, _tls(lab, kvm1, "stranger"), "uri")
    assert refused.returncode != 0
    assert "failed validation" not in refused.stderr  # the host refuses, not the client


def test_one_host_takes_tcp_and_ssh(lab: Lab, kvm1: Host, kvm2: Host) -> None:
    assert kvm1.uri_tcp is None
    assert kvm1.uri_ssh is None
    assert kvm2.uri_tcp
    assert _virsh(lab, kvm2.uri_tcp, "uri").returncode == 0
    keys = lab.state.pki / "ssh"
    options = [f"UserKnownHostsFile={keys / 'known_hosts'}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
    command = ["ssh", "-i", str(keys / "id_ed25519"), *(f"-o{option}" for option in options), "root@kvm2.lab"]
    said = lab.exec([*command, "virsh", "hostname"])
    assert said.stdout.strip() == "kvm2.lab", said.stderr


def test_root_of_the_machine_reaches_it_by_its_socket(kvm1: Host) -> None:
    assert "kvm1.lab" in run(["virsh", "--connect", kvm1.uri_unix, "hostname"])


# Guests and storage


@pytest.mark.parametrize("storage", ["shared", "local"])
def test_an_unprivileged_qemu_gets_its_image_and_gives_it_back(lab: Lab, kvm3: Host, storage: str) -> None:
    folder = lab.shared if storage == "shared" else kvm3.local
    image = _image(folder, "changes-hands.qcow2")
    start_guest(kvm3, "guest", str(uuid4()), f"/srv/{storage}/{image.name}")
    qemu = kvm3.qemu("guest")
    assert Path(f"/proc/{qemu.pid}").owner() == "libvirt-qemu"
    assert _owner(image) == "libvirt-qemu"
    stop_guest(kvm3, "guest")
    assert _owner(image) == "root"
    image.unlink()


def test_a_power_cut_lets_go_of_who_owned_an_image(lab: Lab, kvm3: Host) -> None:
    image = _image(lab.shared, "cut.qcow2")
    start_guest(kvm3, "guest", str(uuid4()), "/srv/shared/cut.qcow2")
    kvm3.power_off()
    kvm3.power_on()
    assert _owner(image) == "libvirt-qemu"
    assert _remembered(image)
    start_guest(kvm3, "guest", str(uuid4()), "/srv/shared/cut.qcow2")
    stop_guest(kvm3, "guest")
    # Counted on from before the cut, one user of the image would be left for ever.
    assert not _remembered(image)
    image.unlink()


def test_elsewhere_qemu_is_root_and_images_stay_as_they_are(lab: Lab, kvm1: Host) -> None:
    image = _image(lab.shared, "stays.qcow2")
    image.chmod(0o640)
    start_guest(kvm1, "guest", str(uuid4()), "/srv/shared/stays.qcow2")
    qemu = kvm1.qemu("guest")
    assert Path(f"/proc/{qemu.pid}").owner() == "root"
    assert qemu.uuid in kvm1.virsh("list", "--uuid")
    assert _owner(image) == "root"
    kvm1.qemu_kill("guest")
    assert not kvm1.qemus()
    wait_until("libvirtd to notice", lambda: not kvm1.virsh("list", "--name").strip(), 5)
    image.unlink()


def test_all_hosts_see_shared_storage_at_once_and_none_sees_anothers(lab: Lab, kvm1: Host, kvm2: Host) -> None:
    kvm1.run("sh", "-c", "echo grown > /srv/shared/letter; echo mine > /srv/local/diary")
    assert kvm2.run("cat", "/srv/shared/letter") == "grown\n"
    kvm1.run("sh", "-c", "echo and grown >> /srv/shared/letter")
    assert kvm2.run("stat", "-c", "%s", "/srv/shared/letter") == "16\n"
    assert kvm2.run("ls", "/srv/local") == ""
    assert (kvm1.local / "diary").read_text() == "mine\n"
    (kvm1.local / "diary").unlink()
    (lab.shared / "letter").unlink()


def test_shared_storage_can_vanish_under_a_running_guest(lab: Lab, kvm1: Host) -> None:
    image = _image(lab.shared, "pulled.qcow2")
    start_guest(kvm1, "guest", str(uuid4()), "/srv/shared/pulled.qcow2")
    for _ in range(2):
        kvm1.unmount_shared()
    assert kvm1.run("ls", "-A", "/srv/shared") == ""
    assert [qemu.name for qemu in kvm1.qemus()] == ["guest"]
    for _ in range(2):
        kvm1.mount_shared()
    assert image.name in kvm1.run("ls", "/srv/shared")
    stop_guest(kvm1, "guest")
    image.unlink()


# Networks


def test_guest_bridges_are_joined_and_can_be_cut(kvm1: Host, kvm2: Host) -> None:
    for host, address in ((kvm1, "10.88.0.201/24"), (kvm2, "10.88.0.202/24")):
        host.run("ip", "address", "replace", address, "dev", "lan")
    assert kvm1.run("ping", "-c1", "-W2", "10.88.0.202")
    kvm2.partition(guests=True)
    with pytest.raises(LabError):
        kvm1.run("ping", "-c1", "-W1", "10.88.0.202")
    assert kvm1.run("ping", "-c1", "-W2", "kvm2.lab")
    kvm2.heal(guests=True)
    assert wait_until("the guests' network", lambda: kvm1.run("ping", "-c1", "-W2", "10.88.0.202"), 5)


def test_a_partition_is_silent_and_heals(lab: Lab, kvm1: Host) -> None:
    uri = _tls(lab, kvm1, "client")
    kvm1.partition()
    assert not lab.ping(kvm1.address)
    assert not kvm1.connected()
    assert kvm1.virsh("list", "--name") == ""  # the host itself runs on
    kvm1.heal()
    assert lab.ping(kvm1.address, 2)
    assert _virsh(lab, uri, "uri").returncode == 0


def test_a_slow_network_is_slow_both_ways(lab: Lab, kvm1: Host) -> None:
    kvm1.slow(50)
    assert 100 <= _quickest_milliseconds(lab, kvm1) < 150
    kvm1.slow(0)
    assert _quickest_milliseconds(lab, kvm1) < 20


def _quickest_milliseconds(lab: Lab, host: Host) -> float:
    said = lab.exec(["ping", "-q", "-c5", "-i0.2", host.address]).stdout
    return float(said.rpartition(" = ")[2].partition("/")[0])


# The daemon and QEMUs


def test_a_hung_daemon_answers_nobody_until_it_is_resumed(kvm1: Host) -> None:
    kvm1.hang()
    assert kvm1.hung()
    with pytest.raises(DeadlineError):
        kvm1.virsh("uri", timeout=1)
    kvm1.resume()
    assert kvm1.virsh("uri")


@pytest.mark.parametrize("how", [Host.daemon_kill, Host.daemon_stop])
def test_guests_outlive_the_daemon(lab: Lab, kvm1: Host, how) -> None:
    image = _image(lab.shared, "outlives.qcow2")
    start_guest(kvm1, "guest", str(uuid4()), "/srv/shared/outlives.qcow2")
    how(kvm1)
    assert kvm1.daemon() is None
    assert [qemu.name for qemu in kvm1.qemus()] == ["guest"]
    for _ in range(2):
        kvm1.daemon_start()
    assert kvm1.virsh("list", "--name").strip() == "guest"
    # The daemon has found its way back to the guest. (Before that, `destroy` does it and says that there is none.)
    assert "running" in kvm1.virsh("qemu-monitor-command", "guest", "--hmp", "info status")
    stop_guest(kvm1, "guest")
    image.unlink()


def test_a_qemu_can_be_frozen(lab: Lab, kvm1: Host) -> None:
    image = _image(lab.shared, "frozen.qcow2")
    start_guest(kvm1, "guest", str(uuid4()), "/srv/shared/frozen.qcow2")
    kvm1.qemu_stop("guest")
    with pytest.raises(DeadlineError):
        kvm1.virsh("qemu-monitor-command", "guest", "--hmp", "info status", timeout=1)
    kvm1.qemu_cont("guest")
    assert "running" in kvm1.virsh("qemu-monitor-command", "guest", "--hmp", "info status")
    with pytest.raises(LabError, match="nobody"):
        kvm1.qemu_stop("nobody")
    stop_guest(kvm1, "guest")
    image.unlink()


# Power


def test_a_power_cycle_keeps_disks_and_forgets_the_rest(lab: Lab, kvm2: Host) -> None:
    image = _image(kvm2.local, "kept.qcow2")
    start_guest(kvm2, "guest", str(uuid4()), "/srv/local/kept.qcow2")
    kvm2.run("touch", "/run/in-memory")
    before, inside = kvm2.boot_id, namespace(kvm2.init.pid, "pid")
    for _ in range(2):
        kvm2.power_off()
    assert not kvm2.alive()
    assert not [process for process in marked(lab.state) if namespace(process.pid, "pid") == inside]
    assert not lab.ping(kvm2.address)
    with pytest.raises(LabError, match="power on"):
        kvm2.run("true")
    for _ in range(2):
        kvm2.power_on()
    assert kvm2.boot_id != before
    assert kvm2.run("cat", "/proc/sys/kernel/random/boot_id").strip() == kvm2.boot_id
    assert kvm2.run("ls", "/srv/local").split() == ["kept.qcow2"]
    assert "in-memory" not in kvm2.run("ls", "/run")
    assert kvm2.virsh("list", "--all", "--name") == ""
    assert lab.ping(kvm2.address, 2)
    image.unlink()


def test_up_repairs_what_died_and_leaves_off_what_was_switched_off(lab: Lab, kvm1: Host, kvm2: Host) -> None:
    kvm2.power_off()
    end([kvm1.init], grace=0)
    assert {row["host"]: row["libvirtd"] for row in status(lab.state)} == {
        "kvm1": "crashed",
        "kvm2": "-",
        "kvm3": "running",
    }
    up(lab.state, Fabric(lab.state), 3)
    assert kvm1.alive()
    assert not kvm2.alive()
    kvm1.daemon_kill()
    up(lab.state, Fabric(lab.state), 3)
    assert kvm1.virsh("uri")


def test_the_command_line_does_the_same(lab: Lab, kvm1: Host, capfd: pytest.CaptureFixture[str]) -> None:
    for line in ("power off", "power status", "power on", "power status", "daemon stop", "daemon start", "uri"):
        assert cli(lab.state, ["kvm1", *line.split()]) == 0
    assert cli(lab.state, ["kvm1", "exec", "--", "hostname"]) == 0
    assert cli(lab.state, ["kvm1", "exec", "--", "false"]) == 1
    said = capfd.readouterr().out.split()
    assert said[:3] == ["off", "on", kvm1.uri_tls]
    assert said[-1] == "kvm1.lab"
    with pytest.raises(LabError, match="kvm9"):
        cli(lab.state, ["kvm9", "power", "off"])
