"""What a process has open: images with QEMU's locks, the layers below them, and how its document shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.errors import Refused
from drivers.model import JobKind
from drivers.simulated import documents, layers
from drivers.simulated.breaches import Breach
from drivers.simulated.documents import to_document
from drivers.simulated.files import File
from drivers.simulated.layers import Layer
from drivers.simulated.qemu import Opened, Qemu

if TYPE_CHECKING:
    from drivers.simulated.machine import Machine


def open_image(machine: Machine, qemu: Qemu, path: str, form: str, writes: bool) -> None:
    """Have a process open an image and the layers below it, with QEMU's locks, which reach as far as this machine.

    Raises Refused with VolumeMissing, InvalidVolume or VolumeInUse.
    """
    store, name, file = machine.find(path)
    if file is None:
        raise Refused(f"Cannot access storage file '{path}': No such file or directory", reason="VolumeMissing")
    whole = layers.chain(store, name, form)
    lock(machine, qemu, path, file, writes=writes)
    for layer in whole[1:]:
        lock(machine, qemu, layer.name, layer.file, writes=False)
    qemu.open(path, Opened(store, name, file), writes=writes)
    qemu.below[path] = whole[1:]


def lock(machine: Machine, qemu: Qemu, path: str, file: File, *, writes: bool) -> None:
    """Raises Refused(VolumeInUse) when another process of this machine has the file open so that this one may not."""
    others = [other for other in machine.qemus.values() if other is not qemu]
    here = [writer for writer in file.writers if writer.machine == machine.name and writer is not qemu]
    if here or (writes and any(read is file for other in others for read in other.only_read())):
        raise Refused(f'{path}: Failed to get "write" lock', reason="VolumeInUse")


def look_for_writers(machine: Machine, qemu: Qemu) -> None:
    """Record other machines' processes that write what this one writes."""
    for opened in qemu.writes.values():
        for twin in opened.file.writers:
            if twin.machine != machine.name:
                what = f"{opened.store.name}/{opened.name}, by {twin.name} and {qemu.name}"
                machine.world.violate(Breach.TWO_WRITERS, (twin.machine, machine.name), what)


def look_for_readers(machine: Machine, qemu: Qemu, layer: Layer) -> None:
    """Record other processes that have a layer open that this one's block job writes."""
    for other in machine.world.machines.values():
        for reader in other.qemus.values():
            if reader is not qemu and any(read is layer.file for read in reader.only_read()):
                what = f"{layer.name} written by a block job of {qemu.name}, read by {reader.name}"
                machine.world.violate(Breach.CHANGED_IN_USE, (machine.name, other.name), what)


def chain(qemu: Qemu, path: str, form: str) -> tuple[Layer, ...]:
    """The layers of an image that the process has open, from the top down."""
    opened = qemu.writes.get(path) or qemu.reads[path]
    return Layer(opened.name, opened.file, form), *qemu.below.get(path, ())


def redraw(qemu: Qemu) -> None:
    """Have the document show each drive's layers, and where a block job writes."""
    root = qemu.live.root
    for disk in root.iterfind("devices/disk"):
        image, alias = documents.image(disk), documents.alias_of(disk)
        if image is None or (image[0] not in qemu.writes and image[0] not in qemu.reads):
            continue
        folder = image[0].rpartition("/")[0]
        below = [(f"{folder}/{layer.name}", layer.format) for layer in qemu.below.get(image[0], ())]
        documents.set_layers(disk, below)
        job = qemu.jobs.get(alias)
        mirrors = job is not None and job.kind is not JobKind.COMMIT
        documents.set_mirror(disk, (job.target, job.form, job.kind.value, job.ready) if job and mirrors else None)
    qemu.live = to_document(root)
