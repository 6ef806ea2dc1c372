"""Real KVM hosts on one machine: each a set of namespaces with its own libvirtd, storage, network and boot.

QEMU emulates (TCG): what a virtual machine can do as /dev/kvm does not let stock kernels boot everywhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lab.hosts.cli import main as cli
from lab.hosts.host import Host
from lab.hosts.layout import Layout
from lab.hosts.power import await_boot, prepare_keys
from lab.hosts.qemus import Qemu
from lab.network import MAXIMUM_HOSTS, Fabric
from lab.processes import end
from lab.state import State

__all__ = ["Host", "Layout", "Qemu", "all_hosts", "cli", "down", "prepare_keys", "status", "up"]


def all_hosts(state: State) -> list[Host]:
    """Every host that this lab has had, on or off, in order of number."""
    candidates = (Host.of(state, number) for number in range(1, MAXIMUM_HOSTS + 1))
    return [host for host in candidates if host.layout.folder.exists()]


def up(state: State, fabric: Fabric, count: int) -> list[Host]:
    """Bring up hosts 1 to `count`, all at once, and return them. The fabric must be up.

    Runs on top of itself: a host that died is started again and a missing libvirtd too; one that was powered
    off on purpose stays off.
    """
    prepare_keys(state)
    hosts = [Host(Layout(state, number), fabric) for number in range(1, count + 1)]
    with ThreadPoolExecutor(max_workers=max(1, count)) as pool:
        list(pool.map(_repair, hosts))
    return hosts


def down(state: State) -> None:
    """End every host, at once. What they have stored stays in the state folder."""
    for host in all_hosts(state):
        if process := state.process(host.name):
            end([process], grace=0)
        state.forget(host.name)


def status(state: State) -> list[dict[str, str]]:
    """One row per host, for a table: what it is and how it is."""
    return [_row(host) for host in all_hosts(state)]


def _repair(host: Host) -> None:
    if not host.powered():
        return
    if first := host.begin_power_on():
        await_boot(host.layout, first)
    else:
        host.daemon_start()


def _row(host: Host) -> dict[str, str]:
    row = {"host": host.name, "address": host.address, "power": "on" if host.powered() else "off"}
    if not host.alive():
        return {**row, "libvirtd": "crashed" if host.powered() else "-", "network": "-", "shared": "-", "guests": "-"}
    daemon = host.daemon()
    return {
        **row,
        "libvirtd": "dead" if daemon is None else "hung" if host.hung() else "running",
        "network": "connected" if host.connected() else "cut",
        "shared": "mounted" if host.shared_is_mounted() else "gone",
        "guests": str(len(host.qemus())),
    }
