"""What users do, as flows in which every crash point is found: given, when. What must come of it the oracle knows.

A new operation is a new Flow here, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.simulated.files import File
from drivers.simulated.sparse import SparseBytes
from simulator.manifests import disk, drive, drive_of, vm
from simulator.scene import Scene

IMAGE = b"\xeb\x3c" + bytes(range(256)) * 1024
"""A raw image: not large, and no two blocks of it are alike to a checksum."""


@dataclass(frozen=True)
class Flow:
    """Something that users do."""

    name: str
    when: Callable[[Scene], None]
    """What they do; the crash points are those from here on."""
    given: Callable[[Scene], None] = field(default=lambda scene: None)
    """What is there before, and at rest."""
    writes: int = 120
    """Changes of objects by one controller that this may take at most, without a crash."""


def _three_vms(scene: Scene, policy: str = "Always") -> None:
    scene.apply(
        disk("data", "1Gi", format="raw"),
        vm("web", drive("root"), drive_of("data", "data"), policy=policy),
        vm("cache", drive("scratch", "local"), policy=policy),
        vm("db", drive("root"), policy=policy, cloudInit={"userData": "#cloud-config\n"}),
    )


def _start(scene: Scene) -> None:
    scene.edit("VirtualMachine", "web", {"runPolicy": "Always"})
    scene.edit("VirtualMachine", "cache", {"powerRequest": {"id": "1", "action": "Start"}, "runPolicy": "Manual"})
    scene.edit("VirtualMachine", "db", {"runPolicy": "RerunOnFailure"})


def _stop(scene: Scene) -> None:
    scene.edit("VirtualMachine", "web", {"runPolicy": "Halted"})
    scene.edit("VirtualMachine", "cache", {"powerRequest": {"id": "1", "action": "ForceOff"}})
    scene.edit("VirtualMachine", "db", {"powerRequest": {"id": "1", "action": "Shutdown"}})


def _delete(scene: Scene) -> None:
    scene.delete("VirtualMachine", "web", propagation="Foreground")
    scene.delete("VirtualMachine", "cache")
    scene.delete("Disk", "data")
    scene.delete("VirtualMachine", "db")


def _image(scene: Scene) -> None:
    scene.shared.create("image.raw", File(SparseBytes(IMAGE)))


def _import(scene: Scene) -> None:
    source = {"file": {"path": "image.raw", "checksum": f"sha256:{hashlib.sha256(IMAGE).hexdigest()}"}}
    scene.apply(
        disk("golden", "1Gi", format="raw", source=source),
        vm("web", drive("root", source=source), drive_of("data", "golden")),
    )


def _one_of_three_off(scene: Scene) -> None:
    _three_vms(scene)
    scene.edit("VirtualMachine", "db", {"runPolicy": "Halted"})


def _grow(scene: Scene) -> None:
    scene.edit("Disk", "data", {"size": "2Gi"})
    scene.edit("Disk", "cache-scratch", {"size": "3Gi"})
    scene.edit("Disk", "db-root", {"size": "2Gi"})


FLOWS = {
    flow.name: flow
    for flow in (
        Flow("create", when=_three_vms),
        Flow("start", given=lambda scene: _three_vms(scene, "Halted"), when=_start),
        Flow("stop", given=_three_vms, when=_stop),
        Flow("delete", given=_three_vms, when=_delete),
        Flow("import", given=_image, when=_import),
        Flow("grow", given=_one_of_three_off, when=_grow),
    )
}
