"""A VM's life over hosts in memory: what is sent, in which order, and what is made of answers that are lost.

Real hosts are the integration tests' matter; here answers can be lost at will, and every call is seen.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from drivers.errors import HostTimeout, NotFound, Refused
from drivers.model import DomainState, Identity, StopReason
from drivers.xmlread import read_domain
from engine.keys import Key
from engine.result import Failed
from reconcilers.virtual_machine import reconcile
from tests.unit.reconcilers.builders import VmBuilder, disk, storage, vm
from tests.unit.reconcilers.fakes import BASELINE, FakeHypervisor, World, domain

WEB = Key("VirtualMachine", "default", "web")
SINCE = "2026-11-20T12:00:00Z"
SCHEDULABLE = {"type": "Schedulable", "status": "True", "reason": "Schedulable", "lastTransitionTime": SINCE}
UUID = "uid-web"


class VmHost(FakeHypervisor):
    """A host with domains, as libvirt keeps them: a definition that is replaced keeps the reason of its last stop."""

    lose_start = False
    """Whether the answer to a start is lost, and the start itself is late."""

    def find(self, uuid: str) -> int:
        found = [i for i, d in enumerate(self.domains) if d.uuid == uuid]
        if not found:
            raise NotFound(uuid)
        return found[0]

    def change(self, uuid: str, **changes: Any) -> None:
        i = self.find(uuid)
        self.domains[i] = replace(self.domains[i], **changes)

    def end(self, reason: StopReason) -> None:
        self.change(UUID, state=DomainState.SHUT_OFF, stop_reason=reason)

    async def define(self, xml: str) -> None:
        self._called("define")
        uuid, name = re.search("<uuid>(.*?)</uuid>", xml), re.search("<name>(.*?)</name>", xml)
        stamp = dict(
            re.findall(r'(installation|namespace|uid|epoch|name)="(.*?)"', xml[xml.index("hostler.dev/domain") :])
        )
        sections = tuple(re.findall(r'section name="(.*?)" sha="(.*?)"', xml))
        assert uuid is not None
        assert name is not None
        identity = Identity(stamp["installation"], "default", "web", stamp["uid"], int(stamp["epoch"]))
        known = next((d for d in self.domains if d.uuid == uuid[1]), None)
        new = domain(name[1], uid=uuid[1], identity=identity, sections=sections, state=DomainState.SHUT_OFF)
        new = replace(new, devices=read_domain(xml).devices)
        new = replace(new, stop_reason=known.stop_reason if known is not None else StopReason.UNKNOWN)
        self.domains = [*(d for d in self.domains if d.uuid != uuid[1]), new]

    async def start(self, uuid: str, *, paused: bool = False) -> None:
        self._called("start", uuid)
        if self.lose_start:
            raise HostTimeout("no answer")
        self.change(uuid, state=DomainState.RUNNING, stop_reason=None)

    async def shutdown(self, uuid: str) -> None:
        self._called("shutdown", uuid)

    async def destroy(self, uuid: str) -> None:
        self._called("destroy", uuid)
        self.change(uuid, state=DomainState.SHUT_OFF, stop_reason=StopReason.DESTROYED)

    async def undefine(self, uuid: str, *, remove_nvram: bool = False) -> None:
        self._called("undefine", uuid)
        if any(d.uuid == uuid and d.state is not DomainState.SHUT_OFF for d in self.domains):
            raise Refused("it runs", reason="OperationFailed")
        self.domains = [d for d in self.domains if d.uuid != uuid]

    async def reboot(self, uuid: str) -> None:
        self._called("reboot", uuid)

    async def set_metadata(self, uuid: str, xml: str) -> None:
        self._called("set_metadata", uuid)

    def did(self) -> list[str]:
        quiet = ("refresh", "ensure_pool", "pool_info")
        return [c[0] for c in self.calls if c[0] not in quiet]


class Fleet(World):
    """Two hosts that take VMs."""

    def __init__(self, built: VmBuilder, *hosts: str) -> None:
        super().__init__()
        self.pool(status={"baseline": BASELINE})
        for name in hosts or ("kvm1", "kvm2"):
            self.hosts.hosts[name] = VmHost(name, self.clock)
            self.host(name, status={"phase": "Up", "conditions": [SCHEDULABLE]})
        self.client.put(built.raw())

    def at(self, name: str) -> VmHost:
        found = self.hosts.hosts[name]
        assert isinstance(found, VmHost)
        return found

    def edit(self, **spec: Any) -> None:
        obj = self.cache.get(WEB)
        assert obj is not None
        obj["metadata"]["generation"] += 1
        self.client.put({**obj, "spec": {**obj["spec"], **spec}})

    async def go(self) -> Any:
        return await reconcile(self.context, WEB)

    @property
    def placement(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status(WEB)["placement"]
        return found


def active(w: Fleet) -> list[str]:
    return [n for n, h in w.hosts.hosts.items() if any(d.state is DomainState.RUNNING for d in h.domains)]


async def test_a_life():
    w = Fleet(vm(policy="Always"), "kvm1")
    await w.go()
    assert w.at("kvm1").did() == ["define", "start"]
    assert w.standing(WEB) == ("True", "False", "False", "Running")
    assert w.placement == {"host": "kvm1", "epoch": 1, "candidates": ["kvm1"], "since": SINCE}
    settled = len(w.client.writes)
    await w.go()
    assert len(w.client.writes) == settled, "a settled VM writes nothing"
    w.edit(runPolicy="Halted")
    await w.go()
    assert w.at("kvm1").did()[2:] == ["shutdown"]
    assert w.standing(WEB) == ("False", "True", "False", "Stopping")
    w.at("kvm1").end(StopReason.GUEST_SHUTDOWN)
    await w.go()
    assert w.at("kvm1").domains == []
    assert w.standing(WEB) == ("True", "False", "False", "Stopped")
    assert w.placement["candidates"] == []
    assert w.placement["epoch"] == 1
    assert [reason for reason, _ in w.recorder.events] == ["Started", "ShuttingDown", "Stopped"]
    w.edit(runPolicy="Always")
    await w.go()
    assert w.placement["epoch"] == 2
    assert active(w) == ["kvm1"]


async def test_the_host_is_a_candidate_before_anything_is_sent_to_it():
    w = Fleet(vm(), "kvm1")
    seen: list[Any] = []
    define = w.at("kvm1").define

    async def watched(xml: str) -> None:
        seen.append((w.placement["candidates"], w.status(WEB)["uuid"]))
        await define(xml)

    w.at("kvm1").define = watched  # type: ignore[method-assign]
    await w.go()
    assert seen == [(["kvm1"], UUID)]


@pytest.mark.parametrize("before", ["never ran", "shut itself down"])
async def test_a_start_whose_answer_is_lost_stays_on_its_host(before):
    """Also where libvirt keeps the reason of an earlier stop for a definition that was replaced."""
    w = Fleet(vm(policy="Always"), "kvm1")
    if before == "shut itself down":
        await w.go()
        w.at("kvm1").end(StopReason.GUEST_SHUTDOWN)
    w.at("kvm1").lose_start = True
    await w.go()
    w.hosts.hosts["kvm2"] = VmHost("kvm2", w.clock)
    w.host("kvm2", status={"phase": "Up", "conditions": [SCHEDULABLE]})
    w.at("kvm1").facts = replace(w.at("kvm1").facts, cpus=0)  # type: ignore[type-var]
    for _ in range(3):
        w.clock.move(30)
        await w.go()
    assert w.at("kvm2").did() == [], "the first start may still arrive"
    assert w.placement["candidates"] == ["kvm1"]
    w.at("kvm1").change(UUID, state=DomainState.RUNNING, stop_reason=None)
    await w.go()
    assert (active(w), w.standing(WEB)[3]) == (["kvm1"], "Running")


async def test_a_start_that_was_lost_and_is_not_wanted_any_more():
    w = Fleet(vm(policy="Always"), "kvm1")
    w.at("kvm1").lose_start = True
    await w.go()
    w.edit(runPolicy="Halted")
    w.at("kvm1").fail["undefine"] = HostTimeout("no answer")
    assert isinstance(await w.go(), Failed)
    assert w.placement["candidates"] == ["kvm1"], "it is defined there, and a start may still come"
    del w.at("kvm1").fail["undefine"]
    await w.go()
    assert w.at("kvm1").domains == []
    assert w.placement["candidates"] == []


async def test_a_host_that_falls_silent_blocks_the_start_elsewhere():
    w = Fleet(vm(policy="Always"))
    await w.go()
    home = active(w)[0]
    away = "kvm2" if home == "kvm1" else "kvm1"
    w.at(home).disconnect()
    w.host(home, status={"phase": "NonResponsive"})
    await w.go()
    assert w.at(away).did() == []
    assert w.standing(WEB) == ("Unknown", "False", "True", "HostUnreachable")


async def test_a_host_that_refuses_frees_itself_and_is_tried_again_later():
    w = Fleet(vm(policy="Always"), "kvm1")
    w.at("kvm1").fail["start"] = Refused("no memory", reason="NoMemory")
    await w.go()
    assert w.at("kvm1").domains == []
    assert w.placement["candidates"] == []
    assert w.status(WEB)["startFailure"]["count"] == 1
    assert w.standing(WEB)[3] == "NoMemory"


async def test_what_an_earlier_run_left_elsewhere_is_removed():
    w = Fleet(vm(policy="Always"), "kvm1")
    await w.go()
    w.hosts.hosts["kvm2"] = VmHost("kvm2", w.clock)
    w.at("kvm2").domains = [domain("default.web", uid=UUID, state=DomainState.SHUT_OFF, stop_reason=StopReason.CRASHED)]
    w.host("kvm2", status={"phase": "Up", "conditions": [SCHEDULABLE]})
    await w.go()
    assert w.at("kvm2").domains == []
    assert active(w) == ["kvm1"]


async def test_a_reboot_is_done_once_and_said():
    w = Fleet(vm(policy="Always"), "kvm1")
    await w.go()
    w.edit(powerRequest={"id": "1", "action": "Reboot"})
    await w.go()
    await w.go()
    assert w.at("kvm1").did().count("reboot") == 1
    assert w.status(WEB)["powerRequest"]["phase"] == "Succeeded"


async def test_a_reboot_that_the_host_refuses_is_refused():
    w = Fleet(vm(policy="Always"), "kvm1")
    await w.go()
    w.at("kvm1").fail["reboot"] = Refused("no ACPI")
    w.edit(powerRequest={"id": "1", "action": "Reboot"})
    await w.go()
    await w.go()
    request = w.status(WEB)["powerRequest"]
    assert (request["phase"], request["message"]) == ("Refused", "host kvm1 refused: no ACPI")
    assert w.at("kvm1").did().count("reboot") == 1


async def test_a_reboot_whose_answer_is_lost_is_not_repeated():
    w = Fleet(vm(policy="Always"), "kvm1")
    await w.go()
    w.at("kvm1").fail["reboot"] = HostTimeout("no answer")
    w.edit(powerRequest={"id": "1", "action": "Reboot"})
    await w.go()
    del w.at("kvm1").fail["reboot"]
    await w.go()
    assert w.at("kvm1").did().count("reboot") == 1
    assert "not repeated" in w.status(WEB)["powerRequest"]["message"]


async def test_a_host_that_is_only_observed_is_not_acted_on():
    w = Fleet(vm(policy="Always"), "kvm1")
    await w.go()
    w.host("kvm1", spec={"management": "Observe"}, status={"phase": "Up", "conditions": [SCHEDULABLE]})
    w.edit(runPolicy="Halted")
    assert isinstance(await w.go(), Failed)
    assert "shutdown" not in w.at("kvm1").did()
    assert active(w) == ["kvm1"]


async def test_a_deleted_vm_is_gone_from_its_host():
    w = Fleet(vm(policy="Always", lifecycle={"shutdownTimeoutSeconds": 0}), "kvm1")
    await w.go()
    obj = w.cache.get(WEB)
    assert obj is not None
    w.client.put({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": SINCE}})
    await w.go()
    assert w.at("kvm1").domains == []
    assert w.cache.get(WEB) is None


async def test_a_paused_vm_is_neither_started_nor_stopped_nor_deleted():
    w = Fleet(vm(policy="Always").paused(), "kvm1")
    await w.go()
    assert w.at("kvm1").did() == []
    assert w.standing(WEB)[3] == "Paused"
    obj = w.cache.get(WEB)
    assert obj is not None
    w.client.put({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": SINCE}})
    await w.go()
    assert w.cache.get(WEB) is not None


async def test_a_template_that_asks_for_a_smaller_disk_is_told_so():
    template = {"size": "1Gi", "storageDomain": "fast"}
    built = vm(policy="Halted").spec(disks=[{"name": "data", "template": template}])
    w = Fleet(built, "kvm1")
    w.client.put(storage().reached_by("kvm1").raw())
    w.client.put(disk("web-data").volume("x").owned_by("web").raw())
    await w.go()
    await w.go()
    before = w.standing(WEB)
    assert before[0] == "True"
    w.edit(disks=[{"name": "data", "template": {**template, "size": "1000Mi"}}])
    await w.go()
    assert w.standing(WEB) == ("False", "False", "True", "CannotShrink")
    stalled = next(c for c in w.status(WEB)["conditions"] if c["type"] == "Stalled")
    assert all(word in stalled["message"] for word in ("drive data", "web-data", "1Gi", "template.size", "1000Mi"))
    assert w.status(WEB)["phase"] == "Stopped"
    w.edit(disks=[{"name": "data", "template": template}])
    await w.go()
    assert w.standing(WEB) == before


async def test_a_new_vm_does_not_wait_for_a_host_that_has_just_fallen_silent():
    w = Fleet(vm(policy="Always"))
    w.at("kvm1").disconnect()
    await w.go()
    assert active(w) == ["kvm2"]


async def test_a_vm_that_the_api_has_forgotten_is_remembered_of_a_host_that_has_fallen_silent():
    w = Fleet(vm(policy="Always"))
    w.at("kvm1").domains = [domain(uid=UUID)]
    w.at("kvm1").disconnect()
    await w.go()
    assert w.at("kvm2").did() == []


async def test_a_new_vm_waits_for_a_host_that_is_about_to_be_heard_of():
    w = Fleet(vm(policy="Always"))
    w.at("kvm1").never_connected()
    await w.go()
    assert w.at("kvm2").did() == []
    w.host("kvm1", status={"phase": "NonResponsive"})
    await w.go()
    assert active(w) == ["kvm2"]


async def test_a_crash_is_told_once_though_the_vm_starts_again_at_once():
    w = Fleet(vm(policy="Always"), "kvm1")
    await w.go()
    w.at("kvm1").end(StopReason.CRASHED)
    await w.go()
    await w.go()
    assert active(w) == ["kvm1"]
    ended = [message for reason, message in w.recorder.events if reason == "Ended"]
    assert ended == ["QEMU died or the guest panicked on host kvm1"]
