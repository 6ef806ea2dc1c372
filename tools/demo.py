"""`make demo`: a data centre on this machine, Hostler in it, three VMs; one QEMU is killed to show the VM come back.

python tools/demo.py up     bring it up, or repair it; it stays
python tools/demo.py down   end it; nothing stays
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab import Lab
from lab.errors import LabError
from lab.processes import wait_until
from lab.progress import Progress
from tools.deployment import ROOT, Deployment

QUICK_START = ROOT / "examples" / "quickstart"
VMS = {"web-1": "10.88.0.101", "web-2": "10.88.0.102", "web-3": "10.88.0.103"}
PATIENCE = 420.0
"""Seconds for a step on a slow machine."""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=("up", "down"))
    parser.add_argument("--state", default=".lab", help="the lab's folder (.lab)")
    given = parser.parse_args()
    lab = Lab(given.state)
    try:
        if given.verb == "down":
            lab.down()
        else:
            up(lab, Progress())
    except LabError as problem:
        print(f"\ndemo: {problem}\n\nlogs: {lab.state.log('operator').parent}", file=sys.stderr)
        return 1
    return 0


def up(lab: Lab, progress: Progress) -> None:
    """All of it, one step after the other."""
    lab.up()
    deployment = Deployment(lab)
    with progress.step("Hostler: CRDs, roles, credentials"):
        deployment.install()
    with progress.step("Hostler: the operator"):
        deployment.stop()
        deployment.start()
    with progress.step("examples/quickstart"):
        lab.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(overlay(lab)))
    with progress.step("three VMs are Running and Ready"):
        for name in VMS:
            wait_until(
                f"VirtualMachine {name}",
                partial(_is_ready, lab, name),
                PATIENCE,
                log=deployment.log,
                pause=0.5,
            )
    with progress.step("their guests answer ping"):
        for name, address in VMS.items():
            wait_until(f"{name} at {address}", partial(lab.ping, address), PATIENCE, log=deployment.log)
    with progress.step("the QEMU of web-1 is killed, and the VM comes back"):
        kill_and_wait(lab, deployment)
    print()
    where = json.loads(lab.kubectl("get", "hvm", "web-2", "--namespace=demo", "-ojson"))["status"]["placement"]["host"]
    for kinds in ("hosts", "virtualmachines", "disks"):
        print(lab.kubectl("get", kinds, "--all-namespaces", "-o", "wide"))
    print(NEXT.format(env=lab.state.folder / "env", manifests=lab.state.folder / "quickstart", host=where))


NEXT = """Hostler runs. Try next:

    source {env}                                        # kubectl and lab speak of this demo
    kubectl explain vm.spec.runPolicy --api-version=hostler.dev/v1alpha1
    kubectl -n demo describe hvm web-2
    kubectl -n demo patch hvm web-3 --type=merge -p '{{"spec":{{"runPolicy":"Halted"}}}}'
    kubectl diff --server-side --force-conflicts -k {manifests}   # what was applied; kubectl apply takes the same
    lab host {host} power off                             # a silent power cut: web-2 becomes Unknown and stays
    kubectl get hosts,hvm -A
    lab host {host} power on                              # and web-2 runs again
    make demo-down                                      # ends everything, nothing stays
"""


def overlay(lab: Lab) -> Path:
    """The quick start, with the checksum of the image that this lab has built."""
    folder = lab.state.folder / "quickstart"
    folder.mkdir(exist_ok=True)
    checksum = _used_checksum(lab) or "sha256:" + (lab.state.images / "guest.qcow2.sha256").read_text().split()[0]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(_relative(QUICK_START, folder))],
        "patches": [
            {
                "target": {"kind": "VirtualMachine"},
                "patch": json.dumps(
                    [
                        {
                            "op": "replace",
                            "path": "/spec/disks/0/template/source/http/checksum",
                            "value": checksum,
                        }
                    ]
                ),
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization, indent=2))
    return folder


def _used_checksum(lab: Lab) -> str | None:
    """That of the image that VMs of an earlier `up` were made from: their source stays when the image is newer."""
    found = json.loads(lab.kubectl("get", "hvm", "web-1", "--namespace=demo", "--ignore-not-found", "-ojson") or "{}")
    used = [disk["template"]["source"]["http"]["checksum"] for disk in found.get("spec", {}).get("disks", [])[:1]]
    return used[0] if used else None


def _relative(target: Path, start: Path) -> Path:
    """The path as kustomize takes it: relative, whatever lies in between."""
    steps = [".."] * len(start.resolve().parts[1:])
    return Path(*steps, *target.resolve().parts[1:])


def _is_ready(lab: Lab, name: str) -> bool:
    vm = json.loads(lab.kubectl("get", "hvm", name, "--namespace=demo", "-ojson"))
    conditions = {c["type"]: c["status"] for c in vm.get("status", {}).get("conditions", [])}
    return bool(vm["status"].get("phase") == "Running" and conditions.get("Ready") == "True")


def kill_and_wait(lab: Lab, deployment: Deployment) -> None:
    """End the QEMU of web-1 behind everyone's back, and wait until another one runs and its guest answers."""
    before = {qemu.pid for host in lab.hosts for qemu in host.qemus() if qemu.name == "demo.web-1"}
    host = next(h for h in lab.hosts if any(q.pid in before for q in h.qemus()))
    host.qemu_kill("demo.web-1")

    def back() -> bool:
        now = {qemu.pid for host in lab.hosts for qemu in host.qemus() if qemu.name == "demo.web-1"}
        return bool(now - before) and _is_ready(lab, "web-1")

    wait_until("web-1 runs again", back, PATIENCE, log=deployment.log)
    time.sleep(1)
    wait_until("web-1 answers ping", lambda: lab.ping(VMS["web-1"]), PATIENCE, log=deployment.log)


if __name__ == "__main__":
    sys.exit(main())
