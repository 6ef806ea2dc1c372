"""HostPool: its baseline is made once, from hosts that have come together, and kept."""

from typing import Any

from crds.host_pool import PoolBaseline
from drivers.errors import HostTimeout, Refused
from engine.keys import Key
from reconcilers.host_pool import reconcile
from reconcilers.host_pool.decide import common_machines
from tests.unit.reconcilers.fakes import BASELINE, World, facts

KEY = Key("HostPool", "", "default")


def world(*hosts: str, spec: dict[str, Any] | None = None, **extra: Any) -> World:
    w = World()
    w.pool(spec=spec, **extra)
    for name in hosts:
        w.host(name)
    return w


def mark_up(w: World, name: str) -> None:
    """Have a Host's status say that it is up, as its own reconciler would."""
    w.add("Host", name, {"pool": "default", "uri": "qemu+unix:///system"}, status={"phase": "Up", "conditions": [UP]})


UP = {"type": "Schedulable", "status": "True", "reason": "Up", "lastTransitionTime": "2026-11-20T12:00:00Z"}


async def test_a_pool_without_hosts_says_so():
    w = world()
    await reconcile(w.context, KEY)
    assert w.standing(KEY) == ("False", "False", "True", "NoHosts")
    assert w.status(KEY)["hosts"] == 0


async def test_the_baseline_is_made_when_all_hosts_are_connected():
    w = world("kvm1", "kvm2")
    w.hosts.hosts["kvm2"].facts = facts(machines={"q35": ("pc-q35-8.0", "pc-q35-7.1"), "pc": ()}, virtualization="qemu")
    await reconcile(w.context, KEY)
    made = PoolBaseline.model_validate(w.status(KEY)["baseline"])
    assert (made.virtualization, made.cpu.model, made.cpu.features) == ("qemu", "EPYC-Rome", ["+x2apic"])
    assert [(m.family, m.type) for m in made.machines] == [("q35", "pc-q35-7.1")]


async def test_it_waits_for_the_others_for_half_a_minute():
    w = world("kvm1", "kvm2")
    w.hosts.hosts["kvm2"].never_connected()
    result = await reconcile(w.context, KEY)
    assert "baseline" not in w.status(KEY)
    assert w.standing(KEY)[3] == "WaitingForHosts"
    w.clock.move(result.seconds)
    await reconcile(w.context, KEY)
    assert "baseline" in w.status(KEY)


async def test_the_baseline_is_kept_whatever_joins_or_leaves():
    w = world("kvm1", status={"baseline": BASELINE})
    w.host("kvm2").facts = facts(machines={"q35": ("pc-q35-6.0",)}, virtualization="qemu")
    for _ in range(3):
        await reconcile(w.context, KEY)
        w.clock.move(100)
    assert w.status(KEY)["baseline"] == BASELINE
    assert not any(c[0] == "baseline_cpu" for h in w.hosts.hosts.values() for c in h.calls)


async def test_the_user_names_the_cpu_and_only_that_changes():
    w = world("kvm1", spec={"cpu": {"model": "EPYC"}}, status={"baseline": BASELINE})
    await reconcile(w.context, KEY)
    assert w.status(KEY)["baseline"] == {**BASELINE, "cpu": {"model": "EPYC", "features": []}}
    fresh = world("kvm1", spec={"cpu": {"model": "EPYC"}})
    await reconcile(fresh.context, KEY)
    assert fresh.status(KEY)["baseline"]["cpu"]["model"] == "EPYC"
    assert not any(c[0] == "baseline_cpu" for c in fresh.hosts.hosts["kvm1"].calls)


async def test_hosts_without_a_common_cpu_or_machine_are_said():
    w = world("kvm1")
    w.hosts.hosts["kvm1"].fail["baseline_cpu"] = Refused("incompatible vendors")
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[2:] == ("True", "BaselineFailed")
    assert "spec.cpu.model" in w.condition(KEY, "Ready")[2]
    w.hosts.hosts["kvm1"].fail["baseline_cpu"] = HostTimeout("slow")
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[1] == "True"
    w.hosts.hosts["kvm1"].fail.clear()
    w.hosts.hosts["kvm1"].facts = facts(machines={})
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[3] == "NoCommonMachine"


async def test_a_host_of_another_architecture_does_not_count():
    w = world("kvm1", "kvm2", "kvm3")
    w.hosts.hosts["kvm1"].facts = facts(architecture="aarch64", machines={"virt": ("virt-7.2",)})
    await reconcile(w.context, KEY)
    assert w.status(KEY)["baseline"]["architecture"] == "x86_64"


async def test_hosts_are_counted_and_a_settled_pool_writes_nothing():
    w = world("kvm1", "kvm2", status={"baseline": BASELINE})
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["hosts"], w.status(KEY)["readyHosts"]) == (2, 0)
    assert w.standing(KEY)[3] == "NoReadyHosts"
    mark_up(w, "kvm1")
    await reconcile(w.context, KEY)
    assert (w.status(KEY)["readyHosts"], w.standing(KEY)[0]) == (1, "True")
    w.client.writes.clear()
    w.clock.move(500)
    await reconcile(w.context, KEY)
    assert w.client.writes == []


async def test_deletion_waits_for_hosts_and_vms():
    w = world("kvm1", deletionTimestamp="2026-11-20T12:00:00Z")
    spec = {"runPolicy": "Halted", "pool": "default", "memory": {"size": "1Gi"}}
    vm = w.add("VirtualMachine", "web", spec, namespace="default")
    await reconcile(w.context, KEY)
    assert w.standing(KEY)[3] == "InUse"
    assert all(word in w.condition(KEY, "Ready")[2] for word in ("kvm1", "default/web"))
    w.cache.delete(Key("Host", "", "kvm1"))
    w.cache.delete(vm)
    await reconcile(w.context, KEY)
    assert w.cache.get(KEY) is None


async def test_a_paused_pool_makes_nothing():
    w = world("kvm1", annotations={"hostler.dev/paused": "anna"})
    await reconcile(w.context, KEY)
    assert "baseline" not in w.status(KEY)
    assert w.condition(KEY, "Paused")[:2] == ("True", "Paused")


def test_the_newest_common_machine_of_each_family():
    one = facts(machines={"q35": ("q-9", "q-8", "q-7"), "pc": ("p-9",)})
    two = facts(machines={"q35": ("q-8", "q-7"), "pc": ("p-7",)})
    assert [(m.family, m.type) for m in common_machines((one, two))] == [("q35", "q-8")]
