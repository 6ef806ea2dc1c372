"""A host that hangs, and a QEMU that is frozen, cost the guests of other hosts nothing: not a millisecond.

Every call takes its median here, so that two runs can be compared figure by figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from drivers.simulated.latencies import MEASURED, Latency
from drivers.simulated.machine import Machine
from simulator import channel
from simulator.loop import run
from simulator.manifests import drive, vm
from simulator.messages import Change
from simulator.scene import HOSTS, Scene

VMS = tuple(f"v{number}" for number in range(6))
STEADY = {name: Latency(latency.median, latency.median) for name, latency in MEASURED.items()}
ROUNDS = 6
SECONDS_BETWEEN = 5.0
"""Six rounds of requests see the host not known to hang, suspected, and given up."""
Fault = Callable[[Machine], None]


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests take as long as each other."""
    monkeypatch.setattr(channel, "ONE_WAY", (0.005, 0.005))


class Clock:
    """How long each request of a user takes until its VM's status says that it was carried out: wait, call, writes."""

    def __init__(self, scene: Scene) -> None:
        """Listens to the API server."""
        self._now, self._asked = scene.loop.time, dict[tuple[str, str], float]()
        self.took: dict[tuple[str, str], float] = {}
        self.phases: set[tuple[str, str]] = set()
        scene.server.subscribe(self._changed)

    def ask(self, scene: Scene, name: str, number: str, action: str) -> None:
        """Ask for something."""
        self._asked[name, number] = self._now()
        scene.edit("VirtualMachine", name, {"powerRequest": {"id": number, "action": action}})

    def _changed(self, change: Change) -> None:
        name, status = change.obj["metadata"]["name"], change.obj.get("status") or {}
        if change.resource.kind == "Host":
            self.phases.add((name, status.get("phase", "")))
        request = status.get("powerRequest") or {}
        key = name, request.get("id", "")
        if request.get("phase") == "Succeeded" and key in self._asked:
            self.took.setdefault(key, self._now() - self._asked[key])


async def told(fault: Fault | None) -> tuple[dict[tuple[str, str], float], set[tuple[str, str]], str]:
    """Pause and resume the guests of all hosts but one, to which something happens: (seconds, Host phases, host)."""
    scene = Scene(7, latencies=STEADY)
    await scene.infrastructure()
    scene.apply(*(vm(name, drive("root")) for name in VMS))
    await scene.settled(quiet=20.0)
    hosts = {name: host for host, machine in scene.world.machines.items() for p in machine.processes() for name in VMS
             if p.name.endswith(f".{name}")}  # fmt: skip
    assert set(hosts) == set(VMS) and set(hosts.values()) == set(HOSTS)
    struck, clock = HOSTS[0], Clock(scene)
    if fault is not None:
        fault(scene.world.machines[struck])
    # What is asked of the host itself waits with it.
    for name in (name for name in VMS if hosts[name] == struck):
        clock.ask(scene, name, "0", "Pause")
    for number in range(1, ROUNDS + 1):
        for name in (name for name in VMS if hosts[name] != struck):
            clock.ask(scene, name, str(number), "Pause" if number % 2 else "Resume")
        await asyncio.sleep(SECONDS_BETWEEN)
    scene.end()
    return {key: took for key, took in clock.took.items() if hosts[key[0]] != struck}, clock.phases, struck


def hang(machine: Machine) -> None:
    machine.hang()


def freeze_all(machine: Machine) -> None:
    for process in machine.processes():
        machine.freeze_qemu(process.uuid)


def test_a_hung_host_costs_the_guests_of_others_nothing():
    (before, _, _), (during, phases, struck) = run(told(None)), run(told(hang))
    assert len(before) == ROUNDS * len(VMS) * 2 // 3
    assert during.keys() == before.keys()
    assert max(before.values()) < 0.5
    for key in before:
        assert during[key] == pytest.approx(before[key], abs=0.001)
    assert (struck, "NonResponsive") in phases, "the fault was one"


def test_a_frozen_qemu_costs_other_guests_nothing_and_never_looks_like_a_dead_host():
    (before, _, _), (during, phases, _) = run(told(None)), run(told(freeze_all))
    assert during.keys() == before.keys()
    for key in before:
        assert during[key] == pytest.approx(before[key], abs=0.001)
    assert {phase for _, phase in phases} <= {"Up"}


def test_the_guests_of_a_hung_host_do_wait():
    """Otherwise the figures above would say nothing."""

    async def on_the_struck() -> bool:
        scene = Scene(7, latencies=STEADY)
        await scene.infrastructure()
        scene.apply(vm("web", drive("root")))
        await scene.settled(quiet=20.0)
        machine = next(m for m in scene.world.machines.values() if m.processes())
        clock = Clock(scene)
        machine.hang()
        clock.ask(scene, "web", "1", "Pause")
        await asyncio.sleep(10.0)
        scene.end()
        return bool(clock.took)

    assert not run(on_the_struck())
