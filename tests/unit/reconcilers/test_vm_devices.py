"""Devices of a running VM follow its spec, by what is seen in its domain; what is refused is remembered and said."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.errors import HypervisorError, NotFound, Refused
from drivers.model import DeviceObservation, DomainState
from drivers.xmlread import parse_document, read_domain
from engine.result import RequeueAfter
from reconcilers.storage_domain.marker import Marker
from tests.unit.reconcilers.builders import disk, storage, vm
from tests.unit.reconcilers.fakes import INSTALLATION, Directory, World
from tests.unit.reconcilers.test_vm_reconcile import SCHEDULABLE, UUID, WEB, Fleet, VmHost

LOCKED = Refused("timed out waiting to open tray of 'sda'", reason="TrayLocked")
NO_TRAY = Refused("Tray of device 'ua-disk-cd' is not open", reason="NoTray")
ROOT = {"name": "root", "diskRef": {"name": "root"}}
OTHER = {"name": "other", "type": "cdrom"}


class DeviceHost(VmHost):
    """A host whose domains' devices can be changed while they run."""

    @property
    def devices(self) -> dict[str, str | None]:
        """Alias → image of the domain's drives."""
        found = self.domains[0].devices
        return {device.alias: device.source for device in found if device.alias.startswith("ua-disk-")}

    def put(self, *devices: DeviceObservation) -> None:
        aliases = {device.alias for device in devices}
        self.change(UUID, devices=(*(d for d in self.domains[0].devices if d.alias not in aliases), *devices))

    def take(self, alias: str) -> None:
        self.change(UUID, devices=tuple(d for d in self.domains[0].devices if d.alias != alias))

    async def attach_device(self, uuid: str, xml: str) -> None:
        device = _read(xml)
        self._called("attach_device", device.alias)
        if device.alias not in {d.alias for d in self.domains[self.find(uuid)].devices}:
            self.put(device)

    async def detach_device(self, uuid: str, alias: str) -> None:
        self._called("detach_device", alias)
        self.take(alias)

    async def update_device(self, uuid: str, xml: str, *, force: bool = False) -> None:
        device = _read(xml)
        self.calls.append(("update_device", device.alias, "by force" if force else "politely"))
        if not force and "update_device" in self.fail:
            raise self.fail["update_device"]
        if device.alias not in {d.alias for d in self.domains[self.find(uuid)].devices}:
            raise NotFound("target sda doesn't exist.")
        self.put(device)

    async def set_metadata(self, uuid: str, xml: str) -> None:
        self._called("set_metadata", uuid)
        stamp = parse_document(xml)
        sections = tuple((str(s.get("name")), str(s.get("sha"))) for s in stamp)
        self.change(uuid, sections=sections)

    def changes(self) -> list[tuple[str, ...]]:
        return [call for call in self.calls if call[0].endswith("_device")]


def _read(xml: str) -> DeviceObservation:
    return read_domain(f"<domain><devices>{xml}</devices></domain>").devices[0]


async def running(*drives: dict[str, Any]) -> tuple[Fleet, DeviceHost]:
    """A VM that runs with these drives beside its root, and Disks for it."""
    w = Fleet(vm(policy="Always").spec(disks=[ROOT, *drives]), "kvm1")
    w.client.put(storage().reached_by("kvm1").status(id=INSTALLATION).raw())
    for name in ("root", "one", "two"):
        w.client.put(disk(name, format="raw").volume(f"{name}.raw").raw())
    host = w.hosts.hosts["kvm1"] = DeviceHost("kvm1", w.clock)
    w.host("kvm1", status={"phase": "Up", "conditions": [SCHEDULABLE]})
    marker = Marker(INSTALLATION, INSTALLATION, "fast", "Shared", None, "nonce", "2026-11-20T12:00:00Z")
    host.directories["/srv/vms"] = Directory({"hostler-domain.json": marker.encode()})
    await w.go()
    assert w.standing(WEB)[3] == "Running"
    host.calls.clear()
    return w, host


def cd(medium: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"name": "cd", "type": "cdrom", **({"diskRef": {"name": medium}} if medium else {}), **fields}


def events(w: World, reason: str) -> int:
    assert hasattr(w.recorder, "events")
    return [name for name, _ in w.recorder.events].count(reason)


def path(name: str) -> str:
    return f"/srv/vms/{name}.raw"


async def declare(w: Fleet, *drives: dict[str, Any]) -> Any:
    w.edit(disks=[ROOT, *drives])
    return await w.go()


async def test_a_medium_is_put_in_changed_and_taken_out():
    w, host = await running(cd())
    for medium in ("one", "two", None):
        await declare(w, cd(medium))
        assert host.devices["ua-disk-cd"] == (path(medium) if medium else None)
        assert w.standing(WEB) == ("True", "False", "False", "Running")
    assert host.changes() == [("update_device", "ua-disk-cd", "politely")] * 3
    await w.go()
    assert len(host.changes()) == 3, "settled"


async def test_a_drive_comes_with_its_controller_and_goes():
    w, host = await running()
    await declare(w, cd("one"))
    assert host.changes() == [("attach_device", "ua-scsi"), ("attach_device", "ua-disk-cd")]
    assert host.devices["ua-disk-cd"] == path("one")
    await declare(w)
    assert host.changes()[2:] == [("detach_device", "ua-disk-cd")]
    assert w.condition(WEB, "RestartRequired")[0] == "False"


async def test_what_somebody_did_behind_our_back_is_undone():
    w, host = await running(cd("one"))
    host.put(DeviceObservation("ua-disk-cd", None, source="/elsewhere.iso"))
    host.put(DeviceObservation("ua-disk-late", "drive:0:0:0:5", source=path("two")))
    await w.go()
    assert host.devices == {"ua-disk-root": path("root"), "ua-disk-cd": path("one")}
    host.take("ua-disk-cd")
    await w.go()
    assert host.devices["ua-disk-cd"] == path("one")


async def test_a_drive_whose_tray_is_not_known_is_replaced():
    w, host = await running(cd("one"))
    host.fail["update_device"] = NO_TRAY
    await declare(w, cd("two"))
    assert [call[0] for call in host.changes()] == ["update_device", "detach_device", "attach_device"]
    assert host.devices["ua-disk-cd"] == path("two")
    assert w.standing(WEB)[3] == "Running"


async def test_a_drive_that_was_being_replaced_when_we_died_is_put_back():
    w, host = await running(cd("one"))
    host.take("ua-disk-cd")
    await declare(w, cd("two"))
    assert host.changes() == [("attach_device", "ua-disk-cd")]
    assert host.devices["ua-disk-cd"] == path("two")


async def test_a_guest_that_holds_the_tray_is_asked_for_half_a_minute_and_then_forced():
    w, host = await running(cd("one"))
    host.fail["update_device"] = LOCKED
    began = w.clock.monotonic()
    result = await declare(w, cd("two"))
    while host.devices["ua-disk-cd"] == path("one"):
        assert w.standing(WEB) == ("False", "True", "False", "TrayLocked")
        assert "drive cd" in w.condition(WEB, "Ready")[2]
        assert isinstance(result, RequeueAfter)
        assert w.clock.monotonic() - began < 60
        w.clock.move(result.seconds)
        result = await w.go()
    assert w.clock.monotonic() - began == pytest.approx(30, abs=0.1)
    how = [call[2] for call in host.changes()]
    assert how == ["politely"] * 6 + ["by force"]
    assert (events(w, "MediumForced"), events(w, "ChangeRefused")) == (1, 0)
    assert w.standing(WEB) == ("True", "False", "False", "Running")


async def test_a_guest_that_lets_go_is_not_forced_and_begins_anew_the_next_time():
    w, host = await running(cd("one"))
    host.fail["update_device"] = LOCKED
    await declare(w, cd("two"))
    w.clock.move(29)
    await declare(w, cd("one"))
    assert w.standing(WEB)[3] == "Running", "it is as declared again"
    w.clock.move(5)
    await declare(w, cd("two"))
    assert [call[2] for call in host.changes()] == ["politely"] * 2
    del host.fail["update_device"]
    w.clock.move(5)
    await w.go()
    assert host.devices["ua-disk-cd"] == path("two")
    assert events(w, "MediumForced") == 0


async def test_another_run_of_the_vm_has_another_guest():
    w, host = await running(cd("one"))
    host.fail["update_device"] = LOCKED
    await declare(w, cd("two"))
    assert w.context.plugging[WEB].trays
    host.change(UUID, state=DomainState.SHUT_OFF)
    await declare(w, cd("two"))
    assert not w.context.plugging.get(WEB) or not w.context.plugging[WEB].trays


async def test_what_cannot_be_plugged_in_waits_for_a_restart_and_is_tried_once():
    w, host = await running(OTHER)
    host.fail["attach_device"] = Refused("an empty drive", reason="NoHotPlug")
    await declare(w, OTHER, cd())
    assert w.standing(WEB) == ("True", "False", "False", "Running")
    assert w.condition(WEB, "RestartRequired")[0] == "True"
    assert "disk-cd" in w.condition(WEB, "RestartRequired")[2]
    tries = len(host.changes())
    await w.go()
    assert len(host.changes()) == tries
    del host.fail["attach_device"]
    await declare(w, OTHER, cd("one"))
    assert host.devices["ua-disk-cd"] == path("one"), "with a medium it can be"
    assert w.condition(WEB, "RestartRequired")[0] == "False"


@pytest.mark.parametrize("error", [Refused("no room"), NotFound("target sda doesn't exist.")])
async def test_a_drive_that_cannot_be_attached_keeps_the_vm_from_being_ready(error: HypervisorError):
    w, host = await running()
    host.fail["attach_device"] = error
    await declare(w, cd("one"))
    assert w.standing(WEB) == ("False", "True", "False", "ChangeRefused")
    assert error.message in w.condition(WEB, "Ready")[2]
    assert w.status(WEB)["phase"] == "Running"
    w.clock.move(121)
    await w.go()
    assert w.standing(WEB) == ("False", "True", "True", "ChangeRefused")
    del host.fail["attach_device"]
    await w.go()
    assert w.standing(WEB) == ("True", "False", "False", "Running")


async def test_a_declared_drive_that_is_not_there_keeps_the_vm_from_being_ready():
    w, host = await running(cd("one"))
    await declare(w, cd("none"))
    assert w.standing(WEB) == ("False", "False", "True", "DiskNotFound")
    assert w.status(WEB)["phase"] == "Running"
    assert host.changes() == []
    await declare(w, cd("one"))
    assert w.standing(WEB) == ("True", "False", "False", "Running")


async def test_a_domain_in_maintenance_takes_nothing_from_a_vm_that_has_it_all():
    w, _ = await running(cd("one"))
    w.client.put(storage(mode="Maintenance").reached_by("kvm1").raw())
    await w.go()
    assert w.standing(WEB) == ("True", "False", "False", "Running")
    assert "maintenance" in w.condition(WEB, "Ready")[2]
    await declare(w, cd("two"))
    assert w.standing(WEB) == ("False", "False", "True", "StorageMaintenance")
