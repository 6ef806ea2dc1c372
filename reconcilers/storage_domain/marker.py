"""The marker: one small file on the storage that says which storage domain it is, written once and read on every host.

A path whose file system is not mounted is an empty directory like any other. Only a marker that is read there tells the
storage from the directory below it, so nothing is created and no VM is started before `verify` has read it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from weakref import WeakKeyDictionary

from crds.storage_domain import StorageDomain, StorageMode, StorageScope
from drivers.errors import AlreadyExists, HostUnavailable, HypervisorError, NotFound
from drivers.hypervisor import Hypervisor
from drivers.model import PoolInfo
from engine.keys import Key
from reconcilers.context import Context
from xmlgen import names
from xmlgen.pool import directory_pool_xml
from xmlgen.volume import volume_xml

SIZE = 1024
"""Bytes of the file, padded with spaces, so that a file that was made and never written to is known by its zeros."""
_READ_LIMIT = 65536
_VERSION = 1
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DomainNotReachable(Exception):
    """The storage domain is not there on a host, or is not what it should be; `reason` as in the domain's status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Marker:
    """What the file says."""

    id: str
    installation: str
    name: str
    """Name of the StorageDomain."""
    scope: str
    host: str | None
    """HostLocal: whose directory it is."""
    nonce: str
    """Names this one writing of it: what bears it was made by who knows it."""
    created: str
    version: int = _VERSION

    def encode(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), sort_keys=True).encode().ljust(SIZE)


@dataclass(frozen=True)
class Found:
    """There is a marker."""

    marker: Marker


@dataclass(frozen=True)
class Absent:
    """The directory is there and has no marker."""


@dataclass(frozen=True)
class Blank:
    """The marker's file was made, and its writing cut off; seen so since this monotonic time."""

    since: float


@dataclass(frozen=True)
class Broken:
    """The marker cannot be read, and never will be by itself."""

    why: str


@dataclass(frozen=True)
class Unusable:
    """The host answers, and the directory cannot be used there."""

    reason: str
    message: str


@dataclass(frozen=True)
class Silent:
    """The host cannot be asked."""


Reading = Found | Absent | Blank | Broken | Unusable | Silent


@dataclass(frozen=True)
class Look:
    """What one look at the directory on one host found."""

    reading: Reading
    space: PoolInfo | None
    at: float
    """Monotonic time before the look."""


def parse(data: bytes, now: float) -> Reading:
    """What the content of a marker's file means."""
    if not data.strip(b"\0"):
        return Blank(now)
    try:
        fields = json.loads(data.rstrip(b"\0"))
        if fields["version"] != _VERSION:
            return Broken(f"it has format version {fields['version']}: it was written by a newer Hostler")
        marker = Marker(**fields)
    except (ValueError, TypeError, KeyError):
        return Broken("it is no marker of a storage domain")
    texts = (marker.id, marker.installation, marker.name, marker.scope, marker.nonce, marker.created)
    if not all(isinstance(text, str) for text in texts) or not _UUID.fullmatch(marker.id):
        return Broken("it is no marker of a storage domain")
    return Found(marker)


def judge(domain: StorageDomain, installation: str, host: str, reading: Reading) -> tuple[str, str]:
    """Whether a host reaches the domain: ("Reachable", ""), or the reason why not and what to do about it."""
    path = domain.spec.directory.path
    match reading:
        case Found(marker=marker):
            return _judge_marker(domain, installation, host, marker)
        case Absent() if domain.status.id is None:
            return "NotInitialized", f"{path} is not in use yet"
        case Absent():
            return "MarkerMissing", (
                f"{names.MARKER} is not in {path}: the file system is not mounted there. Mount it on the host"
            )
        case Blank():
            return "MarkerUnreadable", f"{names.MARKER} in {path} is empty: its writing was cut off"
        case Broken(why=why):
            return "MarkerUnreadable", f"{names.MARKER} in {path} cannot be read: {why}"
        case Unusable(reason=reason, message=message):
            return reason, message
        case Silent():
            return "HostNotConnected", "the host is not connected"


def _judge_marker(domain: StorageDomain, installation: str, host: str, marker: Marker) -> tuple[str, str]:
    path, name = domain.spec.directory.path, domain.metadata.name
    if marker.installation != installation:
        return "OwnedByOther", (
            f"{path} is storage domain {marker.name} of another Hostler ({marker.installation}): use another path"
        )
    if marker.name != name or marker.scope != domain.spec.directory.scope:
        return "OtherDomain", f"{path} belongs to storage domain {marker.name} ({marker.scope}): use another path"
    if domain.status.id is not None and marker.id != domain.status.id:
        return "OtherDomain", f"{path} is another storage ({marker.id}) than {name}: mount the right one on the host"
    if domain.spec.directory.scope is StorageScope.HOST_LOCAL and marker.host != host:
        return "OtherDomain", f"{path} is the directory of host {marker.host}: mount the host's own one there"
    return "Reachable", ""


async def verify(ctx: Context, domain: StorageDomain, host: Hypervisor, *, max_age: float = 5.0) -> None:
    """Have read the domain's marker on this host, no longer than max_age seconds ago.

    To be called right before a volume is made or a VM started. Many calls at once are one look. Raises
    DomainNotReachable, and HostUnavailable when the host cannot be asked.
    """
    if domain.spec.mode is StorageMode.MAINTENANCE:
        raise DomainNotReachable("StorageMaintenance", f"storage domain {domain.metadata.name} is in maintenance")
    if domain.status.id is None:
        raise DomainNotReachable("NotInitialized", f"storage domain {domain.metadata.name} is not in use yet")
    found = await look(ctx, domain, host, max_age=max_age)
    if isinstance(found.reading, Silent):
        raise HostUnavailable(f"host {host.name} did not answer", reason="HostNotConnected")
    reason, message = judge(domain, ctx.installation, host.name, found.reading)
    if reason != "Reachable":
        if any(reach.name == host.name and reach.reachable for reach in domain.status.hosts):
            # Its status still sends others here, until it has looked itself.
            ctx.wake(Key("StorageDomain", "", domain.metadata.name))
        raise DomainNotReachable(reason, f"storage domain {domain.metadata.name} on host {host.name}: {message}")


# Looking -------------------------------------------------------------------------------------------------------------

_looks: WeakKeyDictionary[Hypervisor, dict[str, Look]] = WeakKeyDictionary()
_under_way: WeakKeyDictionary[Hypervisor, dict[str, _UnderWay]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _UnderWay:
    task: asyncio.Task[Look]
    begun: float
    """Monotonic time."""


async def look(ctx: Context, domain: StorageDomain, host: Hypervisor, *, max_age: float) -> Look:
    """The directory on a host, as it was no longer than max_age seconds ago. Raises nothing of the host's."""
    uid = domain.metadata.uid
    known = _looks.get(host, {}).get(uid)
    if known is not None and ctx.clock.monotonic() - known.at <= max_age:
        return known
    looks = _under_way.setdefault(host, {})
    if uid not in looks:
        task = asyncio.create_task(_look(ctx, domain, host), name=f"look at {domain.metadata.name} on {host.name}")
        looks[uid] = _UnderWay(task, ctx.clock.monotonic())
        task.add_done_callback(lambda _: looks.pop(uid, None))
    # Whoever gives up waiting must not take the answer from the others.
    return await asyncio.shield(looks[uid].task)


def owes_answer(ctx: Context, domain: StorageDomain, host: Hypervisor, seconds: float) -> bool:
    """Whether a look at the directory on a host is under way since that many seconds or more."""
    look = _under_way.get(host, {}).get(domain.metadata.uid)
    return look is not None and ctx.clock.monotonic() - look.begun >= seconds


def invalidate(domain: StorageDomain, host: Hypervisor) -> None:
    """What was seen there counts no more: it was just changed."""
    _looks.get(host, {}).pop(domain.metadata.uid, None)


async def _look(ctx: Context, domain: StorageDomain, host: Hypervisor) -> Look:
    at, path = ctx.clock.monotonic(), domain.spec.directory.path
    space: PoolInfo | None = None
    try:
        pool = directory_pool_xml(names.pool_name(domain.metadata.name, domain.metadata.uid), path)
        space = await host.ensure_pool(pool)
        reading = await read(host, path, at)
    except HostUnavailable:
        reading = Silent()
    except HypervisorError as error:
        missing = f"there is no directory {path}: make it, or mount the storage there"
        reading = Unusable(error.reason, missing if error.reason == "PathMissing" else f"{path}: {error.message}")
    looks = _looks.setdefault(host, {})
    before = looks.get(domain.metadata.uid)
    if isinstance(reading, Blank) and before is not None and isinstance(before.reading, Blank):
        reading = before.reading
    looks[domain.metadata.uid] = Look(reading, space, at)
    return looks[domain.metadata.uid]


async def read(host: Hypervisor, path: str, now: float) -> Reading:
    """The marker in a directory over which there is a pool. Raises HypervisorError."""
    try:
        data = b"".join([chunk async for chunk in host.download(path, names.MARKER, limit=_READ_LIMIT)])
    except NotFound as error:
        # The pool went away meanwhile: that says nothing of the directory.
        return Absent() if error.reason != "NoPool" else Unusable("NoPool", error.message)
    return parse(data, now)


# Writing -------------------------------------------------------------------------------------------------------------


async def write(host: Hypervisor, path: str, marker: Marker, *, into_blank: bool) -> bool:
    """Write a marker where there is none, or into a file whose writing was cut off; whether this one was written.

    A marker that is there is never written over. Raises HypervisorError.
    """
    if into_blank:
        if not isinstance(await read(host, path, 0.0), Blank):
            return False
    else:
        try:
            await host.create_volume(path, volume_xml(names.MARKER, "raw", SIZE))
        except AlreadyExists:
            return False
    await host.upload(path, names.MARKER, _once(marker.encode()), size=SIZE)
    return True


async def withdraw(host: Hypervisor, path: str, marker: Marker) -> bool:
    """Remove the marker if it is the very one that was written; whether it is gone. Raises HypervisorError."""
    found = await read(host, path, 0.0)
    if isinstance(found, Found) and found.marker.nonce == marker.nonce:
        await host.delete_volume(path, names.MARKER)
        return True
    return isinstance(found, Absent)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
