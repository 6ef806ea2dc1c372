"""The simulated API server does what the real one does: the same story, told to both."""

from __future__ import annotations

import asyncio
import uuid

from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from engine.transport import HttpChannel, Transport
from simulator.loop import run
from tests.integration.api.conftest import Api
from tests.integration.api.story import Outcome, Story
from tests.unit.simulator.test_simulated_story import simulated


async def real(kubeconfig: str, namespace: str) -> list[Outcome]:
    configuration = Configuration()
    await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration, persist_config=False)
    transport = Transport(HttpChannel(ApiClient(configuration)))
    try:
        return await Story(transport, namespace).tell()
    finally:
        await transport.close()


def test_both_servers_tell_the_same_story(api: Api) -> None:
    namespace = f"story-{uuid.uuid4().hex[:6]}"
    expected = asyncio.run(real(str(api.lab.kubeconfig), namespace))
    seen = run(simulated(namespace))
    assert [name for name, _ in seen] == [name for name, _ in expected]
    differences = {
        name: (there, here) for (name, there), (_, here) in zip(expected, seen, strict=True) if there != here
    }
    text = "\n".join(f"{name}:\n  real      {there}\n  simulated {here}" for name, (there, here) in differences.items())
    assert not differences, text
