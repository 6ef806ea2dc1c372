"""Chains of images: what they show together, and how a layer is written and moved into the one below. Pure, but for the
files that they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from drivers.errors import Refused
from drivers.overlays import Backing
from drivers.simulated import qcow2
from drivers.simulated.files import File, Store
from drivers.simulated.sparse import BLOCK, SparseBytes

_DEEPEST = 200
"""Layers that QEMU follows."""


class Layer(NamedTuple):
    """One image of a chain."""

    name: str
    """In its store."""
    file: File
    format: str


def chain(store: Store, name: str, form: str) -> tuple[Layer, ...]:
    """The image of that name and all below it, from the top down. form: how the topmost one is to be read.

    Raises Refused with VolumeMissing or InvalidVolume, as libvirt does before it starts a domain.
    """
    layers: list[Layer] = []
    while len(layers) < _DEEPEST:
        file = store.files.get(name)
        if file is None:
            raise Refused(f"Cannot access backing file '{name}': No such file or directory", reason="VolumeMissing")
        if form == "qcow2" and file.format != "qcow2":
            raise Refused(f"{name}: Image is not in qcow2 format", reason="InvalidVolume")
        layers.append(Layer(name, file, form))
        below = qcow2.backing(file.content) if form == "qcow2" else None
        if below is None:
            return tuple(layers)
        if "/" in below.name or not below.format:
            raise Refused(
                f"format of backing image '{below.name}' was not specified, or it is in another folder, which is not "
                "simulated",
                reason="InvalidVolume",
            )
        name, form = below
    raise Refused(f"{name}: too many layers", reason="InvalidVolume")


def shown(layers: Sequence[Layer], until: int | None = None) -> SparseBytes:
    """What a guest sees (of its first `until` bytes at least), not to be changed. Raises Refused."""
    below: SparseBytes | None = None
    for layer in reversed(layers):
        below = layer.file.content if layer.format == "raw" else layer.file.shown(until, below)
    return SparseBytes() if below is None else below


def write(store: Store, layers: Sequence[Layer], offset: int, data: bytes) -> None:
    """Write into the topmost layer as a guest does. Raises StorageFull, and then nothing more is written."""
    leaf = layers[0]
    if leaf.format == "raw":
        store.write(leaf.file, offset, data)
        return
    done = 0
    while done < len(data):
        number, begin = divmod(offset + done, BLOCK)
        piece = data[done : done + BLOCK - begin]
        place = qcow2.place_of(leaf.file.content, number)
        if place is None:
            block = _block(layers, number)
            own = qcow2.own_blocks(leaf.file.content)
            own[number] = (block[:begin] + piece + block[begin + len(piece) :]).rstrip(b"\0")
            _put(store, leaf.file, own, leaf.file.capacity)
        else:
            store.write(leaf.file, place + begin, piece)
        done += len(piece)


def _block(layers: Sequence[Layer], number: int) -> bytes:
    """What a guest sees of one block."""
    for layer in layers:
        if layer.format == "raw":
            return layer.file.content.read(number * BLOCK, BLOCK).ljust(BLOCK, b"\0")
        block = qcow2.own_block(layer.file.content, number)
        if block is not None:
            return block
    return bytes(BLOCK)


def own_bytes(layers: Sequence[Layer]) -> int:
    """Bytes that these layers hold and that a job that moves them has to go through."""
    numbers = {n for layer in layers if layer.format == "qcow2" for n in qcow2.own_blocks(layer.file.content)}
    raw = sum(layer.file.content.allocated for layer in layers if layer.format == "raw")
    return len(numbers) * BLOCK + raw


def commit(store: Store, layers: Sequence[Layer]) -> None:
    """Move what all layers but the last one hold into the last one, which they hide. Raises StorageFull."""
    moved: dict[int, bytes] = {}
    for layer in reversed(layers[:-1]):
        moved |= qcow2.own_blocks(layer.file.content)
    base, size = layers[-1], max(layers[0].file.capacity, layers[-1].file.capacity)
    if base.format == "raw":
        content = base.file.content.copy()
        content.resize(size)
        for number, block in moved.items():
            content.put(number, block)
        store.replace(base.file, content)
    else:
        _put(store, base.file, qcow2.own_blocks(base.file.content) | moved, size)


def rebase(store: Store, over: File, below: Layer) -> None:
    """Have an overlay name another layer as the one below it; what it shows is the caller's to know."""
    own = qcow2.own_blocks(over.content)
    store.replace(over, qcow2.overlay(own, over.capacity, Backing(below.name, below.format)))


def copy(store: Store, layers: Sequence[Layer], target: Layer, *, shallow: bool) -> None:
    """Have the file of target show what the layers show, or hold what the topmost of them holds. Raises StorageFull."""
    if target.format == "raw":
        content = shown(layers).copy()
        content.resize(target.file.capacity)
        store.replace(target.file, content)
    elif shallow and layers[0].format == "qcow2":
        _put(store, target.file, qcow2.own_blocks(layers[0].file.content), target.file.capacity)
    else:
        store.replace(target.file, qcow2.write(shown(layers), target.file.capacity))


def _put(store: Store, file: File, own: dict[int, bytes], size: int) -> None:
    store.replace(file, qcow2.overlay(own, size, qcow2.backing(file.content)))
