"""How a host of the lab is switched on: its folders and settings, its namespaces, its cables, its first boot steps."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

from lab.errors import LabError
from lab.hosts import init
from lab.hosts.layout import (
    PRIVATE_FOLDERS,
    SHARED,
    Layout,
    daemons,
    libvirtd_conf,
    network_commands,
    qemu_conf,
    sshd_config,
)
from lab.network import GUESTS, MGMT, Fabric, hosts_file
from lab.pki import client_identities, lab_authority, ssh_key
from lab.processes import spawn, wait_until
from lab.state import Process, State, write_atomically

CABLES = {MGMT: "eth0", GUESTS: "eth1"}
NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
FIRST_PROCESS_SECONDS = 60.0
BOOT_SECONDS = 120.0
# Sizes and times must be as fresh as on storage that all hosts share: nothing about files is kept between calls.
_VIEW_OPTIONS = "attr_timeout=0,entry_timeout=0,negative_timeout=0"
_UNIX_PATH_BYTES = 107


def begin_power_on(layout: Layout, fabric: Fabric) -> Process:
    """Start the host's first process and plug its cables in; returns before it has booted."""
    _prepare(layout)
    wrapper = spawn(layout.state, layout.name, _command(layout))
    log = layout.state.log(layout.name)
    pid = wait_until(
        f"the first process of {layout.name}",
        lambda: _reported_pid(layout),
        FIRST_PROCESS_SECONDS,
        process=wrapper,
        log=log,
    )
    first = Process.of(pid)
    if first is None:
        raise LabError(f"the first process of {layout.name} ended at once; see {log}")
    layout.state.record(layout.name, first)
    for bridge, interface in CABLES.items():
        fabric.connect(first.pid, layout.name, bridge, interface).up()
    return first


def await_boot(layout: Layout, first: Process) -> None:
    """Wait until all daemons of a host that is being powered on answer."""
    log = layout.state.log(layout.name)
    wait_until(f"{layout.name} to boot", layout.booted.exists, BOOT_SECONDS, process=first, log=log)


def prepare_keys(state: State) -> None:
    """The identities of clients: TLS pairs in pki/client and pki/stranger, an SSH key in pki/ssh."""
    client_identities(state.pki)
    ssh_key(state.pki / "ssh" / "id_ed25519")


def _prepare(layout: Layout) -> None:
    """Everything of the host that lies in the state folder, as it must be before a boot."""
    prepare_keys(layout.state)
    for stale in (layout.booted, layout.folder / "pid"):
        stale.unlink(missing_ok=True)
    # What a host keeps in memory is gone after a power cut.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(layout.path("run"))
    rooms = [layout.path(room) for room in PRIVATE_FOLDERS]
    places = [layout.local, layout.path("srv") / SHARED.name, layout.path("run") / "sshd", layout.path("run") / "lock"]
    for folder in (layout.folder, layout.state.shared, *rooms, *places, layout.folder / "view"):
        folder.mkdir(parents=True, exist_ok=True)
    # An unprivileged QEMU must be able to pass, whatever the caller's umask is.
    for folder in (layout.state.shared, *rooms, *places):
        folder.chmod(0o755)
    _write_settings(layout)
    write_atomically(layout.folder / "boot.json", json.dumps(_boot(layout), indent=2))


def _write_settings(layout: Layout) -> None:
    etc = layout.path("etc")
    (etc / "libvirtd.conf").write_text(libvirtd_conf(layout))
    (etc / "qemu.conf").write_text(qemu_conf(layout))
    (layout.folder / "hosts").write_text(hosts_file())
    (layout.folder / "resolv.conf").write_text("")
    authority = lab_authority(layout.state.pki)
    names = [layout.full_name, layout.name]
    authority.issue(etc / "pki", "server", layout.full_name, names=names, addresses=[layout.address])
    shutil.copyfile(authority.path, etc / "pki" / "ca.crt")
    if layout.has_ssh_and_tcp:
        _write_ssh_settings(layout)


def _write_ssh_settings(layout: Layout) -> None:
    keys, folder = layout.state.pki / "ssh", layout.path("ssh")
    (folder / "sshd_config").write_text(sshd_config(layout))
    (folder / "authorized_keys").write_text(ssh_key(keys / "id_ed25519") + "\n")
    kind, key, _ = ssh_key(folder / "ssh_host_ed25519_key").split()
    known = ",".join((layout.full_name, layout.name, layout.address))
    write_atomically(keys / "known_hosts", f"{known} {kind} {key}\n")


def _boot(layout: Layout) -> dict[str, object]:
    """What the first process is told; its keys are those that `init.main` reads."""
    files = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf"}
    return {
        "hostname": layout.full_name,
        "files": {target: str(layout.folder / name) for name, target in files.items()},
        "folders": {target: str(layout.path(room)) for room, target in PRIVATE_FOLDERS.items()},
        "view_command": ["bindfs", "--disable-lock-forwarding", "-o", _VIEW_OPTIONS, str(layout.state.shared)],
        "view": str(layout.folder / "view"),
        "shared": str(SHARED),
        "interfaces": list(CABLES.values()),
        "network": network_commands(layout),
        "daemons": daemons(layout),
    }


def _command(layout: Layout) -> list[str]:
    program = [sys.executable, "-I", "-S", str(Path(init.__file__)), str(layout.folder / "boot.json")]
    return ["unshare", *NAMESPACES, "--fork", "--kill-child", *program]


def _reported_pid(layout: Layout) -> int | None:
    try:
        return int((layout.folder / "pid").read_text())
    except FileNotFoundError:
        return None


def socket_uri(layout: Layout, first: Process) -> str:
    """Where root finds the host's libvirt from outside; by way of its process where the folder's path is too long."""
    socket = layout.path("run") / "libvirt" / "libvirt-sock"
    if len(str(socket)) > _UNIX_PATH_BYTES:
        socket = Path("/proc", str(first.pid), "root", "run", "libvirt", "libvirt-sock")
    return f"qemu+unix:///system?socket={socket}"
