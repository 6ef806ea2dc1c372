"""What users do, as flows in which every crash point is found: given, when. What must come of it the oracle knows.

A new operation is a new Flow here, and nothing else.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from drivers.simulated.files import File
from drivers.simulated.sparse import SparseBytes
from simulator.manifests import Object, cdrom, disk, drive, drive_of, vm
from simulator.scene import Scene
from simulator.web import HOST

IMAGE = b"\xeb\x3c" + bytes(range(256)) * 1024
"""A raw image: not large, and no two blocks of it are alike to a checksum."""


Act = Callable[[Scene], None]


@dataclass(frozen=True)
class Flow:
    """Something that users do."""

    name: str
    when: tuple[Act, ...]
    """What they do, in any order and at any pace (the seed's); the crash points are those from here on."""
    given: tuple[Act, ...] = ()
    """What is there before, and at rest."""
    writes: int = 120
    """Changes of objects by one controller that this may take at most, without a crash."""


def _apply(obj: Object) -> Act:
    return lambda scene: scene.apply(obj)


def _edit(kind: str, name: str, spec: Object) -> Act:
    return lambda scene: scene.edit(kind, name, spec)


def _delete(kind: str, name: str, propagation: str | None = None) -> Act:
    return lambda scene: scene.delete(kind, name, propagation=propagation)


HOLD = "example.org/backup"


def _held(obj: Object) -> Act:
    """Applied, and at once held by somebody else's finalizer."""

    def act(scene: Scene) -> None:
        scene.apply(obj)
        scene.hold(obj["kind"], obj["metadata"]["name"], HOLD)

    return act


UEFI = {"type": "UEFI"}


def _three_vms(policy: str = "Always") -> tuple[Act, ...]:
    return (
        _apply(disk("data", "1Gi", format="raw")),
        _held(vm("web", drive("root"), drive_of("data", "data"), policy=policy, firmware=UEFI)),
        _apply(vm("cache", drive("scratch", "local"), policy=policy)),
        _apply(vm("db", drive("root"), policy=policy, cloudInit={"userData": "#cloud-config\n"})),
    )


def put_image(scene: Scene) -> None:
    """Have an image lie on the shared storage, which nobody made, and on a web server."""
    scene.shared.create("image.raw", File(SparseBytes(IMAGE)))
    scene.web.files["/image.raw"] = IMAGE


_CHECKSUM = f"sha256:{hashlib.sha256(IMAGE).hexdigest()}"
FILE_SOURCE = {"file": {"path": "image.raw", "checksum": _CHECKSUM}}
WEB_SOURCE = {"http": {"url": f"http://{HOST}/image.raw", "checksum": _CHECKSUM}}


def _given_up(scene: Scene) -> None:
    """A Disk whose user thinks better of it while its image is on its way."""
    scene.apply(disk("dropped", "1Gi", source=WEB_SOURCE))
    scene.after(random.Random(f"given up {scene.seed}").uniform(0.0, 6.0), lambda: scene.delete("Disk", "dropped"))


def _drives(name: str, *drives: Object) -> Act:
    return _edit("VirtualMachine", name, {"disks": list(drives)})


def _held_by_the_guest(scene: Scene) -> None:
    scene.lock_tray("web", "media")
    _drives("web", drive("root"), cdrom("media", "two"))(scene)


def _taken_out_and_deleted(scene: Scene) -> None:
    _drives("old", drive("root"))(scene)
    scene.delete("Disk", "three")


FLOWS = {
    flow.name: flow
    for flow in (
        Flow("create", when=_three_vms()),
        Flow(
            "start",
            given=_three_vms("Halted"),
            when=(
                _edit("VirtualMachine", "web", {"runPolicy": "Always"}),
                _edit(
                    "VirtualMachine", "cache", {"powerRequest": {"id": "1", "action": "Start"}, "runPolicy": "Manual"}
                ),
                _edit("VirtualMachine", "db", {"runPolicy": "RerunOnFailure"}),
            ),
        ),
        Flow(
            "stop",
            given=_three_vms(),
            when=(
                _edit("VirtualMachine", "web", {"runPolicy": "Halted"}),
                _edit("VirtualMachine", "cache", {"powerRequest": {"id": "1", "action": "ForceOff"}}),
                _edit("VirtualMachine", "db", {"powerRequest": {"id": "1", "action": "Shutdown"}}),
            ),
        ),
        Flow(
            "delete",
            given=_three_vms(),
            when=(
                _delete("VirtualMachine", "web", propagation="Foreground"),
                lambda scene: scene.release("VirtualMachine", "web"),
                _delete("VirtualMachine", "cache"),
                _delete("Disk", "data"),
                _delete("VirtualMachine", "db"),
            ),
        ),
        Flow(
            "import",
            given=(put_image,),
            when=(
                _apply(disk("golden", "1Gi", format="raw", source=FILE_SOURCE)),
                _apply(vm("web", drive("root", source=WEB_SOURCE), drive_of("data", "golden"))),
                _given_up,
            ),
        ),
        Flow(
            "grow",
            given=(*_three_vms(), _edit("VirtualMachine", "db", {"runPolicy": "Halted"})),
            when=(
                _edit("Disk", "data", {"size": "2Gi"}),
                _edit("Disk", "cache-scratch", {"size": "3Gi"}),
                _edit("Disk", "db-root", {"size": "2Gi"}),
                _edit("VirtualMachine", "db", {"runPolicy": "Always"}),
            ),
        ),
        Flow(
            "medium",
            given=(
                *(_apply(disk(name, format="raw")) for name in ("one", "two", "three")),
                _apply(vm("web", drive("root"), cdrom("media", "one"))),
                _apply(vm("cache", drive("scratch", "local"))),
                _apply(vm("db", drive("root"), cdrom("media"), cdrom("more", "two"))),
                _apply(vm("old", drive("root"), cdrom("media", "three"))),
            ),
            when=(
                _held_by_the_guest,
                # The first SCSI drive brings its controller; the medium of a drive that was plugged in is changed.
                _drives("cache", drive("scratch", "local"), cdrom("late", "one")),
                _drives("cache", drive("scratch", "local"), cdrom("late", "two")),
                _drives("db", drive("root"), cdrom("media", "one"), cdrom("more", "two")),
                _drives("db", drive("root"), cdrom("media")),
                _taken_out_and_deleted,
            ),
        ),
    )
}
