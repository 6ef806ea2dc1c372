"""Storage calls as a daemon carries them out. A pool is known by its directory."""

from __future__ import annotations

from lxml import etree

from drivers.errors import AlreadyExists, NotFound, Refused
from drivers.model import FileNames, PoolInfo, Volume
from drivers.overlays import Backing
from drivers.simulated import documents, layers, qcow2
from drivers.simulated.breaches import Breach
from drivers.simulated.daemon import Daemon
from drivers.simulated.files import File, Store
from drivers.simulated.sparse import SparseBytes
from drivers.simulated.wire import Later
from drivers.xmlread import clean_path, pool_path, read_volume, size_of

CHUNK = 256 * 1024
"""Bytes that are read or written in one message."""
COPY_BYTES_PER_SECOND = 500 * 2**20
COPY_SECONDS = 0.05
"""The least that a copy takes."""


def ensure_pool(daemon: Daemon, xml: str) -> PoolInfo:
    """Have a pool over the document's directory. Raises Refused(PathMissing)."""
    root = documents.parse(xml)
    path = pool_path(xml)
    if path not in daemon.machine.mounts:
        raise Refused(f"cannot open path '{path}': No such file or directory", reason="PathMissing")
    daemon.pools.setdefault(path, root.findtext("name", ""))
    return pool_info(daemon, path)


def _store(daemon: Daemon, pool: str) -> Store:
    path = clean_path(pool)
    store = daemon.machine.mounts.get(path)
    if store is None or path not in daemon.pools:
        raise NotFound(f"no storage pool is over {path} on this host", reason="NoPool")
    return store


def pool_info(daemon: Daemon, pool: str) -> PoolInfo:
    """The file system's size and free space."""
    store = _store(daemon, pool)
    return PoolInfo(path=clean_path(pool), capacity=store.capacity, available=store.available)


def volume_names(daemon: Daemon, pool: str) -> FileNames:
    """All files."""
    return FileNames(_store(daemon, pool).files)


def describe(daemon: Daemon, pool: str, name: str) -> Volume | None:
    """One file, None where there is none."""
    file = _store(daemon, pool).files.get(name)
    return None if file is None else _describe(clean_path(pool), name, file)


def _describe(path: str, name: str, file: File) -> Volume:
    below = qcow2.backing(file.content)
    backing, form = (None, None) if below is None else (f"{path}/{below.name}", below.format)
    return Volume(name, f"{path}/{name}", file.format, file.capacity, file.allocation, backing, form)


def volume_path(daemon: Daemon, pool: str, name: str) -> str | None:
    """The file's path, None when there is no such file."""
    return f"{clean_path(pool)}/{name}" if name in _store(daemon, pool).files else None


def _file(daemon: Daemon, pool: str, name: str) -> tuple[Store, File]:
    store = _store(daemon, pool)
    file = store.files.get(name)
    if file is None:
        raise NotFound(f"there is no {name} in {clean_path(pool)}", reason="VolumeMissing")
    return store, file


def _wanted(xml: str) -> tuple[Volume, int]:
    """The volume that a document describes, and the bytes to be allocated for it at once."""
    root: etree._Element = documents.parse(xml)
    volume = read_volume(xml)
    if volume is None or not volume.name or "/" in volume.name:
        raise Refused(f"not the document of a file: {root.findtext('name', '')!r}", reason="InvalidDomain")
    allocation = root.find("allocation")
    return volume, volume.capacity if allocation is None else size_of(allocation)


def create_volume(daemon: Daemon, pool: str, xml: str) -> Volume:
    """Make a file. Raises AlreadyExists, StorageFull."""
    store = _store(daemon, pool)
    volume, allocation = _wanted(xml)
    if volume.backing is not None:
        if volume.backing not in store.files:
            raise Refused(f"inaccessible backing store volume {volume.backing}", reason="VolumeMissing")
        below = Backing(volume.backing, volume.backing_format or "")
        file = File(qcow2.overlay({}, volume.capacity, below))
    elif volume.format == "qcow2":
        # qemu-img allocates nothing in advance, whatever the document says.
        file = File(qcow2.write(SparseBytes(), volume.capacity))
    else:
        file = File(SparseBytes(size=volume.capacity), reserved=allocation)
    return _describe(clean_path(pool), volume.name, store.create(volume.name, file))


def copy_volume(daemon: Daemon, pool: str, xml: str, source: str) -> Later[Volume]:
    """Copy and convert. The new file is there at once, and has all it shall have only at the end."""
    store, original = _file(daemon, pool, source)
    volume, _ = _wanted(xml)
    if volume.name in store.files:
        raise AlreadyExists(f"storage volume {volume.name!r} exists already", reason="AlreadyExists")
    shown = layers.shown(layers.chain(store, source, original.format)).copy()
    size = max(volume.capacity, shown.size)
    converts = volume.format == "qcow2"
    file = File(qcow2.write(SparseBytes(), size) if converts else SparseBytes())
    file.busy = True
    store.create(volume.name, file)

    def finish() -> Volume:
        file.busy = False
        shown.resize(size)
        try:
            store.replace(file, qcow2.write(shown, size) if converts else shown)
        except BaseException:
            if store.files.get(volume.name) is file:
                store.delete(volume.name)
            raise
        if store.files.get(volume.name) is not file:
            raise Refused(f"{volume.name} vanished from {pool} right after it was made", reason="OperationFailed")
        return _describe(clean_path(pool), volume.name, file)

    return Later(COPY_SECONDS + shown.allocated / COPY_BYTES_PER_SECOND, finish)


def _not_in_use(daemon: Daemon, file: File, name: str) -> None:
    if file.busy:
        raise Refused(f"volume '{name}' is still being allocated.", reason="VolumeInUse")
    if any(writer.machine == daemon.machine.name for writer in file.writers):
        raise Refused(f'{name}: Failed to get "write" lock', reason="VolumeInUse")


def _seen_changing(daemon: Daemon, file: File, what: str) -> None:
    """Record processes that write the file: locks end at the machine, and a stream asks for none."""
    for writer in file.writers:
        used = f"{what}, used by {writer.name}"
        daemon.machine.world.violate(Breach.CHANGED_IN_USE, (daemon.machine.name, writer.machine), used)


def resize_volume(daemon: Daemon, pool: str, name: str, size: int) -> None:
    """Grow a file; one that is as large or larger is left as it is."""
    store, file = _file(daemon, pool, name)
    if file.capacity < size:
        _not_in_use(daemon, file, name)
        _seen_changing(daemon, file, f"{name} resized")
        store.grow(file, size)


def delete_volume(daemon: Daemon, pool: str, name: str) -> None:
    """Delete a file; absent is done. Like any unlink it asks no process that has the file open."""
    store = _store(daemon, pool)
    file = store.files.get(name)
    if file is None:
        return
    if file.busy:
        raise Refused(f"volume '{name}' is still being allocated.", reason="VolumeInUse")
    store.delete(name)
    machines = daemon.machine.world.machines.values()
    readers = [q for machine in machines for q in machine.qemus.values() if any(read is file for read in q.only_read())]
    for user in (*file.writers, *readers):
        what = f"{name}, used by {user.name}"
        daemon.machine.world.violate(Breach.DELETED_IN_USE, (daemon.machine.name, user.machine), what)


def open_file(daemon: Daemon, pool: str, name: str) -> tuple[Store, File]:
    """Open a file for a stream, which has it from then on, whatever becomes of its name. Raises NotFound."""
    return _file(daemon, pool, name)


def write_file(daemon: Daemon, store: Store, file: File, name: str, at: int, data: bytes) -> None:
    """Write what a stream brings. Raises StorageFull."""
    _seen_changing(daemon, file, f"{name} written")
    store.write(file, at, data)
