"""The pure parts of the control plane: what is built and found, kubeconfigs, the reading of audit logs."""

import base64
import datetime
import json

import pytest
import yaml

from lab.controlplane import audit, binaries, kubeconfig
from lab.pki import lab_authority
from lab.progress import Progress

EVENT = {
    "kind": "Event",
    "verb": "patch",
    "user": {"username": "system:serviceaccount:hostler:operator"},
    "objectRef": {
        "resource": "widgets",
        "apiGroup": "example.org",
        "subresource": "status",
        "namespace": "a",
        "name": "w",
    },
    "responseStatus": {"code": 200},
    "stageTimestamp": "2026-11-21T02:16:14.505360Z",
}


def test_go_versions_are_understood():
    assert binaries.parse_go_version("go version go1.26.8 linux/amd64") == (1, 26)
    assert binaries.parse_go_version("go version go1.9 linux/arm64") == (1, 9)
    assert binaries.parse_go_version("gcc 12") is None


def test_version_that_programs_report_is_that_of_the_module():
    flags = " ".join(binaries.build_flags())
    version = binaries.kubernetes_version()
    assert version.startswith("v1.")
    assert f"gitVersion={version}" in flags


def test_cache_key_changes_with_each_thing_that_decides_what_is_built(monkeypatch, tmp_path):
    for name in ("go.mod", "go.sum"):
        (tmp_path / name).write_bytes((binaries.MODULE / name).read_bytes())
    original = binaries.cache_key()
    monkeypatch.setattr(binaries, "MODULE", tmp_path)
    assert binaries.cache_key() == original
    (tmp_path / "go.sum").write_text("changed")
    assert (changed := binaries.cache_key()) != original
    monkeypatch.setattr(binaries, "build_flags", lambda: ["-race"])
    assert binaries.cache_key() not in (original, changed)


def test_provided_programs_are_used_and_the_missing_one_comes_from_the_cache(monkeypatch, tmp_path):
    assets, cache = tmp_path / "assets", tmp_path / "cache"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    built = cache / "hostler-lab" / "controlplane" / binaries.cache_key() / "kube-controller-manager"
    built.parent.mkdir(parents=True)
    built.touch()
    found = binaries.ensure(Progress(quiet=True))
    assert found.etcd == assets / "etcd"
    assert found.kubectl == assets / "kubectl"
    assert found.controller_manager == built


def test_kubeconfigs_stand_alone(tmp_path):
    authority = lab_authority(tmp_path)
    identity = authority.issue(tmp_path, "admin", "admin")
    admin = yaml.safe_load(kubeconfig.with_certificate("https://127.0.0.1:1", identity))
    encoded = admin["users"][0]["user"]["client-certificate-data"]
    assert base64.b64decode(encoded) == identity.certificate.read_bytes()
    bearer = yaml.safe_load(kubeconfig.with_token("https://127.0.0.1:1", authority.path, "op", "secret", "ns"))
    assert bearer["users"][0]["user"] == {"token": "secret"}
    assert bearer["contexts"][0]["context"]["namespace"] == "ns"
    assert bearer["current-context"] == bearer["contexts"][0]["name"]
    assert str(tmp_path) not in yaml.safe_dump([admin, bearer])


def test_audit_event_becomes_a_write():
    write = audit.parse(EVENT)
    assert write is not None
    assert (write.verb, write.resource, write.namespace, write.name, write.code) == (
        "patch",
        "widgets.example.org/status",
        "a",
        "w",
        200,
    )
    assert write.user == "system:serviceaccount:hostler:operator"
    assert write.time == datetime.datetime(2026, 11, 21, 2, 16, 14, 505360, tzinfo=datetime.UTC)


def test_core_resources_have_no_group():
    write = audit.parse({**EVENT, "objectRef": {"resource": "events", "namespace": "a"}})
    assert write is not None
    assert write.resource == "events"


def test_requests_about_no_resource_are_no_writes():
    assert audit.parse({key: value for key, value in EVENT.items() if key != "objectRef"}) is None


def test_writes_come_in_order_from_rotated_files_too_and_from_a_moment_on(tmp_path):
    early, late = {**EVENT, "stageTimestamp": "2026-11-21T01:00:00Z"}, EVENT
    (tmp_path / "audit-2026-11-21T02-00-00.000.log").write_text(json.dumps(early) + "\n")
    (tmp_path / "audit.log").write_text(json.dumps(late) + "\n" + json.dumps(late)[:50])
    log = tmp_path / "audit.log"
    assert [write.time.hour for write in audit.writes(log)] == [1, 2]
    since = datetime.datetime(2026, 11, 21, 1, 30, tzinfo=datetime.UTC)
    assert [write.time.hour for write in audit.writes(log, since)] == [2]


@pytest.mark.parametrize("suffix", ["", "\n"])
def test_no_log_yet_means_no_writes(tmp_path, suffix):
    (tmp_path / "audit.log").write_text(suffix)
    assert audit.writes(tmp_path / "audit.log") == []
    assert audit.writes(tmp_path / "absent" / "audit.log") == []
