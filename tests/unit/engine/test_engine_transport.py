"""The client against a small HTTP server that misbehaves in ways a real API server will not show on demand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import REGISTRY

from engine import errors
from engine.keys import Key
from engine.kube import KubeClient, Resource
from engine.transport import HttpChannel, Transport

GADGETS = Resource("example.org", "v1", "Gadget", "gadgets", namespaced=True)
KEY = Key("Gadget", "ns", "a")


class Server:
    """Answers in turn from `answers`: (status, body, headers); keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.requests: list[tuple[str, str, dict[str, str], str]] = []
        self.port = 0

    def will(self, status: int, body: Any = None, **headers: str) -> None:
        self.answers.append((status, body if body is not None else {}, headers))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.query), await request.text()))
        self.authorization = request.headers.get("Authorization", "")
        status, body, headers = self.answers.pop(0)
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=headers)
        return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


ClientFactory = Callable[..., KubeClient]


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[ClientFactory]:
    clients: list[KubeClient] = []

    def make(
        *, port: int | None = None, reload: Callable[[], Awaitable[None]] | None = None, **options: Any
    ) -> KubeClient:
        configuration = Configuration(host=f"http://127.0.0.1:{port or server.port}")
        configuration.api_key["BearerToken"] = "Bearer first"
        transport = Transport(HttpChannel(ApiClient(configuration)), reload_credentials=reload, **options)
        clients.append(KubeClient(transport))
        clients[-1].configuration = configuration  # type: ignore[attr-defined]
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def test_too_many_requests_is_sent_again_when_the_wait_is_short(server: Server, connect: ClientFactory) -> None:
    server.will(429, {}, Retry_After="0")
    server.will(200, {"metadata": {"name": "a"}})
    assert await connect().get(GADGETS, "ns", "a") == {"metadata": {"name": "a"}}
    assert len(server.requests) == 2


async def test_a_long_wait_is_left_to_the_caller(server: Server, connect: ClientFactory) -> None:
    server.will(429, {}, Retry_After="30")
    with pytest.raises(errors.TooManyRequests) as refused:
        await connect().get(GADGETS, "ns", "a")
    assert refused.value.retry_after == 30
    assert len(server.requests) == 1


async def test_a_write_whose_answer_is_lost_is_not_sent_again(server: Server, connect: ClientFactory) -> None:
    server.will(0)
    with pytest.raises(errors.ServerUnavailable):
        await connect().patch_status(GADGETS, KEY, {"phase": "x"}, resource_version="1", manager="m")
    assert len(server.requests) == 1


async def test_an_internal_error_is_not_sent_again(server: Server, connect: ClientFactory) -> None:
    server.will(500, {"reason": "InternalError", "message": "etcd"})
    with pytest.raises(errors.ServerUnavailable, match="etcd"):
        await connect().delete(GADGETS, KEY)
    assert len(server.requests) == 1


async def test_no_server_is_unavailable_after_a_few_tries(connect: ClientFactory, unused_tcp_port: int) -> None:
    labels = {"kind": "Gadget", "reason": "sent-again"}
    before = REGISTRY.get_sample_value("hostler_api_retries_total", labels) or 0
    with pytest.raises(errors.ServerUnavailable) as refused:
        await connect(port=unused_tcp_port).get(GADGETS, "ns", "a")
    assert refused.value.reason == "NotConnected"
    assert REGISTRY.get_sample_value("hostler_api_retries_total", labels) == before + 3


async def test_a_server_that_does_not_answer_is_given_up_at_the_deadline(
    connect: ClientFactory,
) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", silent)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with pytest.raises(errors.ServerUnavailable) as given_up:
        await connect(port=runner.addresses[0][1], timeout=0.3).get(GADGETS, "ns", "a")
    assert given_up.value.reason == "Timeout"
    await runner.cleanup()


async def test_a_page_of_a_proxy_becomes_the_message(server: Server, connect: ClientFactory) -> None:
    server.will(502, "<html>bad gateway</html>")
    with pytest.raises(errors.ServerUnavailable, match="bad gateway"):
        await connect().get(GADGETS, "ns", "a")
    server.will(200, "<html>log in here</html>")
    with pytest.raises(errors.ServerUnavailable, match="log in here"):
        await connect().get(GADGETS, "ns", "a")


async def test_rotated_credentials_are_read_again_once(server: Server, connect: ClientFactory) -> None:
    async def rotate() -> None:
        client.configuration.api_key["BearerToken"] = "Bearer second"  # type: ignore[attr-defined]

    client = connect(reload=rotate)
    server.will(401)
    server.will(200, {"metadata": {}})
    await client.get(GADGETS, "ns", "a")
    assert server.authorization == "Bearer second"
    server.will(401)
    with pytest.raises(errors.Unauthorized):
        await client.get(GADGETS, "ns", "a")


async def test_a_list_whose_position_expired_begins_again(server: Server, connect: ClientFactory) -> None:
    first = {"metadata": {"resourceVersion": "5", "continue": "token/+="}, "items": [{"metadata": {"name": "old"}}]}
    server.will(200, first)
    server.will(410, {"reason": "Expired"})
    again = {"metadata": {"resourceVersion": "9", "continue": "t2"}, "items": [{"metadata": {"name": "a"}}]}
    server.will(200, again)
    server.will(200, {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "b"}}]})
    items, version = await connect().list(GADGETS, "ns", limit=1)
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert version == "9"
    assert items[0]["kind"] == "Gadget"
    assert [query.get("continue") for _, _, query, _ in server.requests] == [None, "token/+=", None, "t2"]


async def test_writes_are_counted_by_kind_verb_and_code_and_events_are_not(
    server: Server, connect: ClientFactory
) -> None:
    def count(kind: str, verb: str, code: str) -> float:
        labels = {"kind": kind, "verb": verb, "code": code}
        return REGISTRY.get_sample_value("hostler_api_writes_total", labels) or 0

    before = count("Gadget", "patch-status", "409"), count("Event", "create", "201")
    client = connect()
    server.will(409, {"reason": "Conflict"})
    with pytest.raises(errors.Conflict):
        await client.patch_status(GADGETS, KEY, {}, resource_version="1", manager="m")
    server.will(201, {"metadata": {}})
    await client.create_event({"metadata": {"namespace": "ns", "name": "e"}})
    assert (count("Gadget", "patch-status", "409"), count("Event", "create", "201")) == (before[0] + 1, before[1])
