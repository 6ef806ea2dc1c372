"""Operations in a whole controller: asked for by a reconciler, under a session that is opened for the first of them."""

from __future__ import annotations

import asyncio

from crds import base
from engine.operations import OPERATIONS, Request, Target, batch
from engine.operations.order import FINALIZER, KIND
from reconcilers.objects import API
from reconcilers.operation import TYPES, request
from simulator import loop as virtual
from simulator import manifests
from simulator.scene import Scene

WEB = Target("VirtualMachine", "default", "web", "u-1")


def leases(scene: Scene) -> list[str]:
    return [lease["metadata"]["name"].split(".")[0] for lease in scene.server.all("Lease")]


def test_a_controller_does_what_its_reconcilers_ask_for() -> None:
    async def inside() -> None:
        scene = Scene(3)
        scene.apply(manifests.namespace("default"), manifests.namespace("hostler-system"))
        scene.start_first()
        await asyncio.sleep(60)
        assert leases(scene) == []
        runtime = scene.controller.runtime
        assert runtime is not None
        wanted = batch([], WEB, once="1", requested_by="anna")
        for _ in range(2):
            await scene.controller.scope.run(request(runtime.context, wanted))
        await asyncio.sleep(10)
        (operation,) = scene.server.all(KIND)
        assert operation["status"]["phase"] == "Succeeded" and "finalizers" not in operation["metadata"]
        assert operation["status"]["observedGeneration"] == operation["metadata"]["generation"]
        assert leases(scene) == ["session"]
        await scene.controller.scope.run(runtime.stop(1.0))
        assert leases(scene) == []
        scene.end()

    virtual.run(inside())


def test_what_the_engine_calls_the_kind_is_what_the_api_calls_it() -> None:
    assert API[KIND] == OPERATIONS
    assert base.FINALIZER == FINALIZER
    assert len({one.type for one in TYPES}) == len(TYPES)
    assert Request("Batch", WEB).name.startswith("batch-web-")
