"""The wires of the lab: two bridges in a network namespace of their own, and links to everyone else.

`mgmt` carries management (10.77.0.0/24), `guests` joins the guest bridges of all hosts (10.88.0.0/24).
Nothing of this is visible in the machine's own network namespace, so every lab can use the same addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import CommandFailedError, LabError
from lab.processes import OUTSIDE, end, python, run, spawn, wait_until
from lab.state import Process, State

MGMT = "mgmt"
GUESTS = "guests"
BRIDGES = (MGMT, GUESTS)

CONTROL_NAME = "control.lab"
IMAGES_NAME = "images.lab"
CONTROL_MGMT_ADDRESS = "10.77.0.1"
CONTROL_GUESTS_ADDRESS = "10.88.0.1"
PREFIX_LENGTH = 24
MAXIMUM_HOSTS = 40

_HOLDER = "fabric"
# The bridges only forward: without IPv6 they have no address and say nothing of their own.
_HOLD_FABRIC = """
set -e
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
ip -batch - <<END
link set lo up
link add mgmt type bridge stp_state 0 forward_delay 0
link add guests type bridge stp_state 0 forward_delay 0
link set mgmt up
link set guests up
END
exec sleep infinity
"""


def host_name(number: int) -> str:
    """The name of host `number` (1, 2, …): kvm1 …"""
    return f"kvm{number}"


def host_address(number: int) -> str:
    """The management address of host `number` (1, 2, …)."""
    return f"10.77.0.{10 + number}"


def hosts_file() -> str:
    """Content of /etc/hosts in every namespace of the lab: no DNS exists, and no name may ever wait for one."""
    lines = ["127.0.0.1 localhost", f"{CONTROL_MGMT_ADDRESS} {CONTROL_NAME} {IMAGES_NAME}"]
    lines += [
        f"{host_address(number)} {host_name(number)}.lab {host_name(number)}" for number in range(1, MAXIMUM_HOSTS + 1)
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Link:
    """One virtual cable: `port` is its end at the bridge (fabric's namespace), `interface` the end inside.

    `fabric` and `owner` are pids of processes in the two network namespaces. All verbs may be called again.
    """

    state: State
    bridge: str
    port: str
    interface: str
    fabric: int
    owner: int

    def up(self) -> None:
        """Both ends up."""
        run(["ip", "link", "set", self.port, "up"], inside=self.fabric, kinds=["net"])
        run(["ip", "link", "set", self.interface, "up"], inside=self.owner, kinds=["net"])

    def down(self) -> None:
        """Both ends down: silent, what was on its way is lost and nobody is told.

        The bridge's end goes first, so that nothing which the other side says of its own going gets out.
        An owner that has died already took the cable with it: that is down as well.
        """
        for name, pid in ((self.port, self.fabric), (self.interface, self.owner)):
            try:
                run(["ip", "link", "set", name, "down"], inside=pid, kinds=["net"])
            except CommandFailedError as error:
                if not _is_absent(error):
                    raise

    def is_up(self) -> bool:
        """Whether the bridge's end is administratively up; False when the cable is gone."""
        try:
            return "UP" in _flags(run(["ip", "link", "show", self.port], inside=self.fabric, kinds=["net"]))
        except CommandFailedError as error:
            if _is_absent(error):
                return False
            raise

    def slow(self, milliseconds: int) -> None:
        """Delay every frame by this much in *each* direction; 0 makes the link fast again."""
        end_relay(self.state, self.port)
        run(["ip", "link", "set", self.port, "master", self.bridge], inside=self.fabric, kinds=["net"])
        if not milliseconds:
            return
        command = python("lab.slowlink", self.port, self.bridge, str(milliseconds))
        name = _relay_name(self.port)
        relay = spawn(self.state, name, command, inside=self.fabric, kinds=["net"])
        log = self.state.log(name)
        wait_until(f"the slow link {self.port}", self._is_relayed, 10, process=relay, log=log)

    def _is_relayed(self) -> bool:
        return " master " not in run(["ip", "link", "show", self.port], inside=self.fabric, kinds=["net"])


class Fabric:
    """The namespace with the two bridges. Making the object touches nothing."""

    def __init__(self, state: State) -> None:
        self.state = state

    @property
    def process(self) -> Process:
        """The process that keeps the fabric's namespace. Raises LabError when the fabric is not up."""
        if process := self.state.process(_HOLDER):
            return process
        raise LabError(f"the network of the lab in {self.state.folder} is not up: run `python -m lab up`")

    def is_up(self) -> bool:
        return self.state.process(_HOLDER) is not None

    def up(self) -> None:
        """Make the namespace and its bridges, unless they are there.

        Also starts the process that remembers the namespaces we come from (`lab.processes.outside`).
        """
        if not self.state.process(OUTSIDE):
            spawn(self.state, OUTSIDE, ["sleep", "infinity"])
        if self.is_up():
            return
        process = spawn(self.state, _HOLDER, ["unshare", "--net", "sh", "-c", _HOLD_FABRIC])
        wait_until(
            "the bridges of the lab",
            lambda: self._bridges_are_up(process),
            10,
            process=process,
            log=self.state.log(_HOLDER),
        )

    def connect(self, owner: int, name: str, bridge: str, interface: str) -> Link:
        """A new cable from `bridge` (MGMT or GUESTS) into the network namespace of process `owner`.

        The bridge's end is called `name`-`bridge`, the inner end `interface` (at most 15 characters each);
        both are left down. A cable of the same name from before is removed first.
        """
        link = self.link(owner, name, bridge, interface)
        self.disconnect(name, bridge)
        commands = f"link add {link.port} type veth peer name {interface} netns {owner}\n"
        commands += f"link set {link.port} master {bridge}\n"
        run(["ip", "-batch", "-"], inside=link.fabric, kinds=["net"], stdin=commands)
        return link

    def link(self, owner: int, name: str, bridge: str, interface: str) -> Link:
        """The handle of a cable made by `connect` with the same arguments, also by another process."""
        port = f"{name}-{bridge}"
        if bridge not in BRIDGES or len(port) > 15 or len(interface) > 15:
            raise ValueError(f"no cable {port}/{interface} on {bridge}: bridges are {BRIDGES}, names at most 15 long")
        return Link(self.state, bridge, port, interface, self.process.pid, owner)

    def disconnect(self, name: str, bridge: str) -> None:
        """Remove a cable, if there is one, and whatever made it slow."""
        port = f"{name}-{bridge}"
        end_relay(self.state, port)
        try:
            run(["ip", "link", "del", port], inside=self.process.pid, kinds=["net"])
        except CommandFailedError as error:
            if not _is_absent(error):
                raise

    def _bridges_are_up(self, process: Process) -> bool:
        try:
            return "UP" in _flags(run(["ip", "link", "show", GUESTS], inside=process.pid, kinds=["net"]))
        except CommandFailedError as error:
            # Until it has entered its own namespace, the holder has no such bridge.
            if _is_absent(error):
                return False
            raise


def end_relay(state: State, port: str) -> None:
    """End the process that makes this port slow, if there is one."""
    if relay := state.process(_relay_name(port)):
        end([relay], grace=0)
    state.forget(_relay_name(port))


def _relay_name(port: str) -> str:
    return f"slow-{port}"


def _flags(shown: str) -> list[str]:
    """The flags between angle brackets of `ip link show`."""
    return shown.partition("<")[2].partition(">")[0].split(",")


def _is_absent(error: CommandFailedError) -> bool:
    said = error.output
    return "Cannot find device" in said or "does not exist" in said or "No such file or directory" in said
