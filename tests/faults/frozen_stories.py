"""Controllers that stand still right before a call about a volume, for as long as others need to finish with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from drivers.errors import Refused
from drivers.simulated.faults import Raise, Rule
from simulator import manifests
from simulator.flows import FILE_SOURCE, WEB_SOURCE, put_image
from simulator.manifests import Object, disk, drive, drive_of, vm
from simulator.scene import Scene
from tests.faults.freezing import FreezeOnce, hold_up
from tests.faults.stories import running, three_vms

LONG = 60.0
"""Seconds in which others make a volume whole, and start a VM from it."""
SHORT = 20.0
"""Seconds after which a request that was held up is still sent and answered within its deadline."""
TRASH_SECONDS = 120


def stopped_before(verb: str) -> Callable[[Scene], Awaitable[None]]:
    """The controller stands still for 20 s between its check and that call, with another one beside it."""

    async def story(scene: Scene) -> None:
        gate = hold_up(scene, verb, 20.0)
        await three_vms(scene)
        if not gate.done:
            raise AssertionError(f"no call of {verb} was made")

    story.__name__ = f"stopped_before_{verb}"
    return story


async def choice_stopped_before_it_is_written_down(scene: Scene) -> None:
    """The controller stands still before it writes down on which host a VM starts. The user thinks better of it, and
    another one starts the VM elsewhere.
    """
    gate = hold_up(scene, "placement", None)
    scene.apply(vm("web", drive("root"), placement={"host": "kvm1"}))
    await _frozen(gate)
    scene.edit("VirtualMachine", "web", {"placement": {"host": "kvm2"}})
    await asyncio.sleep(SHORT)
    gate.thaw()
    await scene.settled()
    if [name for name, _ in running(scene)] != ["kvm2"]:
        raise AssertionError(f"it runs on {[name for name, _ in running(scene)]}")


def import_stopped_before(verb: str, nth: int = 1) -> Callable[[Scene], Awaitable[None]]:
    """The same in an import, until VMs have run from the volumes for a while."""

    async def story(scene: Scene) -> None:
        put_image(scene)
        gate = hold_up(scene, verb, None, nth=nth)
        scene.apply(
            disk("golden", "1Gi", format="raw", source=FILE_SOURCE),
            vm("web", drive("root", source=WEB_SOURCE), drive_of("data", "golden")),
        )
        await _frozen(gate)
        await asyncio.sleep(LONG)
        gate.thaw()
        await scene.settled()

    story.__name__ = f"import_stopped_before_{verb}_{nth}"
    return story


async def blank_stopped_before_making_room(scene: Scene) -> None:
    """A controller dies with a volume half made. The next one stands still before whatever it does about that, and a
    third one goes on until a VM runs from the disk.
    """
    gate = hold_up(scene, "create_volume:record", None)
    scene.apply(vm("web", drive("root")))
    await _frozen(gate)
    scene.controller.kill()
    assert gate.process is not None
    while scene.controller is gate.process:
        await asyncio.sleep(0.01)
    gate.process.kill()
    second = hold_up(scene, "delete_volume:volume", LONG)
    await asyncio.sleep(2 * LONG)
    if second.done and not running(scene):
        raise AssertionError("the VM does not run while one controller stands still")
    await scene.settled()


async def _thrown_away(scene: Scene) -> str:
    """A Disk's volume lies in the trash: its name."""
    scene.edit("StorageDomain", "shared", {"trashSeconds": TRASH_SECONDS})
    scene.apply(disk("data", format="raw"))
    await scene.settled(quiet=5.0)
    name = next(name for name in scene.shared.files if name.endswith(".raw"))
    scene.delete("Disk", "data")
    await scene.settled(quiet=5.0)
    return name


def _taken_back(name: str) -> Object:
    return disk("back", format="raw", source={"existing": {"path": f"{manifests.SHARED}/{name}"}})


async def _had_or_refused(scene: Scene) -> None:
    """Either the Disk has the volume, or it is told that there is none any more, and its user gives up."""
    await scene.settled()
    found = scene.server.get("Disk", "back", "default")
    assert found is not None
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    if ready["status"] != "True":
        if ready["reason"] != "VolumeNotFound":
            raise AssertionError(f"the disk is not Ready: {ready['reason']}: {ready['message']}")
        scene.delete("Disk", "back")
        await scene.settled()


async def purge_stopped_before_the_volume_goes(scene: Scene) -> None:
    """The controller stands still before it removes a volume whose time in the trash is over. Somebody takes that
    volume back meanwhile.
    """
    name = await _thrown_away(scene)
    gate = hold_up(scene, "delete_volume:volume", None)
    await _frozen(gate)
    scene.apply(_taken_back(name))
    await asyncio.sleep(LONG)
    gate.thaw()
    await _had_or_refused(scene)


async def purge_stopped_before_it_is_written_down(scene: Scene) -> None:
    """The same, right before it writes down that it is about to."""
    name = await _thrown_away(scene)
    gate = hold_up(scene, "purging", None)
    await _frozen(gate)
    scene.apply(_taken_back(name))
    await asyncio.sleep(SHORT)
    gate.thaw()
    await _had_or_refused(scene)


async def take_over_stopped_while_others_purge(scene: Scene) -> None:
    """The controller stands still while it takes a volume back that is due, and the user thinks better of it."""
    name = await _thrown_away(scene)
    await asyncio.sleep(TRASH_SECONDS - 30.0)
    gate = hold_up(scene, "create_volume:record", None)
    scene.apply(_taken_back(name))
    await _frozen(gate)
    await asyncio.sleep(2 * LONG)
    gate.thaw()
    await _had_or_refused(scene)
    await asyncio.sleep(2 * TRASH_SECONDS)


async def growth_stopped_before_a_vm_starts(scene: Scene) -> None:
    """The controller stands still before it makes a volume larger that nobody uses, another one is refused that for the
    moment, and a VM is to start.
    """
    # It fills the first host: the locks of QEMU end at the machine.
    scene.apply(vm("large", drive("root"), memory={"size": "15Gi"}), vm("web", drive("root"), policy="Halted"))
    await scene.settled(quiet=20.0)
    gate = hold_up(scene, "resize_volume", None)
    refusal = Refused("qemu-img: Resource temporarily unavailable", reason="OperationFailed")
    scene.world.faults.add(Rule(Raise(refusal), method="resize_volume", nth=1))
    scene.edit("Disk", "web-root", {"size": "2Gi"})
    await _frozen(gate)
    scene.edit("VirtualMachine", "web", {"runPolicy": "Always"})
    until = scene.loop.time() + LONG
    while len(running(scene)) < 2 and scene.loop.time() < until:
        await asyncio.sleep(0.0005)
    gate.thaw()
    await scene.settled()


async def _frozen(gate: FreezeOnce) -> None:
    until = gate.scene.loop.time() + 600.0
    while not gate.done:
        if gate.scene.loop.time() > until:
            raise AssertionError(f"no call of {gate.verb} was made")
        await asyncio.sleep(0.005)
