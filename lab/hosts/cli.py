"""`lab host NAME VERB …`: what can happen to a host, from the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence

from lab.errors import LabError
from lab.hosts.host import Host
from lab.network import host_name
from lab.state import State

DESCRIPTION = "Make something happen to a host of the lab. Every verb may be repeated."


def main(state: State, arguments: Sequence[str]) -> int:
    """Run `NAME VERB …`; returns the exit status. Raises LabError when the verb cannot be done."""
    options = parser().parse_args(arguments)
    host = _host(state, options.name)
    done = VERBS[options.verb](host, options)
    return done if isinstance(done, int) else 0


def parser() -> argparse.ArgumentParser:
    """The verbs, and what each of them means."""
    top = argparse.ArgumentParser(prog="lab host", description=DESCRIPTION)
    top.add_argument("name", help="kvm1, kvm2, …")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    power = verbs.add_parser("power", help="off: cut it, silently and at once; on: boot; status")
    power.add_argument("action", choices=["off", "on", "status"])
    verbs.add_parser("hang", help="freeze libvirtd: connections stay open, nothing answers")
    verbs.add_parser("resume", help="let a frozen libvirtd go on")
    for verb, text in (("partition", "pull the management cable, silently"), ("heal", "plug it in again")):
        cable = verbs.add_parser(verb, help=text)
        cable.add_argument("--guests", action="store_true", help="the guests' network instead")
    slow = verbs.add_parser("slow", help="delay the management network by so many milliseconds each way; 0 ends it")
    slow.add_argument("milliseconds", type=int)
    for verb, text in (("unmount", "take shared storage away"), ("mount", "give it back")):
        verbs.add_parser(verb, help=text).add_argument("what", choices=["shared"])
    daemon = verbs.add_parser("daemon", help="end libvirtd (stop: orderly, kill: SIGKILL) or start it; guests run on")
    daemon.add_argument("action", choices=["stop", "kill", "start"])
    qemu = verbs.add_parser("qemu", help="list the QEMUs; kill, stop (freeze) or cont(inue) the one of a domain")
    qemu.add_argument("action", choices=["list", "kill", "stop", "cont"])
    qemu.add_argument("domain", nargs="?")
    execute = verbs.add_parser("exec", help="run a command on the host")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("uri", help="print how libvirt clients reach it")
    return top


def _host(state: State, name: str) -> Host:
    match = re.fullmatch(r"kvm(\d+)", name)
    host = Host.of(state, int(match.group(1))) if match else None
    if host is None or host.name != name or not host.layout.folder.exists():
        raise LabError(f"this lab has no host {name!r}; names are {host_name(1)}, {host_name(2)}, …")
    return host


def _power(host: Host, options: argparse.Namespace) -> None:
    if options.action == "off":
        host.power_off()
    elif options.action == "on":
        host.power_on()
    else:
        print("off" if not host.powered() else "on" if host.alive() else "on (crashed)")


def _daemon(host: Host, options: argparse.Namespace) -> None:
    {"stop": host.daemon_stop, "kill": host.daemon_kill, "start": host.daemon_start}[options.action]()


def _qemu(host: Host, options: argparse.Namespace) -> None:
    if options.action == "list":
        for qemu in host.qemus():
            print(f"{qemu.pid}\t{qemu.uuid}\t{qemu.name}")
        return
    if not options.domain:
        raise LabError(f"qemu {options.action} needs the name of a domain: `lab host {host.name} qemu list`")
    {"kill": host.qemu_kill, "stop": host.qemu_stop, "cont": host.qemu_cont}[options.action](options.domain)


def _exec(host: Host, options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise LabError(f"exec needs a command: `lab host {host.name} exec -- virsh list`")
    return host.exec(command)


def _uri(host: Host, _: argparse.Namespace) -> None:
    for uri in (host.uri_tls, host.uri_ssh, host.uri_tcp, host.uri_unix):
        if uri:
            print(uri)


VERBS: dict[str, Callable[[Host, argparse.Namespace], int | None]] = {
    "power": _power,
    "hang": lambda host, _: host.hang(),
    "resume": lambda host, _: host.resume(),
    "partition": lambda host, options: host.partition(guests=options.guests),
    "heal": lambda host, options: host.heal(guests=options.guests),
    "slow": lambda host, options: host.slow(options.milliseconds),
    "unmount": lambda host, _: host.unmount_shared(),
    "mount": lambda host, _: host.mount_shared(),
    "daemon": _daemon,
    "qemu": _qemu,
    "exec": _exec,
    "uri": _uri,
}
