"""The operator says what keeps it from starting and what to do about it, and exits with status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tools.deployment import NAMESPACE, ROOT, Deployment

READER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "test-start", "namespace": NAMESPACE},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hostler"},
    "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE}],
}


def refusal(home: Path, *arguments: str) -> str:
    """The last line that the operator logs before it gives up."""
    command = [sys.executable, "operator", "--log-format", "text", "--http-address", "127.0.0.1", *arguments]
    if "--http-port" not in arguments:
        command += ["--http-port", "0"]
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    last = (done.stderr + done.stdout).strip().splitlines()[-1]
    assert "cannot start: " in last
    return last


def test_without_a_usable_kubeconfig(deployment: Deployment, tmp_path: Path) -> None:
    assert "pass --kubeconfig FILE, set KUBECONFIG, or run in a pod" in refusal(tmp_path)
    missing = tmp_path / "missing"
    assert str(missing) in refusal(tmp_path, "--kubeconfig", str(missing))
    broken = tmp_path / "broken"
    broken.write_text("{no: [kubeconfig")
    assert "kubeconfig" in refusal(tmp_path, "--kubeconfig", str(broken))
    nobody = tmp_path / "nobody"
    server = next(line for line in deployment.kubeconfig.read_text().splitlines() if "server:" in line)
    nobody.write_text(
        deployment.kubeconfig.read_text().replace(server, f"{server[: server.index(':')]}: https://127.0.0.1:1")
    )
    assert "the API server does not answer" in refusal(tmp_path, "--kubeconfig", str(nobody))


def test_without_rights(deployment: Deployment, tmp_path: Path) -> None:
    poor = tmp_path / "poor"
    poor.write_text(deployment.lab.service_account_kubeconfig(NAMESPACE, "default"))
    said = refusal(tmp_path, "--kubeconfig", str(poor))
    assert f"no rights in namespace {NAMESPACE}" in said
    assert "manifests/rbac.yaml" in said
    deployment.lab.kubectl("apply", "--server-side", "-f-", input=json.dumps(READER))
    try:
        said = refusal(tmp_path, "--kubeconfig", str(poor))
        assert "no rights to list" in said
        assert "manifests/rbac.yaml" in said
    finally:
        deployment.lab.kubectl("delete", "rolebinding", "-n", NAMESPACE, "test-start")


def test_without_its_namespace(deployment: Deployment, tmp_path: Path) -> None:
    said = refusal(tmp_path, "--kubeconfig", str(deployment.lab.kubeconfig), "--namespace", "nowhere")
    assert "there is no namespace nowhere: apply the manifests first" in said


def test_without_its_kinds(deployment: Deployment, tmp_path: Path) -> None:
    deployment.stop()
    deployment.lab.kubectl("delete", "crd", "virtualmachines.hostler.dev", timeout=60)
    try:
        said = refusal(tmp_path, "--kubeconfig", str(deployment.kubeconfig))
        assert "the API server knows no virtualmachines.hostler.dev" in said
        assert "kubectl apply --server-side -k manifests" in said
    finally:
        deployment.install()
        deployment.start()


def test_with_its_port_taken(deployment: Deployment, tmp_path: Path) -> None:
    port = str(deployment.port)
    said = refusal(tmp_path, "--kubeconfig", str(deployment.kubeconfig), "--http-port", port)
    assert f"cannot be served on 127.0.0.1:{port}" in said
    assert "choose another --http-port" in said
