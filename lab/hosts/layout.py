"""What a host of the lab is made of, before anything is started: names, folders, settings, addresses.

Pure: the same state folder and number always give the same host, in every process and over power cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from lab.network import CONTROL_NAME, PREFIX_LENGTH, host_address, host_name
from lab.state import State

TLS_PORT = 16514
TCP_PORT = 16509
BRIDGE = "lan"
SHARED = Path("/srv/shared")
LOCAL = Path("/srv/local")

# One host takes the two other transports that clients may use; the others speak TLS only.
HOST_WITH_SSH_AND_TCP = 2
# One host keeps QEMU as Debian ships it: an unprivileged user, and libvirt changing the owner of images.
HOST_AS_DEBIAN_SHIPS = 3

# A folder of the host's own in the place of each of these; all survive a power cycle but /run.
PRIVATE_FOLDERS = {
    "run": "/run",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "etc": "/etc/libvirt",
    "ssh": "/etc/ssh",
    "srv": "/srv",
}


@dataclass(frozen=True)
class Layout:
    """Everything about host `number` (1, 2, …) of the lab in `state` that never changes."""

    state: State
    number: int

    @property
    def name(self) -> str:
        """Short name: kvm1 …"""
        return host_name(self.number)

    @property
    def full_name(self) -> str:
        """The name that its certificate carries and that resolves everywhere in the lab: kvm1.lab …"""
        return f"{self.name}.{CONTROL_NAME.partition('.')[2]}"

    @property
    def address(self) -> str:
        """Address in the management network."""
        return host_address(self.number)

    @property
    def uuid(self) -> str:
        """The system UUID that libvirtd reports."""
        return str(self._derived("system"))

    @property
    def folder(self) -> Path:
        """The host's folder in the state folder."""
        return self.state.hosts / self.name

    def path(self, room: str) -> Path:
        """The machine's folder behind one of PRIVATE_FOLDERS, by its short name."""
        return self.folder / room

    @property
    def local(self) -> Path:
        """The machine's folder behind the host's /srv/local."""
        return self.path("srv") / LOCAL.name

    @property
    def booted(self) -> Path:
        """Exists once everything that the host starts at boot answers; removed at power on."""
        return self.folder / "booted"

    @property
    def powered_off(self) -> Path:
        """Exists while the host is off on purpose, so that nobody takes it for one that died."""
        return self.folder / "powered-off"

    @property
    def unprivileged(self) -> bool:
        """Whether QEMU runs as the user libvirt-qemu and images change hands (else as root, and they do not)."""
        return self.number == HOST_AS_DEBIAN_SHIPS

    @property
    def has_ssh_and_tcp(self) -> bool:
        return self.number == HOST_WITH_SSH_AND_TCP

    def hardware_address(self, interface: str) -> str:
        """The same at every boot, so that neighbours need not learn anew."""
        return ":".join(f"{byte:02x}" for byte in (0x02, *self._derived(interface).bytes[:5]))

    def _derived(self, purpose: str) -> UUID:
        return uuid5(NAMESPACE_URL, f"{self.state.folder.as_uri()}/{self.name}/{purpose}")


def libvirtd_conf(layout: Layout) -> str:
    """Content of /etc/libvirt/libvirtd.conf. No login of its own: certificates, or the fact of being on the host."""
    settings: dict[str, str | int] = {
        "host_uuid": layout.uuid,
        "listen_addr": layout.address,
        "listen_tls": 1,
        "tls_port": str(TLS_PORT),
        "auth_tls": "none",
        "ca_file": "/etc/libvirt/pki/ca.crt",
        "cert_file": "/etc/libvirt/pki/server.crt",
        "key_file": "/etc/libvirt/pki/server.key",
        "listen_tcp": int(layout.has_ssh_and_tcp),
        "tcp_port": str(TCP_PORT),
        "auth_tcp": "none",
        "auth_unix_ro": "none",
        "auth_unix_rw": "none",
        "log_outputs": "3:file:/var/log/libvirt/libvirtd.log",
    }
    return _conf(settings)


def qemu_conf(layout: Layout) -> str:
    """Content of /etc/libvirt/qemu.conf: nothing that one kernel can have only once, and who owns QEMU."""
    settings: dict[str, str | int | list[str]] = {
        "security_driver": "none",
        "namespaces": [],
        "cgroup_controllers": [],
        "stdio_handler": "file",
        "migration_address": layout.address,
    }
    if layout.unprivileged:
        settings |= {"user": "libvirt-qemu", "group": "libvirt-qemu", "dynamic_ownership": 1}
    else:
        settings |= {"user": "root", "group": "root", "dynamic_ownership": 0, "remember_owner": 0}
    return _conf(settings)


def sshd_config(layout: Layout) -> str:
    """Content of /etc/ssh/sshd_config: root by key, nobody else, nothing of the machine's own."""
    return f"""ListenAddress {layout.address}
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
AllowUsers root
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UseDNS no
PrintMotd no
PidFile /run/sshd.pid
"""


def network_commands(layout: Layout) -> str:
    """What a host tells `ip -batch` at boot, once its two cables are plugged in."""
    return f"""link set lo up
link set eth0 address {layout.hardware_address("eth0")}
address replace {layout.address}/{PREFIX_LENGTH} dev eth0
link add {BRIDGE} type bridge stp_state 0 forward_delay 0
link set {BRIDGE} address {layout.hardware_address(BRIDGE)}
link set eth1 master {BRIDGE}
link set {BRIDGE} up
"""


def daemons(layout: Layout) -> list[list[str]]:
    """Command lines started at boot, in order; each returns once its daemon answers."""
    return [libvirtd_command(), ["/usr/sbin/sshd"]] if layout.has_ssh_and_tcp else [libvirtd_command()]


def libvirtd_command() -> list[str]:
    return ["libvirtd", "-d", "--listen", "--pid-file", "/run/libvirtd.pid"]


def _conf(settings: dict[str, str | int] | dict[str, str | int | list[str]]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in settings.items())


def _value(value: str | int | list[str]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    return f"[{', '.join(_value(item) for item in value)}]"
