"""Host: connected, lost, drained, deleted; and each wrong setting said by name."""

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.host import Host, HostPhase
from crds.host_pool import PoolBaseline
from drivers.errors import ConnectFailed
from drivers.model import ConnectionState, ConnectionView, Inventory
from engine.keys import Key
from reconcilers.capacity import why_not
from reconcilers.host import reconcile
from reconcilers.host.compatible import incompatible
from reconcilers.host.decide import Observed, decide, schedulable
from reconcilers.standing import Standing
from tests.unit.reconcilers.fakes import BASELINE, GIB, FakeHypervisor, World, domain, facts

KEY = Key("Host", "", "kvm1")


def world(**host: Any) -> tuple[World, FakeHypervisor]:
    w = World()
    w.pool(status={"baseline": BASELINE})
    return w, w.host("kvm1", **host)


def secret(w: World, *keys: str) -> None:
    data = {key: base64.b64encode(b"x").decode() for key in keys}
    metadata = {"name": "kvm1", "namespace": "hostler-system", "uid": f"secret-{len(keys)}"}
    w.client.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def placed(w: World, host: str = "kvm1", power: str = "On", **status: Any) -> Key:
    since = "2026-11-20T12:00:00Z"
    status = {
        "uuid": "vm-1",
        "placement": {"host": host, "epoch": 1, "since": since, "candidates": [host]},
        "power": {"state": power, "reason": "RunPolicy", "runPolicy": "Always", "since": since},
        **status,
    }
    spec = {"runPolicy": "Always", "pool": "default", "memory": {"size": "1Gi"}}
    return w.add("VirtualMachine", "web", spec, namespace="default", status=status)


async def test_a_connected_host_is_up_and_says_what_it_has():
    w, host = world()
    host.domains = [domain(), domain("theirs", uid="x", ours=False, memory=2 * GIB)]
    await reconcile(w.context, KEY)
    status = w.status(KEY)
    assert (status["phase"], w.standing(KEY)) == ("Up", ("True", "False", "False", "Up"))
    assert w.condition(KEY, "Connected")[0] == w.condition(KEY, "Schedulable")[0] == "True"
    assert (status["vmCount"], status["foreignDomains"], status["uuid"]) == (1, 1, "uuid-kvm1")
    assert status["allocatable"] == {"cpus": 8, "memory": "30.4Gi"}
    assert status["allocated"]["cpus"] == 4
    assert status["capabilities"]["machines"] == ["pc-i440fx-7.2", "pc-q35-7.2"]
    assert ("Connected", "connected to qemu+unix:///system") in w.recorder.events


async def test_a_settled_host_writes_nothing():
    w, host = world()
    host.domains = [domain()]
    await reconcile(w.context, KEY)
    w.client.writes.clear()
    for step in range(5):
        w.clock.move(400)
        # A balloon breathes by less than a hundredth of the host.
        host.domains = [domain(memory=GIB + step * 2**20)]
        await reconcile(w.context, KEY)
    assert w.client.writes == []


async def test_a_silent_host_is_lost_after_its_time_and_not_before():
    w, host = world()
    await reconcile(w.context, KEY)
    host.disconnect()
    w.clock.move(10)
    result = await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)) == ("Up", ("False", "True", "False", "NonResponsive"))
    assert w.condition(KEY, "Schedulable")[0] == "False"
    assert 20 <= result.seconds <= 20.5
    w.clock.move(result.seconds)
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)) == ("NonResponsive", ("False", "False", "True", "NonResponsive"))
    assert [reason for reason, _ in w.recorder.events] == ["Connected", "Lost", "NonResponsive"]
    w.clock.move(60)
    w.client.writes.clear()
    await reconcile(w.context, KEY)
    assert w.client.writes == []
    host.state = ConnectionState.CONNECTED
    await reconcile(w.context, KEY)
    assert w.status(KEY)["phase"] == "Up"


async def test_a_host_that_is_silent_when_the_operator_starts_is_lost_in_time_too():
    w, host = world(status={"uuid": "uuid-kvm1", "phase": "Up"})
    host.never_connected(ConnectFailed("no route", reason="Unreachable"))
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)[1]) == ("Up", "True")
    w.clock.move(31)
    await reconcile(w.context, KEY)
    assert w.status(KEY)["phase"] == "NonResponsive"


@pytest.mark.parametrize("reason", ["TLSRefused", "AuthFailed", "HostKeyUnknown", "Unresolvable", "Unreachable"])
async def test_a_refused_connection_is_said_and_heals(reason):
    w, host = world()
    host.never_connected(ConnectFailed("mend it", reason=reason))
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)) == ("Connecting", ("False", "False", "True", reason))
    assert w.condition(KEY, "Ready")[2] == "mend it"
    host.state, host.error = ConnectionState.CONNECTED, None
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[0] == "True"


TLS = {"uri": "qemu+tls://kvm1.example/system"}


@pytest.mark.parametrize(
    ("spec", "keys", "reason", "word"),
    [
        (TLS, None, "CredentialsMissing", "spec.credentialsSecret"),
        ({**TLS, "credentialsSecret": "kvm1"}, None, "CredentialsMissing", "Secret kvm1"),
        ({**TLS, "credentialsSecret": "kvm1"}, ["ca.crt", "tls.crt"], "CredentialsIncomplete", "tls.key"),
        ({"uri": "qemu+ssh://kvm1/system", "credentialsSecret": "kvm1"}, ["x"], "CredentialsIncomplete", "known_hosts"),
        (
            {"uri": "qemu+tcp://h/system", "credentialsSecret": "kvm1"},
            ["username"],
            "CredentialsIncomplete",
            "password",
        ),
        ({"uri": "qemu+tls:///system"}, None, "BadURI", "names no host"),
        ({"uri": "qemu+tls://h:port/system"}, None, "BadURI", "cannot be read"),
        ({"uri": "xen://h/"}, None, "BadURI", "transport"),
        ({"pool": "none"}, None, "PoolNotFound", "HostPool none"),
    ],
)
async def test_wrong_settings_are_said_by_name(spec, keys, reason, word):
    w, _ = world(spec=spec)
    if keys is not None:
        secret(w, *keys)
    await reconcile(w.context, KEY)
    assert w.standing(KEY) == ("False", "False", "True", reason)
    assert word in w.condition(KEY, "Ready")[2]
    assert "kvm1" not in w.hosts.targets


async def test_a_secret_that_is_completed_heals():
    w, _ = world(spec={**TLS, "credentialsSecret": "kvm1"})
    await reconcile(w.context, KEY)
    secret(w, "ca.crt", "tls.crt", "tls.key", "more")
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[0] == "True"
    assert set(w.hosts.targets["kvm1"].credentials) == {"ca.crt", "tls.crt", "tls.key"}


async def test_maintenance_waits_for_the_vms():
    w, _ = world(mode="Maintenance")
    vm = placed(w)
    await reconcile(w.context, KEY)
    assert w.status(KEY)["phase"] == "PreparingForMaintenance"
    assert "default/web" in w.condition(KEY, "Ready")[2]
    w.cache.delete(vm)
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)) == ("Maintenance", ("True", "False", "False", "Maintenance"))


async def test_cordoned_and_observed_hosts_are_ready_and_take_nothing():
    for spec, reason in (({"mode": "Cordoned"}, "Cordoned"), ({"management": "Observe"}, "Observed")):
        w, _ = world(spec=spec)
        await reconcile(w.context, KEY)
        assert w.standing(KEY)[0] == "True"
        assert w.condition(KEY, "Schedulable")[:2] == ("False", reason)


async def test_of_two_hosts_with_one_uuid_the_younger_stands_back():
    w, _ = world()
    twin = w.host("kvm2", creationTimestamp="2026-11-20T13:00:00Z")
    twin.facts = facts(uuid="uuid-kvm1")
    await reconcile(w.context, KEY)
    await reconcile(w.context, Key("Host", "", "kvm2"))
    assert w.standing(KEY)[0] == "True"
    assert w.status(Key("Host", "", "kvm2"))["phase"] == "NonOperational"
    assert w.standing(Key("Host", "", "kvm2"))[3] == "DuplicateHost"


async def test_another_machine_does_not_speak_for_the_one_that_vms_were_started_on():
    w, host = world()
    await reconcile(w.context, KEY)
    vm = placed(w)
    host.facts = facts(uuid="uuid-of-another")
    view = w.context.view("kvm1")
    assert view is not None
    assert not view.fresh
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)[3]) == ("NonOperational", "AnotherMachine")
    assert w.status(KEY)["uuid"] == "uuid-kvm1"
    assert w.condition(KEY, "Schedulable")[0] == "False"

    w.cache.delete(vm)
    declared = w.context.objects.get(Host, "kvm1")
    assert declared is not None
    assert why_not(declared, w.context.host("kvm1")) == "is another machine than before"
    await reconcile(w.context, KEY)
    assert w.status(KEY)["uuid"] == "uuid-of-another"
    assert w.standing(KEY)[0] == "True"


async def test_a_host_waits_for_its_pools_baseline():
    w = World()
    w.pool()
    w.host("kvm1")
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)[3]) == ("Initializing", "PoolNotReady")


async def test_a_host_that_cannot_give_the_baseline_is_not_operational():
    w, host = world()
    host.facts = facts(machines={"q35": ("pc-q35-6.0",)})
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["phase"], w.standing(KEY)[3]) == ("NonOperational", "Incompatible")


async def test_deletion_waits_for_vms_and_then_closes_the_connection():
    w, _ = world(deletionTimestamp="2026-11-20T12:00:00Z")
    vm = placed(w)
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[3] == "InUse"
    assert w.hosts.removed == []
    w.cache.delete(vm)
    await reconcile(w.context, KEY)
    assert w.cache.get(KEY) is None
    assert w.hosts.removed == ["kvm1"]


async def test_storage_and_networks_of_the_pool_are_shown():
    w, _ = world()
    reach = [{"name": "kvm1", "reachable": False, "reason": "MarkerMissing", "message": "not mounted"}]
    storage = {"type": "directory", "directory": {"path": "/p"}, "pools": ["default"]}
    w.add("StorageDomain", "fast", storage, status={"hosts": reach})
    network = {"type": "bridge", "bridge": {"name": "br0"}, "pools": ["default"]}
    w.add("Network", "lan", network, status={"hosts": [{"name": "kvm1", "available": True}]})
    await reconcile(w.context, KEY)
    assert w.condition(KEY, "StorageReady") == ("False", "Missing", "StorageDomain fast: not mounted")
    assert w.condition(KEY, "NetworksReady")[0] == "True"
    assert w.standing(KEY)[0] == "True"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, None),
        ({"architecture": "aarch64"}, "aarch64"),
        ({"virtualization": "qemu"}, "KVM"),
        ({"machines": {"pc": ("pc-i440fx-7.2",)}}, "pc-q35-7.2"),
        ({"cpu_models": ("qemu64",), "cpu_model": "Penryn"}, "EPYC-Rome"),
    ],
)
def test_what_makes_a_host_incompatible(changes, word):
    why = incompatible(facts(**changes), PoolBaseline.model_validate(BASELINE))
    assert (why is None) if word is None else (why is not None and word in why)


VIEWS = st.builds(
    ConnectionView,
    state=st.sampled_from(ConnectionState),
    facts=st.none() | st.just(facts()),
    inventory=st.none() | st.just(Inventory((), 1, 0.0)),
    fresh=st.booleans(),
    last_seen=st.none() | st.floats(0, 100),
    error=st.none() | st.sampled_from([ConnectFailed("x", reason=r) for r in ("Unreachable", "TLSRefused")]),
)
HOSTS = [
    Host.parse(
        {
            "kind": "Host",
            "metadata": {"name": "kvm1"},
            "spec": {"pool": "d", "uri": "qemu+unix:///system", "mode": mode, "management": management},
            "status": {**({"phase": phase} if phase else {}), **({"uuid": "u"} if known else {})},
        }
    )
    for mode in ("Active", "Cordoned", "Maintenance")
    for management in ("Full", "Observe")
    for phase in (None, "Up", "NonResponsive")
    for known in (False, True)
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(HOSTS),
    st.builds(
        Observed,
        view=st.none() | VIEWS,
        monotonic=st.just(100.0),
        trying_since=st.floats(0, 100),
        failed_after=st.just(30.0),
        baseline_known=st.booleans(),
        incompatible=st.sampled_from([None, "too old"]),
        duplicate_of=st.sampled_from([None, "kvm0"]),
        vms=st.sampled_from([(), ("default/web",)]),
    ),
)
def test_status_never_claims_more_than_was_observed(host, seen):
    plan = decide(host, seen)
    view = seen.view
    listed = view is not None and view.state is ConnectionState.CONNECTED and view.fresh
    heard = view is not None and view.last_seen is not None and seen.monotonic - view.last_seen < seen.failed_after
    if plan.phase is HostPhase.UP and plan.verdict.standing is Standing.READY:
        assert listed
        assert seen.baseline_known
        assert seen.incompatible is seen.duplicate_of is None
    if plan.phase is HostPhase.MAINTENANCE:
        assert listed
        assert not seen.vms
    if schedulable(host, plan)[0]:
        assert plan.phase is HostPhase.UP
        assert (host.spec.mode, host.spec.management) == ("Active", "Full")
    if plan.phase is HostPhase.NON_RESPONSIVE and host.status.phase is not HostPhase.NON_RESPONSIVE:
        assert not heard
    assert plan.again > 0
    if plan.verdict.standing is not Standing.READY:
        assert plan.verdict.message
