"""Calls about the layers and block jobs of a running domain's drives, blocking.

libvirt forgets a job the moment it is over and takes any path for an overlay, so each call looks first: at the job,
then at the document (a job that ended between the two looks shows in it), then at the files. What is so already is
done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import libvirt
from lxml import etree

from drivers.errors import NotFound, Refused
from drivers.libvirt import pools
from drivers.libvirt.domains import lookup
from drivers.model import BlockJob, DeviceObservation, JobKind, Volume
from drivers.xmlread import aliases, read_domain

FREEZE_TIMEOUT = 10
"""Seconds that a guest agent has to write out and freeze the guest's file systems."""

_FROZEN_ALREADY = re.compile(r"has been disabled|not allowed|already frozen", re.IGNORECASE)

_KINDS = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT: JobKind.COMMIT,
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT: JobKind.ACTIVE_COMMIT,
    libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY: JobKind.COPY,
}


class _Drive(NamedTuple):
    """A drive of a running domain, and its job."""

    domain: libvirt.virDomain
    target: str
    """vda, sdb, …: libvirt's name for it."""
    seen: DeviceObservation
    form: str
    """Format of its leaf."""
    job: dict[str, int]
    """Empty: there is none."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths from the leaf down."""
        return (*((self.seen.source,) if self.seen.source else ()), *self.seen.backing)

    @property
    def kind(self) -> JobKind | None:
        """What its job does; None: there is none."""
        return _KINDS.get(self.job["type"], JobKind.OTHER) if self.job else None


def _running(connection: libvirt.virConnect, uuid: str) -> libvirt.virDomain:
    domain = connection.lookupByUUIDString(uuid)
    if not domain.isActive():
        raise Refused(f"domain {uuid} is not running", reason="NotRunning")
    return domain


def _drives(domain: libvirt.virDomain, names: Iterable[str]) -> tuple[dict[str, _Drive], str]:
    """The drives of these aliases with their jobs, and the document in which they were seen after those."""
    document = domain.XMLDesc(0)
    targets = {alias: _target(document, alias) for alias in names}
    flags = libvirt.VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES
    jobs = {alias: domain.blockJobInfo(target, flags) for alias, target in targets.items()}
    document = domain.XMLDesc(0)
    devices, seen = aliases(document), {device.alias: device for device in read_domain(document).devices}
    drives = {}
    for alias, target in targets.items():
        if alias not in seen:
            raise _no_device(alias)
        driver = devices[alias].find("driver")
        form = "raw" if driver is None else driver.get("type", "raw")
        drives[alias] = _Drive(domain, target, seen[alias], form, jobs[alias])
    return drives, document


def _drive(domain: libvirt.virDomain, alias: str) -> _Drive:
    return _drives(domain, [alias])[0][alias]


def _target(document: str, alias: str) -> str:
    device = aliases(document).get(alias)
    target = None if device is None or device.tag != "disk" else device.find("target")
    if target is None:
        raise _no_device(alias)
    return target.get("dev", "")


def _no_device(alias: str) -> NotFound:
    return NotFound(f"the domain has no drive {alias}", reason="NoDevice")


def _differs(message: str) -> Refused:
    return Refused(message, reason="ChainDiffers")


def _other_job(drive: _Drive) -> Refused:
    return Refused(f"{drive.seen.alias} has a block job already: {drive.kind}", reason="BlockJobActive")


# Snapshots -----------------------------------------------------------------------------------------------------------


def snapshot(connection: libvirt.virConnect, uuid: str, overlays: Mapping[str, str], *, quiesce: bool) -> None:
    """Have drives go on with overlays, all at one instant; see Hypervisor."""
    domain = _running(connection, uuid)
    drives, document = _drives(domain, overlays)
    if all(drive.seen.source == overlays[alias] for alias, drive in drives.items()):
        return
    files = _Files(connection)
    for alias, drive in drives.items():
        if drive.job:
            raise _other_job(drive)
        _check_overlay(files, drive, overlays[alias])
    if quiesce:
        domain.agentSetResponseTimeout(FREEZE_TIMEOUT)
    flags = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
        | (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE if quiesce else 0)
    )
    wanted = {drive.target: overlays[alias] for alias, drive in drives.items()}
    domain.snapshotCreateXML(_snapshot_document(document, wanted), flags)


class _Files:
    """Files by their paths; each directory's pool is looked for once."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection
        self._pools: dict[str, libvirt.virStoragePool] = {}

    def describe(self, path: str) -> Volume | None:
        """The file, None where there is none. Raises NotFound for a directory without a pool."""
        folder, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
        if folder not in self._pools:
            self._pools[folder] = pools.running_pool(self._connection, folder)
        return pools.describe(self._pools[folder], name)


def _check_overlay(files: _Files, drive: _Drive, path: str) -> None:
    """QEMU takes any file for an overlay, whatever that was made on; and a guest would see its size change."""
    overlay = files.describe(path)
    if overlay is None:
        raise Refused(f"there is no overlay {path}", reason="VolumeMissing")
    if (overlay.backing, overlay.backing_format) != (drive.seen.source, drive.form):
        raise _differs(
            f"{path} is made on {overlay.backing} ({overlay.backing_format}), "
            f"and {drive.seen.alias} has {drive.seen.source} ({drive.form})"
        )
    # Of the file, which lies beside the overlay: asking QEMU takes three times as long.
    leaf = files.describe(overlay.backing or "")
    size = None if leaf is None else leaf.capacity
    if overlay.capacity != size:
        raise _differs(f"{path} shows {overlay.capacity} bytes, and {drive.seen.alias} has {size}")


def _snapshot_document(document: str, overlays: Mapping[str, str]) -> str:
    """The document of a snapshot of these drives (target → path of the overlay) and of no others."""
    root = etree.Element("domainsnapshot")
    disks = etree.SubElement(root, "disks")
    for device in aliases(document).values():
        target = device.find("target")
        if device.tag != "disk" or target is None:
            continue
        path = overlays.get(target.get("dev", ""))
        disk = etree.SubElement(disks, "disk", name=target.get("dev", ""), snapshot="external" if path else "no")
        if path:
            disk.set("type", "file")
            etree.SubElement(disk, "driver", type="qcow2")
            etree.SubElement(disk, "source", file=path)
    return etree.tostring(root).decode()


def freeze(connection: libvirt.virConnect, uuid: str) -> None:
    """Freeze the guest's file systems; frozen is done."""
    domain = _running(connection, uuid)
    domain.agentSetResponseTimeout(FREEZE_TIMEOUT)
    try:
        domain.fsFreeze()
    except libvirt.libvirtError as error:
        # An agent that froze its guest refuses all commands but those that end it.
        if not _FROZEN_ALREADY.search(error.get_error_message() or ""):
            raise


def thaw(connection: libvirt.virConnect, uuid: str) -> None:
    """Thaw the guest's file systems; not frozen is done."""
    domain = _running(connection, uuid)
    domain.agentSetResponseTimeout(FREEZE_TIMEOUT)
    domain.fsThaw()


# Block jobs ----------------------------------------------------------------------------------------------------------


def block_job(connection: libvirt.virConnect, uuid: str, alias: str) -> BlockJob | None:
    """How the drive's block job stands."""
    drive = _drive(_running(connection, uuid), alias)
    if drive.kind is None:
        return None
    mirror = drive.seen.mirror
    return BlockJob(
        kind=drive.kind,
        done=drive.job["cur"],
        total=drive.job["end"],
        ready=mirror is not None and mirror.ready,
        bandwidth=drive.job["bandwidth"],
    )


def commit(connection: libvirt.virConnect, uuid: str, alias: str, top: str, base: str, *, bandwidth: int) -> None:
    """Begin to move the layers from top to above base into base; see Hypervisor."""
    drive = _drive(_running(connection, uuid), alias)
    layers = drive.layers
    if base not in layers:
        raise _differs(f"{base} is no layer of {alias}: {', '.join(layers)}")
    if top not in layers:
        # Moved already: what is on top of it has base below now.
        return
    if layers.index(top) >= layers.index(base):
        raise _differs(f"{top} is not above {base} in {alias}: {', '.join(layers)}")
    active = top == layers[0]
    if drive.job:
        mirrored = drive.seen.mirror is not None and drive.seen.mirror.path == base
        if drive.kind is not (JobKind.ACTIVE_COMMIT if active else JobKind.COMMIT) or (active and not mirrored):
            raise _other_job(drive)
        _limit(drive, bandwidth)
        return
    # A layer that stays on top must go on naming the one below it as it did: by its bare name.
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if active else libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE
    drive.domain.blockCommit(
        drive.target, base, top, bandwidth, flags | libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
    )


def copy(
    connection: libvirt.virConnect, uuid: str, alias: str, target: str, form: str, *, shallow: bool, bandwidth: int
) -> None:
    """Begin to copy the drive to the file at target; see Hypervisor."""
    drive = _drive(_running(connection, uuid), alias)
    if drive.seen.source == target:
        return
    if drive.job:
        if drive.kind is not JobKind.COPY or drive.seen.mirror is None or drive.seen.mirror.path != target:
            raise _other_job(drive)
        _limit(drive, bandwidth)
        return
    _check_target(connection, drive, target, shallow=shallow)
    disk = etree.Element("disk", type="file")
    etree.SubElement(disk, "driver", type=form)
    etree.SubElement(disk, "source", file=target)
    flags = (
        libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
        | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
        | (libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW if shallow else 0)
    )
    limits = {libvirt.VIR_DOMAIN_BLOCK_COPY_BANDWIDTH: bandwidth} if bandwidth else {}
    drive.domain.blockCopy(drive.target, etree.tostring(disk).decode(), limits, flags)


def _check_target(connection: libvirt.virConnect, drive: _Drive, path: str, *, shallow: bool) -> None:
    target = _Files(connection).describe(path)
    if target is None:
        raise Refused(f"there is no {path} to copy to", reason="VolumeMissing")
    size = drive.domain.blockInfo(drive.target)[0]
    if target.capacity != size:
        raise _differs(f"{path} shows {target.capacity} bytes, and {drive.seen.alias} has {size}")
    if (target.backing is not None) != (shallow and bool(drive.seen.backing)):
        raise _differs(f"{path} is made on {target.backing}, which a copy of this kind cannot use")


def _limit(drive: _Drive, bandwidth: int) -> None:
    if drive.job["bandwidth"] != bandwidth:
        drive.domain.blockJobSetSpeed(drive.target, bandwidth, libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES)


def pivot(connection: libvirt.virConnect, uuid: str, alias: str, leaf: str) -> None:
    """Have the drive go on with leaf; see Hypervisor."""
    drive = _drive(_running(connection, uuid), alias)
    mirror = drive.seen.mirror
    if drive.seen.source == leaf:
        return
    if mirror is None:
        raise Refused(f"{alias} has no block job that could be pivoted to {leaf}", reason="NoBlockJob")
    if mirror.path != leaf:
        raise _differs(f"{alias} is mirrored to {mirror.path}, not to {leaf}")
    if not mirror.ready:
        raise Refused(f"the block job of {alias} is not ready", reason="JobNotReady")
    drive.domain.blockJobAbort(drive.target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def cancel(connection: libvirt.virConnect, uuid: str, alias: str) -> None:
    """End the drive's block job; none is done."""
    domain = lookup(connection, uuid)
    if domain is None or not domain.isActive():
        return
    drive = _drive(domain, alias)
    if not drive.job:
        return
    try:
        drive.domain.blockJobAbort(drive.target, 0)
    except libvirt.libvirtError as error:
        # It ended by itself meanwhile.
        if "does not have an active block job" not in (error.get_error_message() or ""):
            raise
