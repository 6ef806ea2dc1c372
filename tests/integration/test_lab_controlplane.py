"""The lab's control plane is Kubernetes, not something like it; and a lab ends as if it had never been."""

import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import Lab
from lab.apifaults import APISERVER_PORT_FACT
from lab.errors import CommandFailedError, LabError
from lab.leftovers import find_leftovers
from lab.network import MGMT
from lab.processes import run, spawn, wait_until

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("plane") / "lab")
    try:
        lab.up(host_count=0)
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def namespace(lab: Lab) -> str:
    lab.kubectl("create", "namespace", "tenant")
    return "tenant"


def configmap(name: str, **metadata: object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}})


def is_gone(lab: Lab, namespace: str, *what: str) -> bool:
    return not lab.kubectl("get", "--namespace", namespace, "--ignore-not-found", "--output", "name", *what).strip()


def within(seconds: float, condition: Callable[[], bool]) -> None:
    wait_until("it", condition, seconds, pause=0.1)


def test_child_goes_with_its_owner(lab: Lab, namespace: str) -> None:
    owner = json.loads(lab.kubectl("create", "-n", namespace, "-o", "json", "-f", "-", input=configmap("owner")))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    lab.kubectl("create", "-n", namespace, "-f", "-", input=configmap("child", ownerReferences=[reference]))
    lab.kubectl("create", "-n", namespace, "-f", "-", input=configmap("bystander"))
    lab.kubectl("delete", "-n", namespace, "configmap", "owner")
    within(10, lambda: is_gone(lab, namespace, "configmap", "child"))
    assert not is_gone(lab, namespace, "configmap", "bystander")


def test_custom_resource_goes_with_its_owner_too(lab: Lab, namespace: str) -> None:
    lab.kubectl("apply", "-f", "-", input=WIDGETS)
    lab.kubectl("wait", "--for=condition=Established", "crd/widgets.example.org", "--timeout=20s")
    lab.kubectl("create", "-n", namespace, "-f", "-", input=configmap("maker"))
    uid = lab.kubectl("get", "-n", namespace, "configmap", "maker", "-o", "jsonpath={.metadata.uid}")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "maker", "uid": uid}
    metadata = {"name": "made", "ownerReferences": [reference]}
    widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": metadata}
    lab.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(widget))
    lab.kubectl("delete", "-n", namespace, "configmap", "maker")
    # The collector learns of new kinds every 30 s.
    within(60, lambda: is_gone(lab, namespace, "widget", "made"))


def test_namespace_goes_with_everything_in_it(lab: Lab) -> None:
    lab.kubectl("create", "namespace", "doomed")
    lab.kubectl("create", "-n", "doomed", "-f", "-", input=configmap("inhabitant"))
    lab.kubectl("delete", "namespace", "doomed", "--wait=false")
    within(30, lambda: is_gone(lab, "doomed", "namespace", "doomed"))


def account(lab: Lab, namespace: str, name: str, folder: Path, *rules: str) -> Callable[..., str]:
    """A ServiceAccount that may do just this (with configmaps, for one), and kubectl as it."""
    lab.kubectl("create", "serviceaccount", "-n", namespace, name)
    for number, rule in enumerate(rules):
        role = f"{name}-{number}"
        lab.kubectl("create", "role", "-n", namespace, role, *rule.split())
        subject = f"--serviceaccount={namespace}:{name}"
        lab.kubectl("create", "rolebinding", "-n", namespace, role, f"--role={role}", subject)
    path = folder / f"{name}.kubeconfig"
    path.write_text(lab.service_account_kubeconfig(namespace, name))
    program = str(lab.state.folder / "bin" / "kubectl")

    def kubectl(*arguments: str, stdin: str | None = None) -> str:
        return run([program, "--kubeconfig", str(path), *arguments], stdin=stdin)

    # Roles take effect when the API server's own watch has seen them.
    within(30, lambda: "configmaps " in kubectl("auth", "can-i", "--list"))
    return kubectl


def test_account_may_do_what_its_role_says_and_no_more(lab: Lab, namespace: str, tmp_path: Path) -> None:
    kubectl = account(lab, namespace, "reader", tmp_path, "--verb=get,list --resource=configmaps")
    assert kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").endswith(f":{namespace}:reader")
    lab.kubectl("create", "-n", namespace, "-f", "-", input=configmap("readable"))
    assert "readable" in kubectl("get", "configmaps")
    with pytest.raises(CommandFailedError, match="is forbidden"):
        kubectl("create", "configmap", "mine")
    with pytest.raises(CommandFailedError, match="is forbidden"):
        kubectl("get", "secrets")


def test_owner_may_not_be_blocked_by_who_cannot_finalize_it(lab: Lab, namespace: str, tmp_path: Path) -> None:
    kubectl = account(lab, namespace, "maker", tmp_path, "--verb=create,get --resource=configmaps")
    lab.kubectl("create", "-n", namespace, "-f", "-", input=configmap("blocked"))
    uid = lab.kubectl("get", "-n", namespace, "configmap", "blocked", "-o", "jsonpath={.metadata.uid}")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "blocked", "uid": uid, "blockOwnerDeletion": True}
    child = configmap("blocker", ownerReferences=[reference])
    with pytest.raises(CommandFailedError, match="cannot set blockOwnerDeletion"):
        kubectl("create", "-f", "-", stdin=child)


def test_wrong_token_is_refused(lab: Lab) -> None:
    server = f"https://127.0.0.1:{lab.state.facts[APISERVER_PORT_FACT]}"
    authority = str(lab.state.authority)
    stranger = [
        "--kubeconfig",
        os.devnull,
        "--server",
        server,
        "--certificate-authority",
        authority,
        "--token",
        "wrong",
    ]
    with pytest.raises(CommandFailedError, match=r"Unauthorized|must be logged in|credentials"):
        lab.kubectl(*stranger, "get", "namespaces")


def test_aggregated_roles_take_up_what_is_labelled_for_them(lab: Lab) -> None:
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    rules = [{"apiGroups": ["example.org"], "resources": ["gadgets"], "verbs": ["get"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": rules}
    lab.kubectl("create", "-f", "-", input=json.dumps({**role, "metadata": {"name": "gadgets-view", "labels": labels}}))
    within(20, lambda: "gadgets" in lab.kubectl("get", "clusterrole", "view", "-o", "json"))


def test_audit_log_tells_writes_and_not_reads(lab: Lab, namespace: str) -> None:
    since = datetime.datetime.now(datetime.UTC)
    lab.kubectl("create", "-n", namespace, "-f", "-", input=configmap("noted"))
    lab.kubectl("get", "-n", namespace, "configmap", "noted")
    wait_until("the audit log", lambda: [write for write in lab.writes(since) if write.name == "noted"], 5)
    ours = [write for write in lab.writes(since) if write.user == "admin"]
    assert [(write.verb, write.resource, write.name, write.code) for write in ours] == [
        ("create", "configmaps", "noted", 201)
    ]


def test_one_kubeconfig_is_right_inside_and_outside(lab: Lab) -> None:
    inside = lab.exec(["kubectl", "--kubeconfig", str(lab.kubeconfig), "get", "namespaces", "--output", "name"])
    assert inside.returncode == 0, inside.stderr
    assert inside.stdout == lab.kubectl("get", "namespaces", "--output", "name")


def test_commands_inside_keep_directory_environment_input_and_status(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    program = str(lab.state.folder / "bin" / "lab")
    script = 'pwd; echo "$COLOUR $LAB_STATE"; cat; exit 7'
    done = subprocess.run(
        [program, "exec", "--", "sh", "-c", script],
        cwd=folder,
        env={**os.environ, "COLOUR": "green"},
        input="typed",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == f"{folder}\ngreen {lab.state.folder}\ntyped"


def test_names_resolve_at_once_or_not_at_all(lab: Lab) -> None:
    assert lab.exec(["getent", "hosts", "kvm2.lab"]).stdout.split()[0] == "10.77.0.12"
    began = time.monotonic()
    assert lab.exec(["getent", "hosts", "no-such-name.example.org"]).returncode != 0
    assert time.monotonic() - began < 2


FETCH = """
import sys, urllib.request
headers = {"Range": f"bytes={sys.argv[2]}"} if sys.argv[2:] else {}
with urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers), timeout=20) as answer:
    print(answer.read().hex())
"""


def fetch(lab: Lab, url: str, *byte_range: str) -> bytes:
    """The body of a web page, asked from the control namespaces."""
    done = lab.exec([sys.executable, "-c", FETCH, url, *byte_range])
    assert done.returncode == 0, done.stderr
    return bytes.fromhex(done.stdout)


def test_images_are_served_whole_and_in_part(lab: Lab) -> None:
    image = (lab.state.images / "guest.qcow2").read_bytes()
    url = f"{lab.images_url}/guest.qcow2"
    assert fetch(lab, url, "0-3") == image[:4]
    assert fetch(lab, url) == image
    assert fetch(lab, f"{url}.sha256").decode() == f"{hashlib.sha256(image).hexdigest()}  guest.qcow2\n"


@pytest.fixture
def neighbour(lab: Lab) -> Iterator[Lab]:
    """Somebody at 10.77.0.99 on the management network."""
    process = spawn(lab.state, "neighbour", ["unshare", "--net", "sleep", "infinity"])
    wait_until(
        "its namespace", lambda: run(["ip", "-o", "link"], inside=process.pid, kinds=["net"]).count("\n") == 1, 5
    )
    yield lab
    os.kill(process.pid, signal.SIGKILL)


def test_slow_link_is_slow_both_ways_and_fast_again(neighbour: Lab) -> None:
    from lab.network import Fabric

    owner = neighbour.state.process("neighbour")
    assert owner is not None
    link = Fabric(neighbour.state).connect(owner.pid, "far", MGMT, "eth0")
    run(["ip", "addr", "add", "10.77.0.99/24", "dev", "eth0"], inside=owner.pid, kinds=["net"])
    link.up()
    within(5, lambda: neighbour.ping("10.77.0.99"))
    link.slow(150)
    assert not neighbour.ping("10.77.0.99", 0.25)
    assert neighbour.ping("10.77.0.99", 3)
    link.slow(0)
    assert neighbour.ping("10.77.0.99", 0.25)
    link.down()
    assert not link.is_up()
    assert not neighbour.ping("10.77.0.99", 0.5)


def test_ports_inside_can_be_reached_outside_while_wanted(lab: Lab) -> None:
    server = [sys.executable, "-m", "http.server", "8123", "--bind", "127.0.0.1", "--directory", str(lab.state.images)]
    spawn(lab.state, "web", server, inside=lab.control.process.pid)
    lab.forward(8123)
    wait_until("the answer", lambda: answers("http://127.0.0.1:8123/"), 10, log=lab.state.log("web"))
    run([str(lab.state.folder / "bin" / "lab"), "forward", "8123", "--stop"])
    assert not answers("http://127.0.0.1:8123/")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("victim", ["kube-apiserver", "kube-controller-manager", "etcd", "images", "control", "fabric"])
def test_what_died_comes_back_and_knows_what_it_knew(lab: Lab, victim: str) -> None:
    name = f"survivor-{victim}"
    lab.kubectl("create", "namespace", name)
    process = lab.state.process(victim)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_until("its end", lambda: not process.alive(), 5)
    lab.up(host_count=0)
    assert lab.kubectl("get", "namespace", name, "--output", "name") == f"namespace/{name}\n"
    assert b"guest.qcow2" in fetch(lab, lab.images_url)


def test_two_labs_live_side_by_side_and_end_alone(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other")
    try:
        other.up(host_count=0)
        other.kubectl("create", "namespace", "only-there")
        assert is_gone(lab, "default", "namespace", "only-there")
    finally:
        other.down()
    assert lab.kubectl("get", "namespace", "default", "--output", "name") == "namespace/default\n"


def test_interrupted_up_without_any_record_is_still_cleaned_up(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "broken")
    lab.up(host_count=0, control_plane=False)
    resident = lab.control.command(["sleep", "600"])
    with subprocess.Popen(resident, start_new_session=True) as unmarked:
        wait_until("all", lambda: len(find_leftovers(lab.state)) >= 5, 5)
        run(["rm", "-r", str(lab.state.records)])
        lab.down()
        assert unmarked.wait(5) == -signal.SIGKILL
    assert find_leftovers(lab.state) == []
    assert not lab.state.kubeconfig.exists()


def test_down_refuses_to_run_inside(lab: Lab) -> None:
    done = lab.exec([str(lab.state.folder / "bin" / "lab"), "down"])
    assert done.returncode == 1
    assert "outside" in done.stderr


def test_down_of_what_never_was_is_no_failure(tmp_path: Path) -> None:
    Lab(tmp_path / "never").down()
    assert not (tmp_path / "never").exists()


def test_unknown_host_is_named(lab: Lab) -> None:
    with pytest.raises(LabError, match="kvm9"):
        lab.host("kvm9")
