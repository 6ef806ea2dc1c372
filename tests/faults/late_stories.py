"""What comes too late: a machine in another's place, a call that was decided on before all was different, two who want
one disk at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from drivers.errors import Refused
from drivers.simulated.faults import Delay, Raise, Rule
from simulator import manifests
from simulator.doors import Call, Send
from simulator.flows import WEB_SOURCE
from simulator.manifests import disk, drive, drive_of, vm
from simulator.scene import Scene
from tests.faults.freezing import FreezeOnce, hold_up
from tests.faults.stories import running


async def _until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not what():
        if asyncio.get_running_loop().time() > end:
            raise AssertionError("it never came to that")
        await asyncio.sleep(0.01)


def _machines(scene: Scene) -> list[str]:
    return [name for name, _ in running(scene)]


# Another machine


async def _vm_beside_a_spare_machine(scene: Scene) -> str:
    """A VM runs on Host kvm1, whose uri is returned; kvm9 is a machine that no Host leads to."""
    spare = scene.world.machine("kvm9", cpus=8, memory=2**34)
    spare.mount(manifests.SHARED, scene.shared)
    spare.mount(manifests.LOCAL, scene.world.store("kvm9-local", capacity=2**38))
    scene.apply(vm("web", drive("root"), placement={"host": "kvm1"}))
    await scene.settled(quiet=20.0)
    return str(scene.server.get("Host", "kvm1", "")["spec"]["uri"])


async def host_is_another_machine(scene: Scene) -> None:
    """A Host's address is changed to another machine while a VM runs on the one of before, and back an hour later."""
    uri = await _vm_beside_a_spare_machine(scene)
    scene.edit("Host", "kvm1", {"uri": "qemu+tcp://kvm9/system"})
    await asyncio.sleep(3600.0)
    ready = next(c for c in scene.server.get("Host", "kvm1", "")["status"]["conditions"] if c["type"] == "Ready")
    if ready["reason"] != "AnotherMachine":
        raise AssertionError(f"the Host says {ready}")
    if _machines(scene) != ["kvm1"]:
        raise AssertionError(f"it runs on {_machines(scene)}")
    scene.edit("Host", "kvm1", {"uri": uri})


async def host_is_replaced(scene: Scene) -> None:
    """The same, and no VM has a place there any more: the Host is that machine from then on."""
    uri = await _vm_beside_a_spare_machine(scene)
    scene.edit("VirtualMachine", "web", {"runPolicy": "Halted"})
    await scene.settled(quiet=20.0)
    scene.edit("Host", "kvm1", {"uri": "qemu+tcp://kvm9/system"})
    await asyncio.sleep(60.0)
    scene.edit("VirtualMachine", "web", {"runPolicy": "Always"})
    await scene.settled()
    if _machines(scene) != ["kvm9"]:
        raise AssertionError(f"it runs on {_machines(scene)}")
    # And back: a Host has the name of its machine where it is judged.
    scene.edit("VirtualMachine", "web", {"runPolicy": "Halted"})
    await scene.settled(quiet=20.0)
    scene.edit("Host", "kvm1", {"uri": uri})
    await asyncio.sleep(60.0)
    scene.edit("VirtualMachine", "web", {"runPolicy": "Always"})


# A start that was decided on before all was different


async def halted_and_started_elsewhere(scene: Scene) -> None:
    """A controller stands still before it defines a domain. The user halts the VM, and starts it on another host."""
    gate = hold_up(scene, "define", None)
    scene.apply(vm("web", drive("root"), placement={"host": "kvm1"}))
    await _until(lambda: gate.done)
    scene.edit("VirtualMachine", "web", {"runPolicy": "Halted"})
    await asyncio.sleep(5.0)
    scene.edit("VirtualMachine", "web", {"runPolicy": "Always", "placement": {"host": "kvm2"}})
    await _until(lambda: _machines(scene) == ["kvm2"])
    gate.thaw()


async def refused_and_started_elsewhere(scene: Scene) -> None:
    """A controller stands still before it defines a domain; another one is refused there, and goes elsewhere."""
    gate = hold_up(scene, "define", None)
    scene.apply(vm("web", drive("root")))
    await _until(lambda: gate.done)
    placed = scene.server.get("VirtualMachine", "web", "default")["status"]["placement"]["host"]
    refusal = Refused("cannot set up guest memory: Cannot allocate memory", reason="NoMemory")
    scene.world.faults.add(rule := Rule(Raise(refusal), method="start", machine=placed))
    await _until(lambda: rule.fired > 0)
    scene.edit("Host", placed, {"mode": "Cordoned"})
    await _until(lambda: bool(running(scene)))
    scene.world.faults.remove(rule)
    gate.thaw()
    await asyncio.sleep(5.0)
    scene.edit("Host", placed, {"mode": "Active"})


async def died_and_started_elsewhere(scene: Scene) -> None:
    """A QEMU died; a controller stands still before it removes what was left defined there, to start anew there."""
    scene.apply(vm("web", drive("root"), placement={"host": "kvm1"}))
    await scene.settled(quiet=20.0)
    gate = hold_up(scene, "undefine", None)
    machine = scene.world.machines["kvm1"]
    machine.kill_qemu(machine.processes()[0].uuid)
    await _until(lambda: gate.done)
    scene.edit("VirtualMachine", "web", {"placement": {"host": "kvm2"}})
    await _until(lambda: _machines(scene) == ["kvm2"])
    gate.thaw()


async def deleted_before_it_was_defined(scene: Scene) -> None:
    """A controller stands still before it defines a domain, and the user deletes the VM."""
    scene.edit("StorageDomain", "shared", {"trashSeconds": 3600})
    await scene.settled(quiet=3.0)
    gate = hold_up(scene, "define", None)
    scene.apply(vm("web", drive("root")))
    await _until(lambda: gate.done)
    scene.delete("VirtualMachine", "web")
    await _until(lambda: scene.server.get("VirtualMachine", "web", "default") is None)
    await asyncio.sleep(2.0)
    gate.thaw()
    await asyncio.sleep(60.0)


# Two who want one disk at once


class _FreezeWhen(FreezeOnce):
    """Before the first such call once something holds."""

    def __init__(self, scene: Scene, verb: str, holds: Callable[[], bool]) -> None:
        super().__init__(scene, verb, None)
        self._holds = holds

    async def enter(self, call: Call, send: Send) -> None:
        if self._holds():
            await super().enter(call, send)
        else:
            send(0.0, _nothing)


async def one_disk_and_two_vms(scene: Scene) -> None:
    """A controller stands still before it writes down a place for one VM; another one starts the other VM meanwhile,
    from the same disk.
    """
    scene.apply(
        disk("data", format="raw"), vm("a", drive("root"), drive_of("data", "data"), placement={"host": "kvm2"})
    )
    await scene.settled(quiet=20.0)
    scene.apply(vm("b", drive("root"), drive_of("data", "data"), placement={"host": "kvm1"}))
    await scene.settled(quiet=20.0)

    def is_free() -> bool:
        placement = scene.server.get("VirtualMachine", "a", "default")["status"]["placement"]
        return not placement.get("host") and not placement.get("candidates")

    scene.controller.gate.inner = gate = _FreezeWhen(scene, "placement", is_free)
    # The one goes off, so the other may start now. Then its user starts the one again.
    scene.edit("VirtualMachine", "a", {"runPolicy": "Halted"})
    await _until(lambda: gate.done)
    scene.edit("VirtualMachine", "a", {"runPolicy": "Always"})
    await _until(lambda: bool(running(scene)))
    await asyncio.sleep(2.0)
    gate.thaw()
    await asyncio.sleep(30.0)
    if len(running(scene)) != 1:
        raise AssertionError(f"{len(running(scene))} VMs run from one disk")
    scene.delete("VirtualMachine", "b")


def import_call_is_late(method: str, nth: int) -> Callable[[Scene], Awaitable[None]]:
    """One call of an import takes effect long after its deadline; the same controller has gone on meanwhile."""

    async def story(scene: Scene) -> None:
        image = bytes(range(256)) * 8192
        scene.web.files["/image.raw"] = image
        scene.edit("StorageDomain", "shared", {"bandwidthPerSecond": "256Ki"})
        await scene.settled(quiet=3.0)
        source = {"http": {**WEB_SOURCE["http"], "checksum": f"sha256:{hashlib.sha256(image).hexdigest()}"}}
        scene.world.faults.add(rule := Rule(Delay(500.0), method=method, nth=nth))
        scene.apply(vm("web", drive("root", format="raw", source=source)))
        await asyncio.sleep(800.0)
        if not rule.fired:
            raise AssertionError(f"there were {rule.seen} calls of {method}")

    story.__name__ = f"import_{method}_{nth}_is_late"
    return story


def _nothing() -> None:
    """Nobody waits for it."""
