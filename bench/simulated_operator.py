"""The operator over hosts in memory: the process that `bench.simulated` measures.

The very operator, on a real API server; only what it reaches its hosts by is `drivers.simulated`. SIGTERM ends it in
good order and begins it anew over the same hosts, as a restart of the real one would; after SIGUSR1 it ends for good.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "operator"))

from main import run
from operator_settings import parse

from bench import documents
from drivers.hypervisor import HostDirectory, HostTarget, Hypervisor
from drivers.simulated import SimulatedDirectory, World
from xmlgen.domain import generate, render
from xmlgen.pool import directory_pool_xml
from xmlgen.volume import volume_xml

SHARED = "/srv/shared"
_CPUS, _MEMORY = 64, 2**38


def build(machines: int, log_size: int | None = 0) -> World:
    """Machines kvm1 … kvmN that share one file system."""
    world = World(obedient=True, log_size=log_size)
    shared = world.store("shared")
    for number in range(1, machines + 1):
        world.machine(f"kvm{number}", cpus=_CPUS, memory=_MEMORY).mount(SHARED, shared)
    return world


async def operate(world: World, arguments: list[str]) -> int:
    """Run until SIGUSR1 and SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ended.set)
    settings = parse(arguments)

    def hosts() -> HostDirectory:
        return SimulatedDirectory(world)

    while True:
        code = await run(settings, hosts)
        if code or ended.is_set():
            return code


async def fill(world: World, domains: int) -> None:
    """Have domains run without any controller, to see what they take by themselves; then wait to be ended."""
    directory = SimulatedDirectory(world)
    hosts = [directory.ensure(HostTarget(name, f"simulated://{name}")) for name in world.machines]
    while not all(host.view().fresh for host in hosts):
        await asyncio.sleep(0.05)
    for host in hosts:
        await host.ensure_pool(directory_pool_xml("shared", SHARED))
    at_once = asyncio.Semaphore(100)

    async def run_one(number: int) -> None:
        async with at_once:
            await _run_one(hosts[number % len(hosts)], number)

    await asyncio.gather(*(run_one(number) for number in range(domains)))
    await directory.close()
    print("full", flush=True)
    await asyncio.Event().wait()


async def _run_one(host: Hypervisor, number: int) -> None:
    """Have one usual VM run."""
    source = documents.usual(number)
    for drive in documents.DRIVES:
        await host.create_volume(SHARED, volume_xml(documents.image(number, drive), "qcow2", 2**20))
    await host.define(render(generate(source), documents.HOST))
    await host.start(source.uuid)


def main() -> int:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulated_operator")
    parser.add_argument("machines", type=int)
    parser.add_argument("--fill", type=int, help="no operator: have so many domains run, and wait")
    parser.add_argument("--log", type=Path, help="where what happened on the machines is written at the end")
    given, rest = parser.parse_known_args()
    world = build(given.machines, None if given.log else 0)
    if given.fill:
        asyncio.run(fill(world, given.fill))
        return 0
    code = asyncio.run(operate(world, rest))
    if given.log:
        given.log.write_text("".join(f"{entry.time} {entry.what}\n" for entry in world.log))
    return code


if __name__ == "__main__":
    sys.exit(main())
