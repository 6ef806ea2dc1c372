"""Hostler, deployed into a lab: what an administrator does by hand, for the demo and for the tests.

The manifests are applied as they are; the Deployment's pod cannot run in a lab (it has no kubelet), so the operator
runs as a process in the lab's control namespaces, under its own ServiceAccount and with exactly the rights of the
manifests.
"""

from __future__ import annotations

import signal
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from lab import Lab
from lab.forward import free_port
from lab.processes import end, send, spawn, wait_until
from lab.state import Process

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "hostler-system"
ACCOUNT = "hostler"
_NAME = "operator"


class Deployment:
    """Hostler in one lab. Every method may be called again."""

    def __init__(self, lab: Lab) -> None:
        """Take note; nothing happens yet."""
        self.lab = lab
        self.log = lab.state.log(_NAME)

    def install(self) -> None:
        """CRDs, roles, the namespace; the TLS identity for hosts as Secret lab-tls; the operator's kubeconfig."""
        self.lab.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "manifests"))
        self.lab.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self.secret("lab-tls", self.lab.state.pki / "client")
        content = self.lab.service_account_kubeconfig(NAMESPACE, ACCOUNT)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(content)

    @property
    def kubeconfig(self) -> Path:
        """The operator's own."""
        return self.lab.state.folder / "operator.kubeconfig"

    @property
    def port(self) -> int:
        """Where the operator serves health and metrics: chosen once, as other labs may run beside this one."""
        file = self.lab.state.folder / "operator.port"
        if not file.exists():
            file.write_text(str(free_port(self.lab.state)))
        return int(file.read_text())

    def secret(self, name: str, folder: Path) -> None:
        """Have a Secret in the operator's namespace that holds these files."""
        made = self.lab.kubectl(
            "create",
            "secret",
            "generic",
            name,
            f"--namespace={NAMESPACE}",
            f"--from-file={folder}",
            "--dry-run=client",
            "-oyaml",
        )
        self.lab.kubectl("apply", "--server-side", "--force-conflicts", "-f-", input=made)

    def process(self) -> Process | None:
        """The operator's process, or None while it does not run."""
        process = self.lab.state.process(_NAME)
        return process if process is not None and self.lab.control.lives_here(process) else None

    def start(
        self,
        *arguments: str,
        timeout: float = 120,
        program: str = "operator",
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Run the operator, unless it runs, and wait until it is ready. Raises lab.errors.LabError with its log.

        `program`: what Python runs, from the project's root, in the place of `operator`.
        """
        running = self.process()
        if running is not None:
            return running
        command = ["env", "-C", str(ROOT), sys.executable, program, "--kubeconfig", str(self.kubeconfig)]
        command += ["--http-address", "127.0.0.1", "--http-port", str(self.port), "--log-format", "text", *arguments]
        inside = self.lab.control.process.pid
        process = spawn(self.lab.state, _NAME, command, inside=inside, environment=environment)
        self.lab.forward(self.port)
        wait_until("the operator", self.ready, timeout, process=process, log=self.log)
        return process

    def ready(self) -> bool:
        """Whether /readyz says yes."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> str:
        """What /metrics says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def stop(self, timeout: float = 60) -> None:
        """End the operator in good order."""
        process = self.process()
        if process is not None:
            send(process, signal.SIGTERM)
            wait_until("the operator's end", lambda: not process.alive(), timeout)

    def kill(self) -> None:
        """End it as a power cut would."""
        process = self.process()
        if process is not None:
            end([process], grace=0)

    def restart(self) -> Process:
        """Kill it and run it again."""
        self.kill()
        time.sleep(0.1)
        return self.start()
