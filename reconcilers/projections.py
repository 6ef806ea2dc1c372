"""What questions over all VMs or disks need of each: the little that a placement or a look at a directory counts with.

Computed once when an object comes in (`engine.cache.Projection`), so that such a question costs the same per object
however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from crds.quantity import to_bytes
from crds.vm_hardware import CPU
from crds.vm_power import PowerState
from engine.cache import Projection


class Demand(NamedTuple):
    """The room that a VM with a place takes on its host."""

    uid: str
    uuid: str | None
    """Its domain's."""
    host: str | None
    """None: it is not meant to run, or only may be on one of its candidates."""
    cpus: int
    memory: int
    """Bytes, without QEMU's overhead."""


class Stored(NamedTuple):
    """The volume that a Disk refers to, or takes over."""

    volume: str | None
    """Its name; None until one is chosen."""
    host: str | None
    """On whose directory it lies, where storage is host-local."""
    provisioned: bool
    existing: str | None
    """Name of the file that `spec.source.existing` names."""


def _demand(vm: Mapping[str, Any]) -> Demand | None:
    status, spec = vm.get("status") or {}, vm["spec"]
    placement, power = status.get("placement"), status.get("power") or {}
    if not placement:
        return None
    try:
        cpus, memory = CPU.model_validate(spec.get("cpu") or {}).count, to_bytes(spec["memory"]["size"])
    except (KeyError, ValueError):
        # It cannot be read as a VirtualMachine either, which is said there; what runs of it is seen on its host.
        return None
    host = placement.get("host") if power.get("state", PowerState.ON) == PowerState.ON else None
    return Demand(vm["metadata"]["uid"], status.get("uuid"), host, cpus, memory)


def _stored(disk: Mapping[str, Any]) -> Stored | None:
    volume = (disk.get("status") or {}).get("volume") or {}
    existing = ((disk["spec"].get("source") or {}).get("existing") or {}).get("path")
    if not volume and existing is None:
        return None
    name = PurePosixPath(existing).name if existing is not None else None
    return Stored(volume.get("name"), volume.get("host"), "provisionedAt" in volume, name)


DEMAND = Projection("VirtualMachine", _demand)
STORED = Projection("Disk", _stored)
