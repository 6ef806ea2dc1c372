"""Runs the control plane inside the control namespaces, and repairs it: what lives is left alone.

TLS, RBAC and the admission of a real cluster; everything listens on loopback inside. The API server's port is
chosen once and forwarded to the same port outside, so that one kubeconfig is right on both sides.
"""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.apifaults import APISERVER_PORT_FACT, FRONT_PROXY_NAME
from lab.control import Control
from lab.controlplane import audit, kubeconfig
from lab.controlplane.binaries import Binaries
from lab.errors import LabError, tail
from lab.forward import LOOPBACK, forward, free_port
from lab.network import CONTROL_MGMT_ADDRESS, CONTROL_NAME
from lab.pki import Identity, lab_authority
from lab.processes import end, run, spawn, wait_until
from lab.state import Process, State, write_atomically

ETCD = "http://127.0.0.1:2379"
ETCD_PEERS = "http://127.0.0.1:2380"
ISSUER = "https://kubernetes.default.svc"
SERVICE_RANGE = "10.96.0.0/24"
SERVICE_ADDRESS = "10.96.0.1"
PROCESSES = ("kube-controller-manager", "kube-apiserver", "etcd")
CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "clusterrole-aggregation-controller",
)
# Plenty, for machines that are busy: what has died is noticed at once.
READY_SECONDS = 180
READY_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Identities:
    """Who is who in the control plane, each signed by the lab's authority (`service_account` signs tokens)."""

    apiserver: Identity
    service_account: Identity
    controller_manager: Identity
    admin: Identity


def up(state: State, control: Control, binaries: Binaries) -> None:
    """Start what does not run and wait until the API answers, in the control namespaces and outside.

    Writes kubeconfig and bin/kubectl into the state folder. Raises DeadlineError with the end of a log.
    """
    folder = state.folder / "controlplane"
    folder.mkdir(parents=True, exist_ok=True)
    identities = _identities(state)
    port = _port(state, control)
    _install_kubectl(state, binaries.kubectl)
    server = f"https://{LOOPBACK}:{port}"
    write_atomically(state.kubeconfig, kubeconfig.with_certificate(server, identities.admin), 0o600)
    controllers_kubeconfig = folder / "controller-manager.kubeconfig"
    write_atomically(controllers_kubeconfig, kubeconfig.with_certificate(server, identities.controller_manager), 0o600)
    etcd = _start_etcd(state, control, binaries.etcd)
    apiserver = _start(state, control, "kube-apiserver", apiserver_command(state, binaries, identities, port))
    forward(state, port)
    _wait(state, "kube-apiserver", apiserver, lambda: _lives(state, "etcd", etcd) and is_ready(state))
    # Only now: it gives up after ten seconds without a ready API server.
    command = controller_manager_command(binaries, identities, controllers_kubeconfig)
    controllers = _start(state, control, "kube-controller-manager", command)
    _wait(state, "kube-controller-manager", controllers, lambda: _has_default_account(state))


def down(state: State) -> None:
    """End the control plane at once; its state stays, and `up` begins with it."""
    for name in PROCESSES:
        if process := state.process(name):
            end([process], grace=0)


def _wait(state: State, name: str, process: Process, probe: Callable[[], bool]) -> None:
    log = state.log(name)
    wait_until(f"{name} to be ready", probe, READY_SECONDS, process=process, log=log, pause=READY_PAUSE_SECONDS)


def apiserver_command(state: State, binaries: Binaries, identities: Identities, port: int) -> list[str]:
    """The API server's command line; its audit log is `state.log("audit")`."""
    policy = state.folder / "controlplane" / "audit-policy.yaml"
    policy.write_text(audit.POLICY)
    return [
        str(binaries.apiserver),
        f"--etcd-servers={ETCD}",
        f"--bind-address={LOOPBACK}",
        # Nobody connects there; without it the server looks for a default route, and none exists inside.
        f"--advertise-address={CONTROL_MGMT_ADDRESS}",
        f"--secure-port={port}",
        f"--tls-cert-file={identities.apiserver.certificate}",
        f"--tls-private-key-file={identities.apiserver.key}",
        f"--client-ca-file={identities.apiserver.authority}",
        # Who holds the proxy's certificate says for whom it asks (lab.apiproxy).
        f"--requestheader-client-ca-file={identities.apiserver.authority}",
        f"--requestheader-allowed-names={FRONT_PROXY_NAME}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        f"--cert-dir={state.folder / 'controlplane'}",
        "--authorization-mode=RBAC",
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={identities.service_account.certificate}",
        f"--service-account-signing-key-file={identities.service_account.key}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--endpoint-reconciler-type=none",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={state.log('audit')}",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    ]


def controller_manager_command(binaries: Binaries, identities: Identities, configuration: Path) -> list[str]:
    """The controller manager's command line: only the controllers without which an API server is not Kubernetes."""
    return [
        str(binaries.controller_manager),
        f"--kubeconfig={configuration}",
        f"--controllers={','.join(CONTROLLERS)}",
        f"--service-account-private-key-file={identities.service_account.key}",
        f"--root-ca-file={identities.apiserver.authority}",
        f"--bind-address={LOOPBACK}",
        f"--cert-dir={configuration.parent}",
        # As in a real cluster, each controller has the rights of its own account and no others.
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def is_ready(state: State) -> bool:
    """Whether the API server says of itself that it is ready, asked through the administrator's port."""
    port = state.facts[APISERVER_PORT_FACT]
    context = ssl.create_default_context(cafile=str(state.authority))
    try:
        with urllib.request.urlopen(f"https://{LOOPBACK}:{port}/readyz", context=context, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def service_account_kubeconfig(state: State, namespace: str, account: str) -> str:
    """A kubeconfig with a token (good for a year) of this ServiceAccount. Raises LabError if there is none."""
    token = kubectl(state, "create", "token", account, "--namespace", namespace, "--duration", "8760h").strip()
    server = f"https://{LOOPBACK}:{state.facts[APISERVER_PORT_FACT]}"
    return kubeconfig.with_token(server, state.authority, account, token, namespace)


def kubectl(state: State, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    """What kubectl says on stdout, run as administrator. Raises CommandFailedError with its complaint."""
    command = [str(state.folder / "bin" / "kubectl"), "--kubeconfig", str(state.kubeconfig), *arguments]
    if not state.kubeconfig.exists():
        raise LabError(f"the lab in {state.folder} has no control plane: run `python -m lab up`")
    return run(command, stdin=stdin, timeout=timeout)


def status(state: State, control: Control) -> list[tuple[str, str]]:
    """Rows of process name and what it does."""
    return [(name, describe(state, control, name)) for name in reversed(PROCESSES)]


def describe(state: State, control: Control, name: str) -> str:
    """In a word or two: whether the process of this name runs in the present control namespaces."""
    process = state.process(name)
    lives = process is not None and control.is_up() and control.lives_here(process)
    return f"running, pid {process.pid}" if process and lives else "not running"


def _identities(state: State) -> Identities:
    authority, folder = lab_authority(state.pki), state.pki / "controlplane"
    names = ["localhost", CONTROL_NAME, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    addresses = [LOOPBACK, CONTROL_MGMT_ADDRESS, SERVICE_ADDRESS]
    return Identities(
        apiserver=authority.issue(folder, "apiserver", "kube-apiserver", names=names, addresses=addresses),
        service_account=authority.issue(folder, "service-account", "service-account"),
        controller_manager=authority.issue(folder, "controller-manager", "system:kube-controller-manager"),
        admin=authority.issue(folder, "admin", "admin", organizations=["system:masters"]),
    )


def _port(state: State, control: Control) -> int:
    """The API server's port: the remembered one while it can serve, else a free one, remembered from now on."""
    port: int | None = state.facts.get(APISERVER_PORT_FACT)
    if port and (_runs_inside(state, control, f"forward-{port}") or _is_free(port)):
        return port
    # Whoever holds the old port keeps it; the API server and its clients must move.
    for name in ("kube-controller-manager", "kube-apiserver"):
        _stop(state, name)
    chosen = free_port(state)
    state.remember(**{APISERVER_PORT_FACT: chosen})
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def etcd_folder(state: State) -> Path:
    """All that the control plane remembers."""
    return state.folder / "controlplane" / "etcd"


def _start_etcd(state: State, control: Control, program: Path) -> Process:
    data = etcd_folder(state)
    command = [str(program), f"--data-dir={data}", "--unsafe-no-fsync", "--log-level=warn", "--name=lab"]
    command += [f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}"]
    command += [f"--listen-peer-urls={ETCD_PEERS}", f"--initial-advertise-peer-urls={ETCD_PEERS}"]
    command += [f"--initial-cluster=lab={ETCD_PEERS}"]
    return _start(state, control, "etcd", command)


def _lives(state: State, name: str, process: Process) -> bool:
    """True, or a LabError with the process's last words: nothing that needs it is worth waiting for."""
    if not process.alive():
        raise LabError(f"{name} has ended; {state.log(name)}:\n{tail(state.log(name))}")
    return True


def _runs_inside(state: State, control: Control, name: str) -> bool:
    process = state.process(name)
    return process is not None and control.lives_here(process)


def _start(state: State, control: Control, name: str, command: list[str]) -> Process:
    """The process of this name in the control namespaces; one that lives in former ones is ended first."""
    process = state.process(name)
    if process and control.lives_here(process):
        return process
    _stop(state, name)
    return spawn(state, name, command, inside=control.process.pid)


def _stop(state: State, name: str) -> None:
    if process := state.process(name):
        end([process])


def _has_default_account(state: State) -> bool:
    """The controllers work as soon as the namespace `default` has the service account that they give it."""
    try:
        found = json.loads(kubectl(state, "get", "serviceaccounts", "--namespace", "default", "--output", "json"))
    except LabError:
        return False
    return any(item["metadata"]["name"] == "default" for item in found["items"])


def _install_kubectl(state: State, program: Path) -> None:
    target = state.folder / "bin" / "kubectl"
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(program)
