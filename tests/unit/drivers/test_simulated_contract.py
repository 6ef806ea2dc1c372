"""The driver contract, kept by the simulated driver, in virtual time."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivers.contract import Bed, Check, Contract
from drivers.hypervisor import HostTarget
from drivers.simulated import Machine, SimulatedDirectory, World
from tests.unit.drivers.simulated_bed import write_out
from tests.virtual_time import virtual_time

pytestmark = virtual_time

DIRECTORY = "/srv/shared"


@dataclass
class SimulatedFaults:
    """Faults of one simulated machine."""

    machine: Machine

    async def hang(self) -> None:
        self.machine.hang()

    async def resume(self) -> None:
        self.machine.resume()

    async def restart_daemon(self, *, kill: bool = False) -> None:
        del kill  # of a simulated daemon there is no other end
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


@dataclass
class WrittenOut:
    """Images of one simulated machine, written into files and shown to the real qemu-img."""

    machine: Machine
    folder: Path

    async def layers(self, path: str) -> list[str]:
        told = self._ask("info", "--backing-chain", "--output=json", path)
        return [f"{DIRECTORY}/{Path(layer['filename']).name}" for layer in json.loads(told.stdout)]

    async def damage(self, path: str) -> str:
        told = self._ask("check", "-q", path)
        return f"{told.stdout}{told.stderr}" if told.returncode else ""

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        for name, file in self.machine.mounts[DIRECTORY].files.items():
            write_out(file.content, self.folder / name)
        *options, path = words
        command = ["qemu-img", *options, str(self.folder / Path(path).name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@asynccontextmanager
async def made_bed(folder: Path) -> AsyncIterator[Bed]:
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
        images=WrittenOut(machine, folder) if shutil.which("qemu-img") else None,
    )
    await directory.close()
    assert world.violations == []


@pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in Contract.checks()])
async def test_the_contract_is_kept(check: Check, tmp_path: Path) -> None:
    async with made_bed(tmp_path) as bed:
        await Contract.run_check(bed, check)
