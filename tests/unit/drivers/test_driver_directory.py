"""The whole driver in this process, against libvirt's own mock host."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from drivers.errors import AlreadyExists, NotConnected, NotFound, Refused
from drivers.hypervisor import HostTarget, Hypervisor
from drivers.libvirt import LibvirtDirectory
from drivers.model import ConnectionState, DomainState

TARGET = HostTarget("mock", "test:///default", heartbeat_seconds=1)
DOMAIN = "<domain type='test'><name>{}</name><uuid>{}</uuid><memory>4096</memory><os><type>hvm</type></os></domain>"


class Calls:
    """What the directory tells of its calls and of new observations."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.heard: list[tuple[str, str | None]] = []

    def observe(self, method: str, seconds: float, outcome: str) -> None:
        assert seconds >= 0
        self.made.append((method, outcome))

    def listen(self, host: str, identifier: str | None) -> None:
        self.heard.append((host, identifier))


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def directory(calls: Calls) -> AsyncIterator[LibvirtDirectory]:
    directory = LibvirtDirectory(asyncio.get_running_loop(), calls.observe)
    directory.subscribe(calls.listen)
    yield directory
    await directory.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def connected(directory: LibvirtDirectory) -> Hypervisor:
    host = directory.ensure(TARGET)
    await until(lambda: host.view().state is ConnectionState.CONNECTED)
    return host


async def defined(host: Hypervisor) -> str:
    identifier = str(uuid.uuid4())
    await host.define(DOMAIN.format(f"unit-{identifier[:8]}", identifier))
    return identifier


def state(host: Hypervisor, identifier: str) -> DomainState | None:
    inventory = host.view().inventory
    assert inventory is not None
    return next((domain.state for domain in inventory.domains if domain.uuid == identifier), None)


async def test_a_host_connects_by_itself(directory: LibvirtDirectory, calls: Calls) -> None:
    host = directory.ensure(TARGET)
    assert host.view().state is ConnectionState.CONNECTING
    with pytest.raises(NotConnected):
        await host.refresh()
    await until(lambda: host.view().state is ConnectionState.CONNECTED)
    view = host.view()
    assert view.fresh
    assert view.facts is not None
    assert view.facts.hostname
    assert view.inventory is not None
    assert [domain.name for domain in view.inventory.domains] == ["test"]
    assert ("mock", None) in calls.heard
    assert ("heartbeat", "ok") in calls.made


async def test_a_domain_lives(directory: LibvirtDirectory, calls: Calls) -> None:
    host = await connected(directory)
    defined_only = await defined(host)
    assert state(host, defined_only) is DomainState.SHUT_OFF
    inventory = host.view().inventory
    assert inventory is not None
    identifier = next(domain.uuid for domain in inventory.domains if domain.name == "test")
    await host.start(identifier)
    assert state(host, identifier) is DomainState.RUNNING
    for _ in range(2):
        await host.suspend(identifier)
        assert state(host, identifier) is DomainState.PAUSED
    for _ in range(2):
        await host.resume(identifier)
        assert state(host, identifier) is DomainState.RUNNING
    with pytest.raises(Refused):
        await host.undefine(identifier)
    for _ in range(2):
        await host.destroy(identifier)
        assert state(host, identifier) is DomainState.SHUT_OFF
    assert ("mock", identifier) in calls.heard
    with pytest.raises(NotFound):
        await host.domain_xml(str(uuid.uuid4()))
    assert ("domain_xml", "NotFound") in calls.made


async def test_a_name_that_is_taken(directory: LibvirtDirectory) -> None:
    host = await connected(directory)
    with pytest.raises(AlreadyExists):
        await host.define(DOMAIN.format("test", uuid.uuid4()))


async def test_the_same_target_is_the_same_host_and_another_is_not(directory: LibvirtDirectory) -> None:
    host = await connected(directory)
    assert directory.ensure(TARGET) is host
    assert directory.get("mock") is host
    other = directory.ensure(HostTarget("mock", "test:///default", heartbeat_seconds=2))
    assert other is not host
    assert directory.names() == ("mock",)
    await until(lambda: other.view().state is ConnectionState.CONNECTED)


async def test_a_removed_host_is_forgotten(directory: LibvirtDirectory) -> None:
    host = await connected(directory)
    await directory.remove("mock")
    await directory.remove("mock")
    assert directory.get("mock") is None
    assert directory.names() == ()
    with pytest.raises(NotConnected):
        await host.refresh()


async def test_a_bad_uri_is_told(directory: LibvirtDirectory, calls: Calls) -> None:
    host = directory.ensure(HostTarget("bad", "http://example.org/"))
    await until(lambda: host.view().error is not None)
    error = host.view().error
    assert error is not None
    assert error.reason == "BadURI"
    assert calls.heard == [("bad", None)]
