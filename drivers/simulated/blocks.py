"""Snapshots and block jobs as a daemon and its QEMUs carry them out.

A job goes on whatever becomes of the daemon. Its data is in the layer that it writes once it is ready, and again, with
all that was written since, when it is pivoted; the document, the definition and the events follow the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from drivers.errors import NotFound, Refused, StorageFull
from drivers.model import BlockJob, JobKind
from drivers.simulated import documents, layers, qcow2
from drivers.simulated.documents import Document, to_document
from drivers.simulated.domains import note, running
from drivers.simulated.drives import chain, lock, look_for_readers, look_for_writers, open_image, redraw
from drivers.simulated.layers import Layer
from drivers.simulated.qemu import Job, Opened, Qemu

if TYPE_CHECKING:
    from drivers.simulated.daemon import Daemon, Domain
    from drivers.simulated.machine import Machine

BYTES_PER_SECOND = 500 * 2**20
"""Of a job without a limit."""
BEGIN_SECONDS = 0.02
"""The least that a job takes."""
STALLED_SECONDS = 1.0
"""How often a job of a process that is stopped is looked at again."""


class _Drive(NamedTuple):
    """A drive of a running domain."""

    alias: str
    path: str
    """Of its leaf."""
    form: str
    layers: tuple[Layer, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Of its layers, from the leaf down."""
        folder = self.path.rpartition("/")[0]
        return self.path, *(f"{folder}/{layer.name}" for layer in self.layers[1:])


def _drive(qemu: Qemu, alias: str) -> _Drive:
    disk = documents.find_device(qemu.live.root, alias)
    image = None if disk is None else documents.image(disk)
    if image is None:
        raise NotFound(f"the domain has no drive {alias}", reason="NoDevice")
    return _Drive(alias, image[0], image[1], chain(qemu, image[0], image[1]))


def _differs(message: str) -> Refused:
    return Refused(message, reason="ChainDiffers")


def _other_job(alias: str) -> Refused:
    return Refused(f"{alias} has a block job already", reason="BlockJobActive")


# Snapshots -----------------------------------------------------------------------------------------------------------


def freeze(daemon: Daemon, uuid: str) -> None:
    """Have the agent freeze the guest's file systems; frozen is done."""
    _agent(daemon, uuid).quiesced = True


def thaw(daemon: Daemon, uuid: str) -> None:
    """Have the agent thaw them; not frozen is done."""
    _agent(daemon, uuid).quiesced = False


def _agent(daemon: Daemon, uuid: str) -> Qemu:
    _, qemu = running(daemon, uuid)
    if qemu.agent is None:
        raise Refused("QEMU guest agent is not connected", reason="AgentNotConnected")
    return qemu


def snapshot(daemon: Daemon, uuid: str, overlays: Mapping[str, str], *, quiesce: bool) -> None:
    """Have drives go on with overlays, all at one instant; done if all have them already."""
    domain, qemu = running(daemon, uuid)
    drives = {alias: _drive(qemu, alias) for alias in overlays}
    if all(drive.path == overlays[alias] for alias, drive in drives.items()):
        return
    for alias, drive in drives.items():
        if alias in qemu.jobs:
            raise _other_job(alias)
        _check_overlay(daemon.machine, qemu, drive, overlays[alias])
    if quiesce:
        _agent(daemon, uuid)
    for alias, drive in drives.items():
        _go_on_with(daemon.machine, domain, qemu, drive, overlays[alias], "qcow2")
    note(daemon.machine, f"snapshot of {domain.name} ({uuid}): {', '.join(overlays.values())}")
    daemon.changed(uuid)


def _check_overlay(machine: Machine, qemu: Qemu, drive: _Drive, path: str) -> None:
    _, name, file = machine.find(path)
    if file is None:
        raise Refused(f"missing existing file for disk {drive.alias}: {path}", reason="VolumeMissing")
    if qcow2.backing(file.content) != (drive.layers[0].name, drive.form):
        raise _differs(f"{path} is not made on {drive.path}")
    if file.capacity != drive.layers[0].file.capacity:
        raise _differs(f"{path} shows {file.capacity} bytes")
    lock(machine, qemu, name, file, writes=True)


def _go_on_with(machine: Machine, domain: Domain, qemu: Qemu, drive: _Drive, path: str, form: str) -> None:
    """Have a drive write another image from now on, in the process, its document and the definition."""
    qemu.close(drive.path)
    qemu.close(path)
    open_image(machine, qemu, path, form, writes=True)
    qemu.live = _with_image(qemu.live, drive.alias, path, form)
    domain.definition = _with_image(domain.definition, drive.alias, path, form)
    redraw(qemu)
    look_for_writers(machine, qemu)


def _with_image(document: Document, alias: str, path: str, form: str) -> Document:
    root = document.root
    disk = documents.find_device(root, alias)
    if disk is None:
        return document
    documents.set_image(disk, path, form)
    return to_document(root)


# Block jobs ----------------------------------------------------------------------------------------------------------


def block_job(daemon: Daemon, uuid: str, alias: str) -> BlockJob | None:
    """How the drive's job stands."""
    _, qemu = running(daemon, uuid)
    _drive(qemu, alias)
    job = qemu.jobs.get(alias)
    if job is None:
        return None
    done = job.total if job.ready else min(job.total, int(_done(daemon.machine, job)))
    return BlockJob(job.kind, done, job.total, job.ready, job.bandwidth)


def commit(daemon: Daemon, uuid: str, alias: str, top: str, base: str, *, bandwidth: int) -> None:
    """Begin to move the layers from top to above base into base."""
    _, qemu = running(daemon, uuid)
    drive = _drive(qemu, alias)
    paths = drive.paths
    if base not in paths:
        raise _differs(f"{base} is no layer of {alias}: {', '.join(paths)}")
    if top not in paths:
        return
    first, last = paths.index(top), paths.index(base)
    if first >= last:
        raise _differs(f"{top} is not above {base} in {alias}: {', '.join(paths)}")
    kind = JobKind.COMMIT if first else JobKind.ACTIVE_COMMIT
    if (job := qemu.jobs.get(alias)) is not None:
        if (job.kind, job.target) != (kind, base):
            raise _other_job(alias)
        _limit(daemon.machine, qemu, job, bandwidth)
        return
    layer = drive.layers[last]
    lock(daemon.machine, qemu, base, layer.file, writes=True)
    qemu.open(base, Opened(qemu.writes[drive.path].store, layer.name, layer.file), writes=True)
    look_for_readers(daemon.machine, qemu, layer)
    total = layers.own_bytes(drive.layers[first:last])
    _begin(daemon, qemu, Job(kind, alias, top, base, layer.format, False, total, bandwidth, daemon.machine.world.now))


def copy(daemon: Daemon, uuid: str, alias: str, target: str, form: str, *, shallow: bool, bandwidth: int) -> None:
    """Begin to copy the drive to the file at target."""
    _, qemu = running(daemon, uuid)
    drive, machine = _drive(qemu, alias), daemon.machine
    if drive.path == target:
        return
    if (job := qemu.jobs.get(alias)) is not None:
        if (job.kind, job.target) != (JobKind.COPY, target):
            raise _other_job(alias)
        _limit(machine, qemu, job, bandwidth)
        return
    _, name, file = machine.find(target)
    if file is None:
        raise Refused(f"there is no {target} to copy to", reason="VolumeMissing")
    if file.capacity != drive.layers[0].file.capacity:
        raise _differs(f"{target} shows {file.capacity} bytes")
    if (qcow2.backing(file.content) is not None) != (shallow and len(drive.layers) > 1):
        raise _differs(f"{target} cannot be used for a copy of this kind")
    lock(machine, qemu, name, file, writes=True)
    open_image(machine, qemu, target, form, writes=True)
    total = layers.own_bytes(drive.layers[:1] if shallow else drive.layers)
    _begin(
        daemon, qemu, Job(JobKind.COPY, alias, drive.path, target, form, shallow, total, bandwidth, machine.world.now)
    )


def _begin(daemon: Daemon, qemu: Qemu, job: Job) -> None:
    qemu.jobs[job.alias] = job
    redraw(qemu)
    note(daemon.machine, f"{job.kind} of {job.alias} of {qemu.name} ({qemu.uuid}) begun")
    _await(daemon.machine, qemu, job)
    daemon.changed(qemu.uuid)


def _rate(job: Job) -> int:
    return min(job.bandwidth or BYTES_PER_SECOND, BYTES_PER_SECOND)


def _done(machine: Machine, job: Job) -> float:
    return min(job.total, job.done + (machine.world.now - job.since) * _rate(job))


def _limit(machine: Machine, qemu: Qemu, job: Job, bandwidth: int) -> None:
    if job.bandwidth != bandwidth:
        job.done, job.since = _done(machine, job), machine.world.now
        job.bandwidth = bandwidth
        _await(machine, qemu, job)


def _await(machine: Machine, qemu: Qemu, job: Job) -> None:
    left = max(BEGIN_SECONDS, (job.total - _done(machine, job)) / _rate(job))
    machine.world.later(left, _arrive, machine, qemu, job, job.bandwidth)


def _arrive(machine: Machine, qemu: Qemu, job: Job, bandwidth: int) -> None:
    """A job has gone through everything, if nothing has become of it meanwhile."""
    if qemu.gone or qemu.jobs.get(job.alias) is not job or job.ready:
        return
    if job.bandwidth != bandwidth or _done(machine, job) < job.total - 1:
        # Its limit has been changed since: it arrives at another time.
        return
    if qemu.frozen:
        machine.world.later(STALLED_SECONDS, _arrive, machine, qemu, job, bandwidth)
        return
    try:
        _write(qemu, job)
    except StorageFull:
        _end(qemu, job)
    else:
        if job.kind is JobKind.COMMIT:
            _take_out(qemu, job)
            _end(qemu, job)
        else:
            job.ready = True
    machine.daemon.noticed(lambda: _noticed(machine, qemu))


def _noticed(machine: Machine, qemu: Qemu) -> None:
    redraw(qemu)
    machine.daemon.changed(qemu.uuid)


def _write(qemu: Qemu, job: Job) -> None:
    """Have the layer that the job writes hold all that it is about. Raises StorageFull."""
    drive = _drive(qemu, job.alias)
    store, paths = qemu.writes[drive.path].store, drive.paths
    if job.kind is JobKind.COPY:
        into = qemu.writes[job.target]
        layers.copy(into.store, drive.layers, Layer(into.name, into.file, job.form), shallow=job.shallow)
    else:
        layers.commit(store, drive.layers[paths.index(job.top) : paths.index(job.target) + 1])


def _take_out(qemu: Qemu, job: Job) -> None:
    """Have what is on top of the layers that were moved name the layer that they were moved into."""
    drive = _drive(qemu, job.alias)
    first, last = drive.paths.index(job.top), drive.paths.index(job.target)
    layers.rebase(qemu.writes[drive.path].store, drive.layers[first - 1].file, drive.layers[last])
    qemu.below[drive.path] = (*drive.layers[1:first], *drive.layers[last:])


def _end(qemu: Qemu, job: Job) -> None:
    del qemu.jobs[job.alias]
    qemu.close(job.target)


def pivot(daemon: Daemon, uuid: str, alias: str, leaf: str) -> None:
    """Have the drive go on with leaf, to which its job mirrors it."""
    domain, qemu = running(daemon, uuid)
    drive, job = _drive(qemu, alias), qemu.jobs.get(alias)
    if drive.path == leaf:
        return
    if job is None or job.kind is JobKind.COMMIT:
        raise Refused(f"{alias} has no block job that could be pivoted to {leaf}", reason="NoBlockJob")
    if job.target != leaf:
        raise _differs(f"{alias} is mirrored to {job.target}, not to {leaf}")
    if not job.ready:
        raise Refused(f"block job '{alias}' not ready for pivot yet", reason="JobNotReady")
    _write(qemu, job)
    _end(qemu, job)
    _go_on_with(daemon.machine, domain, qemu, drive, leaf, job.form)
    note(daemon.machine, f"{alias} of {domain.name} ({uuid}) goes on with {leaf}")
    daemon.changed(uuid)


def cancel(daemon: Daemon, uuid: str, alias: str) -> None:
    """End the drive's job; none is done."""
    domain = daemon.domains.get(uuid)
    qemu = None if domain is None else domain.qemu
    if qemu is None or qemu.gone:
        return
    _drive(qemu, alias)
    if (job := qemu.jobs.get(alias)) is not None:
        _end(qemu, job)
        redraw(qemu)
        note(daemon.machine, f"{job.kind} of {alias} of {qemu.name} ({uuid}) cancelled")
        daemon.changed(uuid)
