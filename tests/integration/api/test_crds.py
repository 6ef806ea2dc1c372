"""The real API server takes the definitions, accepts what the models make, and refuses what the rules refuse."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client

from crds import KINDS
from crds.base import GROUP, Kind
from tests.integration.api.conftest import Api, causes
from tests.unit.crds.rule_cases import ALLOWED_CHANGES, CASES, Case, build
from tests.unit.crds.strategies import objects

EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
PLENTY = settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@EVERY_KIND
def test_the_definition_is_taken_without_complaint(api: Api, kind: Kind) -> None:
    conditions = api.lab.kubectl(
        "get", f"crd/{kind.plural}.{GROUP}", "-o", "jsonpath={range .status.conditions[*]}{.type}={.status} {end}"
    )
    assert "NamesAccepted=True" in conditions
    assert "NonStructuralSchema=True" not in conditions


@EVERY_KIND
@PLENTY
@given(data=st.data())
def test_what_the_models_make_the_server_accepts_and_gives_back(api: Api, kind: Kind, data: st.DataObject) -> None:
    made = kind.model.parse(data.draw(objects(kind)))
    sent = {**made.to_dict(), "metadata": {"name": "generated"}}
    if kind.namespaced:
        sent["metadata"]["namespace"] = "default"
    stored = kind.model.parse(api.create(sent))
    assert stored.spec == made.spec
    assert stored.status.observed_generation == -1, "nobody has looked at it"
    assert not stored.status.conditions


@EVERY_KIND
def test_a_spec_without_defaults_is_stored_as_it_was_sent(api: Api, kind: Kind) -> None:
    sent = build(kind.kind, "as-sent", {})
    assert api.create(sent)["spec"] == sent["spec"]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.kind)
def existing(api: Api, request: pytest.FixtureRequest) -> Iterator[tuple[Kind, dict[str, Any]]]:
    stored = api.create(build(request.param.kind, "observed", {}), dry_run=False)
    yield request.param, stored
    api.delete(stored)


def test_every_status_of_the_models_is_accepted_and_given_back(api: Api, existing: tuple[Kind, dict[str, Any]]) -> None:
    kind, stored = existing

    @PLENTY
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        made = kind.model.parse(data.draw(objects(kind)))
        answer = api.replace_status({**stored, "status": made.to_dict()["status"]})
        assert kind.model.parse(answer).status == made.status
        assert answer["spec"] == stored["spec"]

    check()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rules(api: Api, case: Case) -> None:
    if case.before is None:
        name = case.kind.lower()
        api.create(build(case.kind, name, case.accepted))
        with pytest.raises(client.ApiException) as refusal:
            api.create(build(case.kind, name, case.refused))
    else:
        stored = api.create(build(case.kind, "changing", case.before), dry_run=False)
        try:
            stored = _with_status(api, stored, case.status)
            api.replace(_changed(stored, case, case.accepted))
            with pytest.raises(client.ApiException) as refusal:
                api.replace(_changed(stored, case, case.refused))
        finally:
            api.delete(stored)
    said = causes(refusal.value)
    assert any(field == case.path and case.message in message for field, message in said), said


@pytest.mark.parametrize(("kind", "changes", "status"), ALLOWED_CHANGES)
def test_changes_that_no_rule_stands_in_the_way_of(
    api: Api, kind: str, changes: dict[str, Any], status: dict[str, Any]
) -> None:
    stored = api.create(build(kind, "free", {}), dry_run=False)
    try:
        stored = _with_status(api, stored, status)
        api.replace({**stored, "spec": build(kind, "free", changes)["spec"]})
    finally:
        api.delete(stored)


def test_a_status_can_be_written_whatever_the_pool_rule_says(api: Api) -> None:
    stored = api.create(build("Host", "status-first", {}), dry_run=False)
    try:
        stored = _with_status(api, stored, {"vmCount": 1})
        assert _with_status(api, stored, {"vmCount": 2})["status"]["vmCount"] == 2
    finally:
        api.delete(stored)


def _with_status(api: Api, stored: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    if not status:
        return stored
    return api.replace_status({**stored, "status": {**stored["status"], **status}}, dry_run=False)


def _changed(stored: dict[str, Any], case: Case, changes: dict[str, Any]) -> dict[str, Any]:
    wanted = build(case.kind, "changing", {**(case.before or {}), **changes})
    return {**stored, "spec": wanted["spec"]}


def test_server_side_apply_merges_drives_by_name(api: Api) -> None:
    """A second manager adds a drive and a card; the first one's manifest then does not take them away."""
    head = (
        "apiVersion: hostler.dev/v1alpha1\nkind: VirtualMachine\nmetadata: {name: merged, namespace: default}\nspec:\n"
    )
    mine = (
        f"{head}  {{runPolicy: Halted, pool: p, memory: {{size: 1Gi}}, disks: [{{name: a, diskRef: {{name: a}}}}]}}\n"
    )
    theirs = f"{head}  {{disks: [{{name: b, diskRef: {{name: b}}}}], nics: [{{name: lan, network: lan}}]}}\n"
    apply = ("apply", "--server-side", "-f", "-", "--field-manager")
    api.lab.kubectl(*apply, "me", input=mine)
    api.lab.kubectl(*apply, "them", input=theirs)
    api.lab.kubectl(*apply, "me", input=mine.replace("Halted", "Manual"))
    path = "jsonpath={.spec.disks[*].name} {.spec.nics[*].name} {.spec.runPolicy}"
    assert api.lab.kubectl("get", "hvm", "merged", "-o", path) == "a b lan Manual"
    api.lab.kubectl("delete", "hvm", "merged")


def test_objects_can_be_selected_by_field(api: Api) -> None:
    for name, pool in (("near", "default"), ("far", "other")):
        api.create(build("Host", name, {"spec.pool": pool}), dry_run=False)
    found = api.lab.kubectl("get", "hosts", "--field-selector", "spec.pool=other", "-o", "name")
    assert found.split() == ["host.hostler.dev/far"]
    api.lab.kubectl("delete", "hosts", "near", "far")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("virtualmachines.spec", ["runPolicy", "<string> -required-", "Always, RerunOnFailure", "Default: q35."]),
        (
            "virtualmachines.spec.powerRequest",
            ["carried out when it differs from the last one", "id", "action", "Reboot"],
        ),
        ("virtualmachines.spec.disks.template", ["storageDomain", "It can grow, never shrink.", "Default: qcow2."]),
        ("disks.spec.source.http", ["checksum", "the digest of the file as it is downloaded"]),
        ("hosts.spec", ["qemu+tls://kvm1.example/system", "known_hosts", "Default: Active."]),
        ("hostpools.spec.fencing", ["failedAfterSeconds", "Default: 30."]),
        ("storagedomains.status.hosts", ["whether it reaches the domain"]),
        ("networks.spec.bridge", ["Name of the bridge device on the hosts."]),
    ],
)
def test_explain_reads_like_a_manual(api: Api, path: str, expected: list[str]) -> None:
    text = " ".join(api.lab.kubectl("explain", f"{path}").split())
    for words in expected:
        assert words in text


def test_short_names_and_category(api: Api) -> None:
    known = api.lab.kubectl("api-resources", "--api-group", GROUP, "--categories=hostler", "-o", "wide")
    for kind in KINDS:
        line = next(line for line in known.splitlines() if line.startswith(kind.plural + " "))
        assert line.split()[1] == ",".join(kind.short_names)


def test_an_unlooked_at_object_counts_as_not_current(api: Api) -> None:
    stored = api.create(build("Network", "fresh", {}), dry_run=False)
    assert stored["status"] == {"observedGeneration": -1}
    assert stored["metadata"]["generation"] == 1
    api.delete(stored)


def test_columns_show(api: Api) -> None:
    stored = api.create(build("VirtualMachine", "shown", {}), dry_run=False)
    status = {"printableStatus": "Running", "placement": {"host": "kvm1", "epoch": 1, "since": _now()}}
    _with_status(api, stored, status)
    header, line = api.lab.kubectl("get", "hvm", "shown", "-o", "wide").splitlines()
    columns = "NAME STATUS READY HOST ADDRESS POOL MEMORY POLICY MESSAGE AGE"
    assert header.split() == columns.split()
    assert line.split()[:3] == ["shown", "Running", "kvm1"]
    api.delete(stored)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
