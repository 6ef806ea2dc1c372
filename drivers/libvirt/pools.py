"""Storage calls, blocking. A pool is known by its directory: whoever made it, and under whatever name, it is used.

libvirt scans a pool's directory only when told to, makes volumes without looking at what others put there since, and
refuses to scan while a copy runs in the pool. So a lookup that finds nothing scans before it believes it, and a copy
runs in a pool of its own over the same directory (libvirt takes `/dir/.` for another directory than `/dir`; measured
on 9.0).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import libvirt
from lxml import etree

from drivers import overlays
from drivers.errors import NotFound, Refused
from drivers.model import FileNames, PoolInfo, Volume
from drivers.xmlread import clean_path, pool_path, read_volume, volume_name

_SCAN_SECONDS = 10.0
"""How long a scan waits for volumes that are being made in the pool."""

_COPY_POOL = "hostler-copy-"
_SPELLINGS = 16
"""How many copies can run in one directory at once."""


def find_pool(connection: libvirt.virConnect, path: str) -> libvirt.virStoragePool | None:
    """The pool over this directory, running or not; None when there is none."""
    wanted = clean_path(path)
    for pool in connection.listAllStoragePools(0):
        try:
            if pool_path(pool.XMLDesc(0)) == wanted:
                return pool
        except libvirt.libvirtError as error:
            # Gone since it was listed.
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
                raise
    return None


def ensure_pool(connection: libvirt.virConnect, xml: str) -> PoolInfo:
    """Have a running pool over the document's directory. Raises Refused(PathMissing)."""
    path = pool_path(xml)
    pool = find_pool(connection, path)
    if pool is None:
        try:
            pool = connection.storagePoolCreateXML(xml, 0)
        except libvirt.libvirtError:
            # Another process made it just now, under whatever name.
            pool = find_pool(connection, path)
            if pool is None:
                raise
    if not pool.isActive():
        pool.create(0)
    return pool_info(connection, path)


def running_pool(connection: libvirt.virConnect, path: str) -> libvirt.virStoragePool:
    """The running pool over this directory. Raises NotFound."""
    pool = find_pool(connection, path)
    if pool is None or not pool.isActive():
        raise NotFound(f"no storage pool is over {path} on this host", reason="NoPool")
    return pool


def scan(pool: libvirt.virStoragePool) -> None:
    """Have libvirt look at the directory, once no volume is just being made in it."""
    ends = time.monotonic() + _SCAN_SECONDS
    while True:
        try:
            pool.refresh(0)
        except libvirt.libvirtError as error:
            busy = "asynchronous jobs running" in (error.get_error_message() or "")
            if not busy or time.monotonic() > ends:
                raise
            time.sleep(0.1)
        else:
            return


def pool_info(connection: libvirt.virConnect, path: str) -> PoolInfo:
    """The file system's size and free space. libvirt asks for them when it scans."""
    pool = running_pool(connection, path)
    scan(pool)
    _, capacity, _, available = pool.info()
    return PoolInfo(path=clean_path(path), capacity=capacity, available=available)


def volume_names(connection: libvirt.virConnect, path: str) -> FileNames:
    """Scan, and return the names of the files: one call, however many there are."""
    pool = running_pool(connection, path)
    scan(pool)
    return FileNames(found.name() for found in pool.listAllVolumes(0))


def describe(pool: libvirt.virStoragePool, name: str) -> Volume | None:
    """One file, which libvirt opens for this; None where there is none."""
    found = find_volume(pool, name)
    return None if found is None else _describe(found)


def volume_now(connection: libvirt.virConnect, path: str, name: str) -> Volume | None:
    """One file of a directory, as it is now; None where there is none."""
    return describe(running_pool(connection, path), name)


def _describe(volume: libvirt.virStorageVol) -> Volume | None:
    """The file as it is now. libvirt remembers from its last scan what lies below an overlay, and a block job may have
    written another name since: of overlays the header is read.
    """
    try:
        described = read_volume(volume.XMLDesc(0))
        if described is None or described.backing is None:
            return described
        below = overlays.backing(_header(volume))
        folder = PurePosixPath(described.path).parent
        return replace(
            described,
            backing=None if below is None else str(folder / below.name),
            backing_format=None if below is None else below.format or None,
        )
    except libvirt.libvirtError as error:
        # Deleted since the directory was scanned, by another host perhaps.
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise


def _header(volume: libvirt.virStorageVol) -> bytes:
    stream = volume.connect().newStream(0)
    volume.download(stream, 0, overlays.HEADER_BYTES, 0)
    head = bytearray()
    while isinstance(chunk := stream.recv(CHUNK), bytes) and chunk:
        head += chunk
    stream.finish()
    return bytes(head)


def find_volume(pool: libvirt.virStoragePool, name: str) -> libvirt.virStorageVol | None:
    """The volume of that name; the directory is scanned before it counts as absent."""
    for attempt in range(2):
        try:
            return pool.storageVolLookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                raise
            if attempt == 0:
                scan(pool)
    return None


def volume(connection: libvirt.virConnect, path: str, name: str) -> libvirt.virStorageVol:
    """The volume of that name. Raises NotFound."""
    found = find_volume(running_pool(connection, path), name)
    if found is None:
        raise NotFound(f"there is no {name} in {path}", reason="VolumeMissing")
    return found


def volume_path(connection: libvirt.virConnect, path: str, name: str) -> str | None:
    """The file's path, None when there is no such volume."""
    found = find_volume(running_pool(connection, path), name)
    return None if found is None else found.path()


def create_volume(connection: libvirt.virConnect, path: str, xml: str) -> Volume:
    """Make a file. libvirt itself refuses one that is there, known to it or not."""
    created = _describe(running_pool(connection, path).createXML(xml, 0))
    if created is None:
        raise Refused(f"{volume_name(xml)} vanished from {path} right after it was made", reason="OperationFailed")
    return created


def delete_volume(connection: libvirt.virConnect, path: str, name: str) -> None:
    """Delete a file; absent is done."""
    found = find_volume(running_pool(connection, path), name)
    if found is None:
        return
    try:
        found.delete(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
            raise


def resize_volume(connection: libvirt.virConnect, path: str, name: str, size: int) -> None:
    """Grow a volume; one that is as large or larger is left as it is."""
    found = volume(connection, path, name)
    if found.info()[1] < size:
        found.resize(size, 0)


def copy_volume(connection: libvirt.virConnect, path: str, xml: str, source: str) -> Volume:
    """Copy and convert, however long it takes."""
    pool = running_pool(connection, path)
    name = volume_name(xml)
    with _copy_pool(connection, path, name) as scratch:
        original = find_volume(scratch, source)
        if original is None:
            raise NotFound(f"there is no {source} in {path}", reason="VolumeMissing")
        scratch.createXMLFrom(xml, original, 0)
    copied = find_volume(pool, name)
    described = None if copied is None else _describe(copied)
    if described is None:
        raise Refused(f"{name} vanished from {path} right after it was made", reason="OperationFailed")
    return described


@contextmanager
def _copy_pool(connection: libvirt.virConnect, path: str, name: str) -> Iterator[libvirt.virStoragePool]:
    """A pool over the directory for this one copy, removed after it; one that a dead process left is taken over."""
    pool_name = _COPY_POOL + hashlib.sha256(f"{clean_path(path)}/{name}".encode()).hexdigest()[:16]
    pool = _left_over(connection, pool_name) or _new_copy_pool(connection, pool_name, clean_path(path))
    try:
        yield pool
    finally:
        pool.destroy()


def _left_over(connection: libvirt.virConnect, pool_name: str) -> libvirt.virStoragePool | None:
    for pool in connection.listAllStoragePools(0):
        if pool.name() == pool_name:
            # Busy: a copy that a dead process began still runs, and writes the same file. The error says so.
            pool.refresh(0)
            return pool
    return None


def _new_copy_pool(connection: libvirt.virConnect, pool_name: str, path: str) -> libvirt.virStoragePool:
    taken = {pool_path(pool.XMLDesc(0)) for pool in connection.listAllStoragePools(0)}
    conflict: libvirt.libvirtError | None = None
    for spelling in (path + "/." * count for count in range(1, _SPELLINGS + 1)):
        if spelling in taken:
            continue
        root = etree.Element("pool", type="dir")
        etree.SubElement(root, "name").text = pool_name
        etree.SubElement(etree.SubElement(root, "target"), "path").text = spelling
        try:
            return connection.storagePoolCreateXML(etree.tostring(root).decode(), 0)
        except libvirt.libvirtError as error:
            # Another copy that begins just now has taken this spelling since the pools were listed.
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_FAILED:
                raise
            conflict = error
    if conflict is not None:
        raise conflict
    raise Refused(f"{_SPELLINGS} copies run in {path} already", reason="OperationFailed")


CHUNK = 256 * 1024
"""Bytes of a stream that libvirt sends in one message."""


@dataclass(frozen=True)
class Upload:
    """A stream into a volume."""

    stream: libvirt.virStream
    sparse: bool
    """Whether zeros may be sent as holes, which take no room there."""


def open_upload(connection: libvirt.virConnect, path: str, name: str, size: int, offset: int) -> Upload:
    """A stream that writes size bytes into the volume from offset on.

    libvirt makes a hole by cutting the file off behind it and leaves what lies under it (measured on 9.0). So holes are
    sent only where nothing has been written, and nothing lies behind.
    """
    found = volume(connection, path, name)
    allocated = found.info()[2]
    length = found.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]
    sparse = offset + size >= length and (offset >= length or allocated == 0)
    stream = connection.newStream(0)
    found.upload(stream, offset, size, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM if sparse else 0)
    return Upload(stream, sparse)


def open_download(
    connection: libvirt.virConnect, path: str, name: str, limit: int | None, offset: int
) -> libvirt.virStream:
    """A stream of the volume from offset on, of limit bytes or to its end."""
    found = volume(connection, path, name)
    stream = connection.newStream(0)
    found.download(stream, offset, limit or 0, 0)
    return stream


def send(connection: libvirt.virConnect, upload: Upload, data: bytes) -> None:
    """Send all of data."""
    del connection
    if upload.sparse and data and data.count(0) == len(data):
        upload.stream.sendHole(len(data))
        return
    view = memoryview(data)
    while view:
        view = view[upload.stream.send(bytes(view[:CHUNK])) :]


def receive(connection: libvirt.virConnect, stream: libvirt.virStream) -> bytes:
    """The next chunk; empty at the end."""
    del connection
    data = stream.recv(CHUNK)
    return data if isinstance(data, bytes) else b""


def finish(connection: libvirt.virConnect, stream: libvirt.virStream) -> None:
    """End a stream and hear whether all of it arrived."""
    del connection
    stream.finish()


def abort(connection: libvirt.virConnect, stream: libvirt.virStream) -> None:
    """Give a stream up."""
    del connection
    stream.abort()
