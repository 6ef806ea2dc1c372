"""What `manifests/` gives the operator and people, asked of the API server: these rights and no others."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from crds import KINDS
from lab.errors import CommandFailedError
from tests.integration.api.conftest import ROOT, Api

OPERATOR = "system:serviceaccount:hostler-system:hostler"
PLURALS = sorted(kind.plural for kind in KINDS)

Right = tuple[str, str, str]
"""(API group, resource, verb)."""

EVERYWHERE: set[Right] = {
    *(("hostler.dev", plural, verb) for plural in PLURALS for verb in ("get", "list", "watch", "patch")),
    *(("hostler.dev", f"{plural}/status", "patch") for plural in PLURALS),
    *(("hostler.dev", plural, verb) for plural in ("disks", "operations") for verb in ("create", "delete")),
    ("hostler.dev", "virtualmachines/finalizers", "update"),
    *(("", "namespaces", verb) for verb in ("get", "list", "watch")),
    *(("events.k8s.io", "events", verb) for verb in ("create", "patch")),
    ("", "secrets", "get"),
}
AT_HOME: set[Right] = {
    *(("", "secrets", verb) for verb in ("get", "list", "watch")),
    *(("", "configmaps", verb) for verb in ("get", "create")),
    *(("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update", "delete")),
}


@pytest.fixture(scope="module")
def tenant(api: Api) -> Iterator[str]:
    api.lab.kubectl("create", "namespace", "tenant")
    yield "tenant"
    api.lab.kubectl("delete", "namespace", "tenant", "--wait=false")


def rights(api: Api, namespace: str, user: str, *groups: str) -> set[Right]:
    """All that the user may do in a namespace, cluster-scoped resources included, by the server's own account."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    impersonated = [f"--as={user}", *(f"--as-group={group}" for group in groups)]
    answer = json.loads(
        api.lab.kubectl("create", "--validate=false", "-f", "-", "-o", "json", *impersonated, input=json.dumps(review))
    )
    assert not answer["status"].get("incomplete"), answer["status"]
    return {
        (group, resource + (f":{name}" if name else ""), verb)
        for rule in answer["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
    }


def operator_rights(api: Api, namespace: str) -> set[Right]:
    """Without what every ServiceAccount may do, such as asking for its own rights."""
    anybody = "system:serviceaccount:default:anybody"
    common = rights(api, namespace, anybody, "system:serviceaccounts", "system:authenticated")
    groups = ("system:serviceaccounts", "system:serviceaccounts:hostler-system", "system:authenticated")
    return rights(api, namespace, OPERATOR, *groups) - common


def test_the_operator_may_do_this_and_nothing_else(api: Api, tenant: str) -> None:
    assert operator_rights(api, tenant) == EVERYWHERE
    assert operator_rights(api, "hostler-system") == EVERYWHERE | AT_HOME


@pytest.mark.parametrize(
    ("allowed", "question"),
    [
        ("yes", ["get", "secrets/user-data", "-n", "tenant"]),
        ("no", ["list", "secrets", "-n", "tenant"]),
        ("no", ["list", "secrets", "--all-namespaces"]),
        ("no", ["watch", "secrets", "--all-namespaces"]),
        ("yes", ["watch", "secrets", "-n", "hostler-system"]),
        ("no", ["delete", "virtualmachines.hostler.dev", "-n", "tenant"]),
        ("no", ["create", "virtualmachines.hostler.dev", "-n", "tenant"]),
        ("no", ["update", "virtualmachines.hostler.dev", "-n", "tenant"]),
        ("yes", ["patch", "virtualmachines.hostler.dev", "--subresource=status", "-n", "tenant"]),
        ("yes", ["create", "disks.hostler.dev", "-n", "tenant"]),
        ("yes", ["delete", "disks.hostler.dev", "-n", "tenant"]),
        ("no", ["delete", "storagedomains.hostler.dev"]),
        ("no", ["create", "pods", "-n", "hostler-system"]),
        ("yes", ["update", "leases", "-n", "hostler-system"]),
        ("no", ["update", "leases", "-n", "kube-system"]),
    ],
)
def test_questions_about_the_operator(api: Api, tenant: str, allowed: str, question: list[str]) -> None:
    command = ["env", f"KUBECONFIG={api.lab.kubeconfig}", "kubectl", "auth", "can-i", *question, f"--as={OPERATOR}"]
    assert api.lab.exec(command).stdout.strip() == allowed


def test_the_operator_can_make_a_disk_that_holds_its_vm(api: Api, tenant: str) -> None:
    """blockOwnerDeletion is refused to those who may not set the owner's finalizers."""
    vm = {
        "apiVersion": "hostler.dev/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": "owner", "namespace": tenant},
        "spec": {"runPolicy": "Halted", "pool": "default", "memory": {"size": "1Gi"}},
    }
    owner = json.loads(api.lab.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(vm)))
    disk = {
        "apiVersion": "hostler.dev/v1alpha1",
        "kind": "Disk",
        "metadata": {"name": "owner-root", "namespace": tenant, "ownerReferences": [_reference(owner)]},
        "spec": {"size": "1Gi", "storageDomain": "shared"},
    }
    said = api.lab.kubectl("create", "--validate=false", "-f", "-", f"--as={OPERATOR}", input=json.dumps(disk))
    assert "owner-root created" in said


def _reference(owner: dict[str, Any]) -> dict[str, Any]:
    names = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], **names, "blockOwnerDeletion": True}


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("view", {"get", "list", "watch"}, {"create", "update", "patch", "delete"}),
        ("edit", {"get", "list", "watch", "create", "update", "patch", "delete"}, {"*"}),
        ("admin", {"get", "list", "watch", "create", "update", "patch", "delete"}, {"*"}),
    ],
)
def test_people_with_the_usual_roles(api: Api, tenant: str, role: str, may: set[str], may_not: set[str]) -> None:
    api.lab.kubectl("create", "rolebinding", f"{role}-binding", "-n", tenant, f"--clusterrole={role}", f"--user={role}")
    held = rights(api, tenant, role, "system:authenticated")
    for plural in ("virtualmachines", "disks"):
        verbs = {verb for group, resource, verb in held if (group, resource) == ("hostler.dev", plural)}
        assert may <= verbs
        assert not may_not & verbs
    operations = {verb for group, resource, verb in held if (group, resource) == ("hostler.dev", "operations")}
    assert operations == {"get", "list", "watch"} | ({"delete"} & may)
    others = ("virtualmachines", "disks", "operations")
    assert not {r for r in held if r[0] == "hostler.dev" and r[1] not in others}


def test_the_deployment_runs_with_little(api: Api) -> None:
    deployment = yaml.safe_load(api.lab.kubectl("get", "-n", "hostler-system", "deployment", "hostler", "-o", "yaml"))
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "hostler"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    container = pod["containers"][0]["securityContext"]
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"]["drop"] == ["ALL"]


def test_its_pods_are_let_into_their_namespace(api: Api) -> None:
    """The namespace enforces the restricted Pod Security Standard, on this API server too."""
    deployment = yaml.safe_load((ROOT / "manifests/deployment.yaml").read_text())
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hostler-1", "namespace": "hostler-system"},
        "spec": deployment["spec"]["template"]["spec"],
    }
    create = ("create", "--dry-run=server", "-f", "-")
    assert "created" in api.lab.kubectl(*create, input=json.dumps(pod))
    pod["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(CommandFailedError, match="PodSecurity"):
        api.lab.kubectl(*create, input=json.dumps(pod))


def test_applied_twice_there_is_nothing_to_diff(api: Api) -> None:
    """diff ends with 1, which the lab raises, where there is one."""
    assert not api.lab.kubectl("diff", "--server-side", "-k", str(ROOT / "manifests")).strip()
