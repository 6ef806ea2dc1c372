"""What the checks stand on: a host, a folder of it, and the few things that checks do over and over."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from drivers.contract import documents
from drivers.errors import HypervisorError
from drivers.hypervisor import Hypervisor
from drivers.model import ConnectionState, DomainObservation, DomainState, HostFacts, Volume

T = TypeVar("T")

PREFIX = "contract-"
"""How the names of everything begin that a check makes."""


class Faults(Protocol):
    """What can be done to the host behind the driver's back."""

    async def hang(self) -> None:
        """Freeze the daemon: connections stay open, nothing answers."""

    async def resume(self) -> None:
        """Let the daemon go on."""

    async def restart_daemon(self, *, kill: bool = False) -> None:
        """End the daemon, in order or with SIGKILL, and start it again; guests run on."""

    async def kill_guest(self, name: str) -> None:
        """End the process of the domain of this name with SIGKILL."""

    async def freeze_guest(self, name: str) -> None:
        """Stop the process of the domain of this name."""

    async def thaw_guest(self, name: str) -> None:
        """Let it go on."""


class Images(Protocol):
    """What QEMU's own tools say of image files of the host."""

    async def layers(self, path: str) -> list[str]:
        """Paths of an image and of all below it, from the top down, as qemu-img finds them."""

    async def damage(self, path: str) -> str:
        """What `qemu-img check` complains of; nothing for a sound image."""


class CheckFailedError(AssertionError):
    """A promise was not kept."""


@dataclass
class Bed:
    """One host under test. All of it is real."""

    host: Hypervisor
    other: Hypervisor
    """A second way to the same host: what it does, nobody tells `host`."""
    unreachable: Hypervisor
    """A host of the same driver where nothing answers."""
    directory: str
    """A folder on the host in which files may be made."""
    heard: list[tuple[str, str | None]]
    """Grows with each call of a listener that hears `host`."""
    faults: Faults | None = None
    """None: checks that need them cannot be run."""
    images: Images | None = None
    """None: what the driver says of images is believed."""

    @property
    def facts(self) -> HostFacts:
        """The host's facts, known once it was connected."""
        facts = self.host.view().facts
        if facts is None:
            raise CheckFailedError("a connected host has facts")
        return facts

    @property
    def pool(self) -> str:
        """The document of a pool over the directory, under a name that no other directory's pool has."""
        return documents.pool(f"{PREFIX}pool-{hashlib.sha256(self.directory.encode()).hexdigest()[:8]}", self.directory)

    async def settle(self) -> None:
        """Wait until both ways to the host are connected and fresh, and the pool is there."""
        await eventually("connected and fresh", lambda: is_fresh(self.host) and is_fresh(self.other), 90)
        await self.host.ensure_pool(self.pool)

    async def clean(self) -> None:
        """Remove what checks made."""
        await self.settle()
        inventory = require((await self.host.refresh()).inventory, "a refreshed host has an inventory")
        for domain in inventory.domains:
            if domain.name.startswith(PREFIX):
                await self.host.destroy(domain.uuid)
                await self.host.undefine(domain.uuid, remove_nvram=True)
        for name in await self.host.volume_names(self.directory):
            if name.startswith(PREFIX):
                await self.host.delete_volume(self.directory, name)

    def domain(self, *devices: str, name: str | None = None, epoch: int = 1) -> tuple[str, str]:
        """A new domain's UUID and document."""
        identifier = str(uuid.uuid4())
        name = name or f"{PREFIX}{identifier[:8]}"
        return identifier, documents.domain(name, identifier, self.facts, *devices, epoch=epoch)

    async def defined(self, *devices: str) -> str:
        """Define a new domain and return its UUID."""
        identifier, document = self.domain(*devices)
        await self.host.define(document)
        return identifier

    async def running(self, *devices: str) -> str:
        """Start a new domain and return its UUID."""
        identifier = await self.defined(*devices)
        await self.host.start(identifier)
        return identifier

    async def volume(self, form: str = "qcow2", capacity: int = 2**20, suffix: str = "") -> Volume:
        """A new volume."""
        name = self.volume_name(form, suffix)
        return await self.host.create_volume(self.directory, documents.volume(name, form, capacity))

    async def overlay(self, below: Volume, capacity: int | None = None) -> Volume:
        """A new overlay on a volume, as large as that is, or of capacity bytes."""
        name = self.volume_name("qcow2")
        document = documents.volume(
            name, "qcow2", below.capacity if capacity is None else capacity, below=(below.name, below.format)
        )
        return await self.host.create_volume(self.directory, document)

    async def shown(self, volume: Volume) -> bytes:
        """What a guest would see of an image that nobody writes now."""
        name = self.volume_name("raw")
        await self.host.copy_volume(self.directory, documents.volume(name, "raw", volume.capacity), volume.name)
        content = await self.download(name)
        await self.host.delete_volume(self.directory, name)
        return content

    async def sound(self, volume: Volume, *layers: Volume) -> None:
        """Fail unless QEMU's own tools find the image sound, and these layers below it."""
        if self.images is None:
            return
        expect(not (damage := await self.images.damage(volume.path)), f"{volume.name}: {damage}")
        found = await self.images.layers(volume.path)
        expect(found == [layer.path for layer in (volume, *layers)], f"the layers of {volume.name}: {found}")

    def volume_name(self, form: str, suffix: str = "") -> str:
        """A name for a new volume."""
        return f"{PREFIX}{uuid.uuid4().hex[:8]}{suffix}.{form}"

    async def upload(self, name: str, content: bytes, offset: int = 0) -> None:
        """Write into a volume."""
        await self.host.upload(self.directory, name, chunks(content), size=len(content), offset=offset)

    async def download(self, name: str, limit: int | None = None, offset: int = 0) -> bytes:
        """Read a volume."""
        read = self.host.download(self.directory, name, limit=limit, offset=offset)
        return b"".join([chunk async for chunk in read])

    def seen(self, identifier: str, host: Hypervisor | None = None) -> DomainObservation | None:
        """What is known of a domain."""
        inventory = (host or self.host).view().inventory
        domains = inventory.domains if inventory is not None else ()
        return next((domain for domain in domains if domain.uuid == identifier), None)

    async def comes_to(self, identifier: str, state: DomainState, seconds: float = 30) -> DomainObservation:
        """Wait, without asking, until a domain is seen in this state."""

        def arrived() -> bool:
            seen = self.seen(identifier)
            return seen is not None and seen.state is state

        await eventually(f"domain seen {state}", arrived, seconds)
        return require(self.seen(identifier), "the domain is known")


def is_fresh(host: Hypervisor) -> bool:
    """Whether a host is connected and its inventory complete."""
    view = host.view()
    return view.state is ConnectionState.CONNECTED and view.fresh


async def chunks(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """Bytes in pieces that fit no boundary."""
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


def require(value: T | None, what: str) -> T:
    """The value; fail if it is None."""
    if value is None:
        raise CheckFailedError(what)
    return value


def expect(holds: object, what: str) -> None:
    """Fail unless it holds."""
    if not holds:
        raise CheckFailedError(what)


async def eventually(what: str, holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until it holds; fail after seconds."""
    ends = asyncio.get_running_loop().time() + seconds
    while not holds():
        expect(asyncio.get_running_loop().time() < ends, f"{what}: not within {seconds:g} s")
        await asyncio.sleep(0.02)


async def refused(call: Awaitable[object], kind: type[HypervisorError], reason: str | None = None) -> HypervisorError:
    """The error that a call must raise; reason: what it must say, if that is given."""
    try:
        await call
    except kind as error:
        expect(reason is None or error.reason == reason, f"reason {error.reason}, not {reason}: {error.message}")
        return error
    except HypervisorError as error:
        raise CheckFailedError(f"{type(error).__name__}, not {kind.__name__}: {error.message}") from error
    raise CheckFailedError(f"{kind.__name__} was not raised")


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Fail if what is done inside takes longer."""
    begun = asyncio.get_running_loop().time()
    yield
    took = asyncio.get_running_loop().time() - begun
    expect(took <= seconds, f"{what} took {took:.1f} s, bound {seconds:g} s")
