"""The driver contract, kept by the simulated driver, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from drivers.contract import Bed, Check, Contract
from drivers.hypervisor import HostTarget
from drivers.simulated import Machine, SimulatedDirectory, World

pytestmark = pytest.mark.looptime

DIRECTORY = "/srv/shared"


@dataclass
class SimulatedFaults:
    """Faults of one simulated machine."""

    machine: Machine

    async def hang(self) -> None:
        self.machine.hang()

    async def resume(self) -> None:
        self.machine.resume()

    async def restart_daemon(self) -> None:
        self.machine.daemon_kill()
        self.machine.daemon_start()

    async def kill_guest(self, name: str) -> None:
        self.machine.kill_qemu(self._uuid(name))

    async def freeze_guest(self, name: str) -> None:
        self.machine.freeze_qemu(self._uuid(name))

    async def thaw_guest(self, name: str) -> None:
        if any(process.name == name for process in self.machine.processes()):
            self.machine.thaw_qemu(self._uuid(name))

    def _uuid(self, name: str) -> str:
        return next(process.uuid for process in self.machine.processes() if process.name == name)


@asynccontextmanager
async def made_bed() -> AsyncIterator[Bed]:
    world = World()
    machine = world.machine("kvm1")
    machine.mount(DIRECTORY, world.store("shared"))
    world.machine("nobody").power_off()
    directory = SimulatedDirectory(world)
    heard: list[tuple[str, str | None]] = []
    directory.subscribe(lambda host, uuid: heard.append((host, uuid)))
    yield Bed(
        host=directory.ensure(HostTarget("kvm1", "simulated://kvm1")),
        other=directory.ensure(HostTarget("other", "qemu+tls://kvm1.lab/system")),
        unreachable=directory.ensure(HostTarget("nobody", "simulated://nobody")),
        directory=DIRECTORY,
        heard=heard,
        faults=SimulatedFaults(machine),
    )
    await directory.close()
    assert world.violations == []


@pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in Contract.checks()])
async def test_the_contract_is_kept(check: Check) -> None:
    async with made_bed() as bed:
        await Contract.run_check(bed, check)
