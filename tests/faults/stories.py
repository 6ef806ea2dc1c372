"""What happens to the controller, the API and the hosts while users go about their business."""

from __future__ import annotations

import asyncio

from drivers.simulated.faults import LoseReply, Rule
from simulator import manifests
from simulator.manifests import disk, drive, drive_of, vm
from simulator.scene import HOSTS, Scene
from tests.faults.freezing import hold_up

RESUMED = 90.0
"""Seconds in which work that was held up must have been taken up again."""


async def three_vms(scene: Scene) -> None:
    """Three VMs run: shared, host-local and separately declared disks, cloud-init."""
    scene.apply(
        disk("data", "1Gi", format="raw"),
        vm("web", drive("root"), drive_of("data", "data")),
        vm("cache", drive("scratch", "local")),
        vm("db", drive("root"), cloudInit={"userData": "#cloud-config\n"}),
    )
    await scene.settled(quiet=20.0)


def running(scene: Scene) -> dict[tuple[str, str], float]:
    """What runs where, since when."""
    return {
        (name, process.uuid): process.since
        for name, machine in scene.world.machines.items()
        for process in machine.processes()
    }


async def untouched(scene: Scene, before: dict[tuple[str, str], float]) -> None:
    """Whatever ran before runs still, and was not started anew."""
    now = running(scene)
    lost = {key for key, since in before.items() if now.get(key) != since}
    if lost:
        raise AssertionError(f"guests were touched: {lost}")


async def api_away(scene: Scene) -> None:
    """The API server is gone for ten minutes while VMs run and one is being made."""
    await three_vms(scene)
    before = running(scene)
    scene.apply(vm("late", drive("root")))
    await asyncio.sleep(0.08)
    scene.faults.away = True
    await asyncio.sleep(600.0)
    await untouched(scene, before)
    scene.faults.away = False
    await asyncio.sleep(RESUMED)
    await scene.settled()
    await untouched(scene, before)


async def api_in_trouble(scene: Scene) -> None:
    """For five minutes the API server is slow, answers with errors and loses answers."""
    await three_vms(scene)
    before = running(scene)
    scene.faults.slow = (0.0, 2.0)
    scene.faults.answers = {409: 0.15, 429: 0.1, 500: 0.15}
    scene.faults.lost_replies = 0.05
    scene.apply(vm("late", drive("root")), vm("later", drive("root", "local")))
    scene.edit("Disk", "data", {"size": "2Gi"})
    await asyncio.sleep(300.0)
    scene.faults.slow, scene.faults.answers, scene.faults.lost_replies = (0.0, 0.0), {}, 0.0
    await asyncio.sleep(RESUMED)
    await untouched(scene, before)
    await scene.settled()


async def watch_silent(scene: Scene) -> None:
    """Nothing comes over the watch any more, and nobody notices: the audit finds it within its bound."""
    await three_vms(scene)
    assert scene.controller.watch is not None
    scene.controller.watch.silent = True
    scene.apply(vm("unseen", drive("root")))
    await asyncio.sleep(330.0 + 60.0)
    if len(running(scene)) != 4:
        raise AssertionError("what the watch did not tell was not found within the bound of the audit")


async def api_set_back(scene: Scene) -> None:
    """The store is put back to before an edit, and what users want is what it was then."""
    scene.apply(vm("web", drive("root"), policy="Halted"), vm("db", drive("root"), policy="Halted"))
    await scene.settled(quiet=20.0)
    backup = scene.server.snapshot()
    wanted = dict(scene.intent)
    for name in ("web", "db"):
        scene.edit("VirtualMachine", name, {"memory": {"size": "2Gi"}})
    await scene.settled(quiet=20.0)
    scene.server.restore(backup)
    scene.intent = wanted
    assert scene.controller.watch is not None
    scene.controller.watch.cut(3.0)
    await scene.settled()


async def api_set_back_while_running(scene: Scene) -> None:
    """The store is put back to before the VMs were started: they run on, and the status is rebuilt."""
    scene.apply(vm("web", drive("root"), policy="Manual"), vm("db", drive("root"), policy="Manual"))
    await scene.settled(quiet=20.0)
    for name in ("web", "db"):
        scene.edit("VirtualMachine", name, {"powerRequest": {"id": "1", "action": "Start"}})
    backup = scene.server.snapshot()
    await scene.settled(quiet=20.0)
    before = running(scene)
    scene.server.restore(backup)
    scene.controller.kill()
    scene.restart_in(5.0)
    await scene.settled()
    await untouched(scene, before)


async def recreated(scene: Scene) -> None:
    """Every object is made anew from Git, with a new uid: nothing is destroyed, nothing is blank, nothing is left."""
    seeded = {"cloudInit": {"userData": "#cloud-config\n"}}
    scene.apply(
        disk("data", "1Gi", format="raw"),
        vm("web", drive("root"), drive_of("data", "data"), **seeded),
        vm("db", drive("root"), drive("scratch", "local")),
        vm("gone", drive("root"), **seeded),
        vm("off", drive("root"), **seeded),
    )
    await scene.settled(quiet=20.0)
    scene.edit("VirtualMachine", "off", {"runPolicy": "Halted"})
    await scene.settled(quiet=20.0)
    before = running(scene)
    files = dict(scene.volumes)
    scene.controller.kill()
    scene.server.recreate_all(("HostPool", "Host", "StorageDomain", "Network", "Disk", "VirtualMachine"))
    scene.volumes = files
    scene.restart_in(5.0)
    await scene.settled()
    await untouched(scene, before)
    scene.delete("VirtualMachine", "gone")
    scene.edit("VirtualMachine", "web", {"runPolicy": "Halted"})
    scene.edit("VirtualMachine", "off", {"runPolicy": "Always"})
    await scene.settled()


async def chosen_host_lost_while_stopped(scene: Scene) -> None:
    """The controller stands still before it writes its choice of a host down. That host is cut off, another controller
    chooses again, the host comes back, and the first controller goes on.
    """
    gate = hold_up(scene, "placement", 60.0)
    scene.apply(vm("web", drive("root")))
    while not gate.done:
        await asyncio.sleep(0.005)
    cut = [scene.world.machines[name] for name in HOSTS[:2]]
    for machine in cut:
        machine.partition()
    await asyncio.sleep(55.0)
    for machine in cut:
        machine.heal()
    await scene.settled()


async def host_cut_off_while_starting(scene: Scene) -> None:
    """A host is cut off the moment a VM has started on it: neither the answer nor the event comes through."""
    scene.apply(vm("web", drive("root")))
    while not running(scene):
        await asyncio.sleep(0.0005)
    cut = [machine for machine in scene.world.machines.values() if machine.processes()]
    for machine in cut:
        machine.partition()
    await asyncio.sleep(90.0)
    for machine in cut:
        machine.heal()
    await asyncio.sleep(30.0)
    await scene.settled()


async def volume_gone(scene: Scene) -> None:
    """A volume vanishes while its VM is off; somebody brings it back after a while."""
    scene.apply(vm("web", drive("root"), policy="Halted"))
    await scene.settled(quiet=20.0)
    name, file = next((name, file) for name, file in scene.shared.files.items() if name.endswith(".qcow2"))
    del scene.shared.files[name]
    scene.edit("VirtualMachine", "web", {"runPolicy": "Always"})
    await asyncio.sleep(700.0)
    if name in scene.shared.files:
        raise AssertionError("a blank volume was made in the place of one that is gone")
    scene.shared.files[name] = file
    await asyncio.sleep(700.0)
    await scene.settled()


async def share_not_mounted(scene: Scene) -> None:
    """The share is not mounted on two of three hosts while disks are made, and comes back."""
    await three_vms(scene)
    for name in HOSTS[:2]:
        scene.world.machines[name].unmount(manifests.SHARED)
    scene.apply(vm("new", drive("root")), disk("blank"))
    await asyncio.sleep(120.0)
    for name in HOSTS[:2]:
        inside = scene.world.machines[name].mounts[manifests.SHARED].files
        if inside:
            raise AssertionError(f"on {name} files were made under a path that is not mounted: {sorted(inside)}")
        scene.world.machines[name].mount(manifests.SHARED, scene.shared)
    await scene.settled()


async def taken_over_from_another(scene: Scene) -> None:
    """A Disk names the volume of another Disk, which a VM uses, and is deleted again."""
    scene.apply(vm("web", drive("root"), policy="Halted"))
    await scene.settled(quiet=20.0)
    name = next(name for name in scene.shared.files if name.endswith(".qcow2"))
    scene.apply(disk("thief", source={"existing": {"path": f"{manifests.SHARED}/{name}"}}, deletionPolicy="Delete"))
    await scene.settled(quiet=20.0)
    scene.delete("Disk", "thief")
    await scene.settled(quiet=20.0)
    scene.edit("VirtualMachine", "web", {"runPolicy": "Always"})
    await scene.settled()


async def start_is_not_answered(scene: Scene) -> None:
    """A start takes effect, and its answer never comes."""
    rules = [scene.world.faults.add(Rule(LoseReply(), method="start", nth=number)) for number in (1, 2)]
    await three_vms(scene)
    await asyncio.sleep(120.0)
    for rule in rules:
        scene.world.faults.remove(rule)
    await scene.settled()


async def host_hangs_while_starting(scene: Scene) -> None:
    """The daemons of two hosts stop for a minute while VMs are started."""
    scene.apply(*(vm(f"v{number}", drive("root")) for number in range(4)))
    await asyncio.sleep(0.5)
    for name in HOSTS[:2]:
        scene.world.machines[name].hang()
    await asyncio.sleep(60.0)
    for name in HOSTS[:2]:
        scene.world.machines[name].resume()
    await scene.settled()
