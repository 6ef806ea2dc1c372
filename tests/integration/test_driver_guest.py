"""The libvirt driver and a guest that runs a system and an agent; and a host that loses its power.

Runs inside the lab (`python -m lab exec -- python -m pytest ...`); LAB_STATE names it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from lxml import etree

from drivers.contract import documents
from drivers.errors import NotConnected
from drivers.hypervisor import HostTarget, Hypervisor
from drivers.libvirt import LibvirtDirectory
from drivers.model import ConnectionState, DomainObservation, DomainState, StopReason
from lab.api import Lab

DIRECTORY = "/srv/local"
AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(lab: Lab) -> AsyncIterator[Hypervisor]:
    directory = LibvirtDirectory(asyncio.get_running_loop())
    keys = lab.state.pki / "client"
    credentials = {key: (keys / key).read_bytes() for key in ("ca.crt", "tls.crt", "tls.key")}
    host = directory.ensure(HostTarget("kvm1", lab.host("kvm1").uri_tls, credentials))
    await until("connected", lambda: host.view().fresh, 90)
    await host.ensure_pool(documents.pool("guest-test", DIRECTORY))
    yield host
    await directory.close()


async def until(what: str, holds: Callable[[], bool], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.05)


def seen(host: Hypervisor, identifier: str) -> DomainObservation:
    inventory = host.view().inventory
    assert inventory is not None
    return next(domain for domain in inventory.domains if domain.uuid == identifier)


async def file(path: Path) -> AsyncIterator[bytes]:
    content = path.read_bytes()
    for begin in range(0, len(content), 2**20):
        yield content[begin : begin + 2**20]


class Guest:
    """A domain that boots the lab's guest image from a volume."""

    def __init__(self, host: Hypervisor) -> None:
        self.host = host
        self.uuid = str(uuid.uuid4())
        self.name = f"guest-{self.uuid[:8]}"
        self.volumes: list[str] = []

    async def start(self, image: Path) -> None:
        size = image.stat().st_size
        root = await self.volume("qcow2", 2**26)
        await self.host.upload(DIRECTORY, self.volumes[0], file(image), size=size)
        facts = self.host.view().facts
        assert facts is not None
        document = etree.fromstring(documents.domain(self.name, self.uuid, facts, documents.disk(root, "qcow2"), AGENT))
        memory = document.find("memory")
        assert memory is not None
        memory.text = "128"
        await self.host.define(etree.tostring(document).decode())
        await self.host.start(self.uuid)

    async def volume(self, form: str, capacity: int) -> str:
        name = f"{self.name}-{len(self.volumes)}.{form}"
        made = await self.host.create_volume(DIRECTORY, documents.volume(name, form, capacity))
        self.volumes.append(name)
        return made.path

    async def agent(self) -> None:
        await until("the guest agent", lambda: seen(self.host, self.uuid).agent_connected, 180)

    async def remove(self) -> None:
        await self.host.destroy(self.uuid)
        await self.host.undefine(self.uuid)
        for name in self.volumes:
            await self.host.delete_volume(DIRECTORY, name)


@pytest_asyncio.fixture(loop_scope="module")
async def guest(lab: Lab, host: Hypervisor) -> AsyncIterator[Guest]:
    guest = Guest(host)
    try:
        await guest.start(lab.state.folder / "images" / "guest.qcow2")
        yield guest
    finally:
        await guest.remove()


async def test_what_the_agent_says_is_seen_devices_go_and_it_shuts_down(host: Hypervisor, guest: Guest) -> None:
    await guest.agent()
    await until("guest facts", lambda: seen(host, guest.uuid).guest is not None, 30)
    facts = await host.query_guest(guest.uuid)
    assert facts is not None
    assert facts.hostname
    assert seen(host, guest.uuid).guest == facts
    path = await guest.volume("qcow2", 2**20)
    await host.attach_device(guest.uuid, documents.disk(path, "qcow2", target="vdb", alias="ua-disk-data"))
    assert path in seen(host, guest.uuid).images
    for _ in range(2):
        await host.detach_device(guest.uuid, "ua-disk-data")
        assert path not in seen(host, guest.uuid).images
        assert "ua-disk-data" not in await host.domain_xml(guest.uuid, inactive=True)
    await host.shutdown(guest.uuid)
    await until("off", lambda: seen(host, guest.uuid).state is DomainState.SHUT_OFF, 60)
    assert seen(host, guest.uuid).stop_reason is StopReason.GUEST_SHUTDOWN
    assert seen(host, guest.uuid).guest is None


async def test_a_guest_whose_agent_left_gets_the_power_button(host: Hypervisor, guest: Guest) -> None:
    await guest.agent()
    await host.reboot(guest.uuid)
    await until("the agent to leave", lambda: not seen(host, guest.uuid).agent_connected, 60)
    await guest.agent()
    assert seen(host, guest.uuid).state is DomainState.RUNNING
    await host.suspend(guest.uuid)
    assert await host.query_guest(guest.uuid) is None
    await host.resume(guest.uuid)
    await host.shutdown(guest.uuid)
    await until("off", lambda: seen(host, guest.uuid).state is DomainState.SHUT_OFF, 60)


async def test_an_agent_freezes_the_guest_for_a_snapshot(host: Hypervisor, guest: Guest) -> None:
    await guest.agent()
    for call in (host.freeze, host.freeze, host.thaw, host.thaw):
        await call(guest.uuid)
    base = await host.volume(DIRECTORY, guest.volumes[0])
    assert base is not None
    name = f"{guest.name}-overlay.qcow2"
    document = documents.volume(name, "qcow2", base.capacity, below=(base.name, "qcow2"))
    overlay = await host.create_volume(DIRECTORY, document)
    guest.volumes.append(name)
    # Asked for twice, and with the guest frozen before: the snapshot thaws it.
    for _ in range(2):
        await host.snapshot(guest.uuid, {"ua-disk-vda": overlay.path}, quiesce=True)
    drive = seen(host, guest.uuid).device("ua-disk-vda")
    assert drive is not None
    assert (drive.source, drive.backing) == (overlay.path, (base.path,))
    assert await host.query_guest(guest.uuid) is not None, "the agent answers: the guest is not frozen"


async def test_a_host_without_power_is_suspect_in_time_and_comes_back(lab: Lab, host: Hypervisor) -> None:
    machine = lab.host("kvm1")
    cut = time.monotonic()
    await asyncio.to_thread(machine.power_off)
    try:
        await until("suspect", lambda: host.view().state is ConnectionState.SUSPECT, 20)
        assert time.monotonic() - cut <= 20
        view = host.view()
        assert not view.fresh
        assert view.inventory is not None, "what was seen last stays"
        begun = time.monotonic()
        with pytest.raises(NotConnected):
            await host.refresh()
        assert time.monotonic() - begun < 0.5
    finally:
        await asyncio.to_thread(machine.power_on)
    await until("connected again", lambda: host.view().fresh, 120)
    assert host.view().error is None
