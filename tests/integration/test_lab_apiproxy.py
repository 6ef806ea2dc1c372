"""The proxy before the API server: nothing changes on the way but what a rule says; and a store that goes back."""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab
from lab.apifaults import Action, Rule
from lab.errors import CommandFailedError, LabError
from lab.processes import run, wait_until


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("proxy") / "lab")
    try:
        lab.up(host_count=0)
        lab.api_faults.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture
def proxied(lab: Lab, tmp_path: Path) -> Iterator[list[str]]:
    """kubectl by way of the proxy, as administrator."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(lab.api_faults.through(lab.kubeconfig.read_text()))
    yield [str(lab.state.folder / "bin" / "kubectl"), "--kubeconfig", str(kubeconfig)]
    lab.api_faults.clear()


def configmap(lab: Lab, name: str) -> str:
    return lab.kubectl("get", "configmap", name, "--ignore-not-found", "-oname").strip()


def test_users_stay_who_they_are(lab: Lab, proxied: list[str], tmp_path: Path) -> None:
    info = json.loads(run([*proxied, "auth", "whoami", "-ojson"]))["status"]["userInfo"]
    assert info["username"] == "admin" and "system:masters" in info["groups"]
    account = tmp_path / "account"
    account.write_text(lab.api_faults.through(lab.service_account_kubeconfig("default", "default")))
    info = json.loads(run([proxied[0], "--kubeconfig", str(account), "auth", "whoami", "-ojson"]))["status"]["userInfo"]
    assert info["username"] == "system:serviceaccount:default:default"
    with pytest.raises(CommandFailedError, match=r"(?i)forbidden"):
        run([proxied[0], "--kubeconfig", str(account), "get", "secrets"])
    stranger = tmp_path / "stranger"
    stranger.write_text(account.read_text().replace("token: ", "token: x"))
    with pytest.raises(CommandFailedError, match=r"(?i)unauthorized|logged in"):
        run([proxied[0], "--kubeconfig", str(stranger), "get", "secrets"])


def test_answers_that_the_server_never_gave(lab: Lab, proxied: list[str]) -> None:
    lab.api_faults.set(Rule(Action.ANSWER, status=500, methods=("POST",)))
    with pytest.raises(CommandFailedError, match="planted"):
        run([*proxied, "create", "configmap", "refused"])
    assert not configmap(lab, "refused")
    assert lab.api_faults.rules() == [Rule(Action.ANSWER, status=500, methods=["POST"])]
    lab.api_faults.clear()
    run([*proxied, "create", "configmap", "accepted"])
    assert configmap(lab, "accepted")


def test_lost_requests_and_lost_replies(lab: Lab, proxied: list[str]) -> None:
    lab.api_faults.set(Rule(Action.LOSE_REQUEST, methods=("POST",)))
    with pytest.raises(CommandFailedError):
        run([*proxied, "create", "configmap", "lost"])
    assert not configmap(lab, "lost")
    lab.api_faults.set(Rule(Action.LOSE_REPLY, methods=("POST",)))
    with pytest.raises(CommandFailedError):
        run([*proxied, "create", "configmap", "carried-out"])
    assert configmap(lab, "carried-out"), "the server did it, only nobody heard"


def test_delay_and_small_pages(lab: Lab, proxied: list[str]) -> None:
    for number in range(3):
        lab.kubectl("create", "configmap", f"page-{number}")
    lab.api_faults.set(Rule(Action.DELAY, seconds=0.5, path="configmaps"), Rule(Action.PAGE, limit=1))
    before, began = lab.api_faults.counts(), time.monotonic()
    found = run([*proxied, "get", "configmaps", "-oname"])
    assert sum(f"page-{number}" in found for number in range(3)) == 3
    pages = lab.api_faults.counts()["page"] - before.get("page", 0)
    assert pages >= 3 and time.monotonic() - began >= 0.5 * pages


def test_watch_streams_then_is_cut_or_falls_silent(lab: Lab, proxied: list[str], tmp_path: Path) -> None:
    out = tmp_path / "heard"
    with out.open("wb") as file:
        command = [*proxied, "get", "configmaps", "--watch-only", "-oname"]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_until("a watch", lambda: lab.api_faults.counts()["watches"] == 1, 30)
        lab.kubectl("create", "configmap", "streamed")
        wait_until("the event", lambda: "streamed" in out.read_text(), 10)
        lab.api_faults.set(Rule(Action.SILENCE))
        wait_until("silence", lambda: lab.api_faults.counts().get("silence"), 10)
        lab.api_faults.clear()
        lab.kubectl("create", "configmap", "unheard")
        time.sleep(1)
        assert "unheard" not in out.read_text() and process.poll() is None
        lab.api_faults.set(Rule(Action.CUT))
        wait_until("no watch", lambda: lab.api_faults.counts()["watches"] == 0, 10)
        process.wait(30)
        assert "unheard" not in out.read_text()
    finally:
        process.kill()
        process.wait()


def test_nobody_without_the_certificate_is_believed_to_be_the_proxy(lab: Lab, proxied: list[str]) -> None:
    """Neither the API server nor the proxy takes a name from a client's header."""
    trusting = ssl.create_default_context(cafile=str(lab.state.authority))
    for port in (lab.api_faults.port, lab.state.facts["apiserver_port"]):
        headers = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}
        request = urllib.request.Request(f"https://127.0.0.1:{port}/api/v1/secrets", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, context=trusting)
        assert refused.value.code in (401, 403)
        refused.value.close()


def test_store_goes_back(lab: Lab) -> None:
    lab.kubectl("create", "configmap", "before")
    lab.etcd_snapshot()
    lab.kubectl("create", "configmap", "after")
    version = lab.kubectl("get", "configmap", "after", "-ojsonpath={.metadata.resourceVersion}")
    lab.etcd_restore()
    assert configmap(lab, "before") and not configmap(lab, "after")
    newest = json.loads(lab.kubectl("get", "configmaps", "-ojson"))["items"]
    assert all(int(item["metadata"]["resourceVersion"]) < int(version) for item in newest)
    with pytest.raises(LabError, match="no state is kept"):
        lab.etcd_restore("never")
