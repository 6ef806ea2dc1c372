"""A simulated fleet for tests, and controllers that are connected to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from drivers.contract import documents
from drivers.hypervisor import HostTarget, Hypervisor
from drivers.model import ConnectionState, DomainObservation, HostFacts
from drivers.simulated import SimulatedDirectory, World
from drivers.simulated.sparse import BLOCK, SparseBytes

SHARED = "/srv/shared"


def fleet(*names: str, seed: int = 0, obedient: bool = False) -> World:
    """Machines that mount one store at SHARED."""
    world = World(seed=seed, obedient=obedient)
    store = world.store("shared")
    for name in names:
        world.machine(name).mount(SHARED, store)
    return world


async def connected(directory: SimulatedDirectory, name: str) -> Hypervisor:
    """A host, connected and with a pool over SHARED."""
    host = directory.ensure(HostTarget(name, f"simulated://{name}"))
    await until(lambda: host.view().state is ConnectionState.CONNECTED and host.view().fresh)
    await host.ensure_pool(documents.pool("pool", SHARED))
    return host


async def until(holds: Callable[[], object], seconds: float = 120) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.05)


def facts(host: Hypervisor) -> HostFacts:
    found = host.view().facts
    assert found is not None
    return found


def seen(host: Hypervisor, uuid: str) -> DomainObservation | None:
    inventory = host.view().inventory
    assert inventory is not None
    return next((domain for domain in inventory.domains if domain.uuid == uuid), None)


async def disk(host: Hypervisor, name: str, form: str = "qcow2", capacity: int = 2**20) -> str:
    """Make a volume; the device over it."""
    volume = await host.create_volume(SHARED, documents.volume(name, form, capacity))
    return documents.disk(volume.path, form)


async def define(host: Hypervisor, uuid: str, *devices: str, name: str = "web") -> None:
    await host.define(documents.domain(name, uuid, facts(host), *devices))


def write_out(content: SparseBytes, path: Path) -> None:
    """Make a real file of a simulated one."""
    with path.open("wb") as file:
        for number, block in content.blocks():
            file.seek(number * BLOCK)
            file.write(block)
        file.truncate(content.size)
