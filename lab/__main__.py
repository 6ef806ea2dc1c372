"""`python -m lab`: the command line of the laboratory. Each command imports only what it needs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.errors import LabError
from lab.state import DEFAULT_FOLDER, ENVIRONMENT_VARIABLE, State

HOST_COUNT = 3
# What makes or enters namespaces is for root only.
UNPRIVILEGED = ("setup", "kubeconfig")


def parser() -> argparse.ArgumentParser:
    """All commands, and what each of them does."""
    top = argparse.ArgumentParser(prog="lab", description="A data centre on one machine.")
    where = f"the folder of this lab (default: ${ENVIRONMENT_VARIABLE}, else {DEFAULT_FOLDER})"
    top.add_argument("--state", metavar="DIR", help=where)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring everything up, or repair what died")
    up.add_argument("--hosts", type=int, default=HOST_COUNT, metavar="N", help="how many (default: %(default)s)")
    up.add_argument("--no-control-plane", action="store_true", help="no Kubernetes: hosts and images only")
    commands.add_parser("down", help="end everything, remove what it stored, and verify that nothing is left")
    commands.add_parser("status", help="a table of what runs")
    commands.add_parser("setup", help="install missing Debian packages")
    execute = commands.add_parser("exec", help="run a command in the control namespaces, on the lab's networks")
    execute.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    host = commands.add_parser("host", help="make something happen to a host (`lab host NAME --help`)", add_help=False)
    host.add_argument("arguments", nargs=argparse.REMAINDER)
    oracle = commands.add_parser("oracle", help="look for double runs, lost writes and orphans", add_help=False)
    oracle.add_argument("arguments", nargs=argparse.REMAINDER)
    faults = commands.add_parser("api-fault", help="faults before the API server (`--help`)", add_help=False)
    faults.add_argument("arguments", nargs=argparse.REMAINDER)
    etcd = commands.add_parser("etcd", help="keep the state of the Kubernetes API, or set it back to a kept one")
    etcd.add_argument("verb", choices=("snapshot", "restore"))
    etcd.add_argument("name", nargs="?", default="default", help="of the kept state (default: %(default)s)")
    commands.add_parser("selfcheck", help="plant faults and fail if the oracle misses one")
    port = commands.add_parser("forward", help="make a port of the control namespaces reachable at 127.0.0.1 outside")
    port.add_argument("port", type=int)
    port.add_argument("--stop", action="store_true", help="no longer")
    token = commands.add_parser("kubeconfig", help="write a kubeconfig of a ServiceAccount, good for a year")
    token.add_argument("--namespace", required=True)
    token.add_argument("--serviceaccount", required=True)
    token.add_argument("--out", required=True, type=Path, metavar="FILE")
    return top


def _up(state: State, options: argparse.Namespace) -> int:
    from lab import lifecycle
    from lab.progress import Progress

    progress = Progress()
    lifecycle.up(state, progress, host_count=options.hosts, control_plane=not options.no_control_plane)
    progress.say(f"the lab is up: source {state.folder / 'env'}")
    return 0


def _down(state: State, _: argparse.Namespace) -> int:
    from lab import lifecycle
    from lab.progress import Progress

    lifecycle.down(state, Progress())
    return 0


def _status(state: State, _: argparse.Namespace) -> int:
    from lab import status

    print(status.report(state))
    return 0


def _setup(_: State, __: argparse.Namespace) -> int:
    from lab import setup

    try:
        return setup.main()
    except setup.SetupError as error:
        raise LabError(str(error)) from error


def _exec(state: State, options: argparse.Namespace) -> int:
    from lab.control import Control

    command = without_separator(options.arguments)
    if not command:
        raise LabError("exec needs a command: `lab exec -- ping 10.77.0.11`")
    try:
        Control(state).exec(command)
    except FileNotFoundError as error:
        raise LabError(f"{error.filename}: no such program") from None


def _host(state: State, options: argparse.Namespace) -> int:
    from lab import hosts

    return hosts.cli(state, options.arguments)


def _oracle(state: State, options: argparse.Namespace) -> int:
    from lab.oracle import main as run_oracle

    return run_oracle(state, options.arguments)


def _api_fault(state: State, options: argparse.Namespace) -> int:
    from lab import apifaults

    return apifaults.main(state, options.arguments)


def _etcd(state: State, options: argparse.Namespace) -> int:
    from lab.controlplane import snapshots

    if options.verb == "snapshot":
        snapshots.take(state, options.name)
    else:
        snapshots.restore(state, options.name)
    return 0


def _selfcheck(state: State, _: argparse.Namespace) -> int:
    from lab.selfcheck import main as run_selfcheck

    return run_selfcheck(state)


def _forward(state: State, options: argparse.Namespace) -> int:
    from lab import forward

    if options.stop:
        forward.stop(state, options.port)
    else:
        forward.forward(state, options.port)
    return 0


def _kubeconfig(state: State, options: argparse.Namespace) -> int:
    from lab.controlplane import run
    from lab.state import write_atomically

    content = run.service_account_kubeconfig(state, options.namespace, options.serviceaccount)
    write_atomically(options.out, content, 0o600)
    return 0


COMMANDS: dict[str, Callable[[State, argparse.Namespace], int]] = {
    "up": _up,
    "down": _down,
    "status": _status,
    "setup": _setup,
    "exec": _exec,
    "host": _host,
    "oracle": _oracle,
    "api-fault": _api_fault,
    "etcd": _etcd,
    "selfcheck": _selfcheck,
    "forward": _forward,
    "kubeconfig": _kubeconfig,
}


def without_separator(arguments: Sequence[str]) -> list[str]:
    """The command after an optional `--`."""
    return list(arguments[1:] if arguments[:1] == ["--"] else arguments)


def _become_root(state: State, arguments: Sequence[str]) -> None:
    """Start over through sudo, with the variables that decide what the lab does."""
    variables = ("PATH", "HOME", "XDG_CACHE_HOME", "KUBEBUILDER_ASSETS", "GOPROXY", "GOSUMDB", "KUBECONFIG")
    kept = [f"{name}={os.environ[name]}" for name in variables if name in os.environ]
    kept += [f"PYTHONPATH={Path(__file__).resolve().parent.parent}", f"{ENVIRONMENT_VARIABLE}={state.folder}"]
    command = ["sudo", "env", *kept, sys.executable, "-m", "lab", *arguments]
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise LabError("the lab needs root: run it as root, or install sudo") from None


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    if options.command == "host":
        options.arguments += rest  # such as --help
    elif rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    state = State(options.state)
    try:
        if os.geteuid() != 0 and options.command not in UNPRIVILEGED:
            _become_root(state, arguments)
        return COMMANDS[options.command](state, options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; `lab up` repairs what is half done, `lab down` ends it", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
