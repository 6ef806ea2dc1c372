"""Two VMs and one Exclusive disk: whatever is awaited on the way, only one of them is given a place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crds.virtual_machine import VirtualMachine
from engine.keys import Key
from reconcilers.virtual_machine.needs import resolve
from reconcilers.virtual_machine.plan import Plan, Start
from reconcilers.virtual_machine.start import start
from tests.unit.reconcilers.builders import at
from tests.unit.reconcilers.fakes import BASELINE, Directory, World

PATH = "/srv/vms"
VOLUME = "default.data-00000000.qcow2"


def condition(kind: str, status: str = "True") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": kind, "message": "", "lastTransitionTime": at(0)}


def world(*hosts: str) -> World:
    w = World()
    w.pool(status={"baseline": BASELINE})
    directory = Directory()
    for name in hosts:
        w.host(name, status={"phase": "Up", "conditions": [condition("Schedulable")]}).directories[PATH] = directory
    reach = [{"name": name, "reachable": True, "reason": "Reachable"} for name in hosts]
    spec = {"type": "directory", "directory": {"path": PATH}, "pools": ["default"]}
    w.add("StorageDomain", "fast", spec, status={"id": "id-1", "hosts": reach, "phase": "Active"})
    volume = {"name": VOLUME, "path": f"{PATH}/{VOLUME}", "provisionedAt": at(0)}
    w.add(
        "Disk",
        "data",
        {"size": "1Gi", "storageDomain": "fast"},
        namespace="default",
        status={"phase": "Ready", "path": f"{PATH}/{VOLUME}", "volume": volume},
    )
    return w


def machine(w: World, name: str, *, placed: str | None = None, disks: bool = True, **spec: Any) -> Key:
    declared = {
        "runPolicy": "Always",
        "pool": "default",
        "memory": {"size": "256Mi"},
        "disks": [{"name": "root", "diskRef": {"name": "data"}}] if disks else [],
        **spec,
    }
    placement = {"host": placed, "epoch": 1, "since": at(0), "candidates": [placed]}
    status = {"placement": placement} if placed else {}
    return w.add("VirtualMachine", name, declared, namespace="default", status=status)


def read(w: World, name: str) -> VirtualMachine:
    found = w.context.objects.get(VirtualMachine, name, "default")
    assert found is not None
    return found


async def test_a_disk_that_another_vm_took_while_a_secret_was_read_is_not_taken_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = world("kvm1", "kvm2")
    machine(w, "a", cloudInit={"userDataSecretRef": {"name": "s"}})
    machine(w, "b")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def get_secret(namespace: str, name: str) -> dict[str, bytes]:
        asked.set()
        await answer.wait()
        return {"userData": b"#cloud-config"}

    monkeypatch.setattr(w.client, "get_secret", get_secret, raising=False)
    a = read(w, "a")
    assert resolve(w.context, a).verdict is None
    starting = asyncio.create_task(start(w.context, a, Plan(Start(None), None, None), None, 0))
    await asked.wait()
    machine(w, "b", placed="kvm2")
    answer.set()
    outcome = await starting
    assert outcome.verdict is not None
    assert outcome.verdict.reason == "DiskInUse"
    assert w.client.writes == []
    assert w.context.reservations == {}
