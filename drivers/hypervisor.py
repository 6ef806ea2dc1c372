"""The contract between reconcilers and hosts: what every driver promises; its data is in `drivers.model`.

Three promises hold for every method of `Hypervisor`:

- *it may be called again*: asking for what is already so succeeds and changes nothing (starting a running
  domain, deleting a volume that is absent), so a reconciler that crashed meanwhile calls once more;
- *it has a deadline*: it returns or raises `HostTimeout` within its bound, also when the host hangs. A call whose
  deadline has passed may still take effect later on the host: the caller observes before it decides again;
- *it raises typed errors only* (`HypervisorError`, see `drivers.errors`), typed by what to do next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from drivers.model import (
    BlockJob,
    ConnectionView,
    CPUModel,
    FileNames,
    GuestFacts,
    HostFacts,
    Inventory,
    PoolInfo,
    Volume,
)


class Hypervisor(Protocol):
    """One host. Every method may be called again, has a deadline and raises `HypervisorError` only."""

    @property
    def name(self) -> str:
        """Name of the Host object."""

    def view(self) -> ConnectionView:
        """What is known now, without asking the host."""

    @property
    def fresh(self) -> bool:
        """What `view` says of it, for those who ask all hosts."""

    @property
    def facts(self) -> HostFacts | None:
        """What `view` says of it, for those who ask all hosts."""

    def inventory(self) -> Inventory | None:
        """What `view` says of it, for those who ask all hosts."""

    async def refresh(self, uuid: str | None = None) -> ConnectionView:
        """Ask the host anew for one domain, or for all of them (a complete list), and return what is known then."""

    async def refresh_facts(self) -> HostFacts:
        """Ask the host anew what it is (bridges come and go)."""

    async def baseline_cpu(self, cpus: Sequence[str]) -> CPUModel:
        """The best CPU that all of these host CPUs (`HostFacts.cpu_xml`) can give a guest."""

    # Domains -------------------------------------------------------------------------------------------------------

    async def define(self, xml: str) -> None:
        """Make or replace a persistent domain's definition (its inactive one while it runs).

        Raises AlreadyExists when the name belongs to another UUID, Refused(InvalidDomain) for a document that libvirt
        does not take.
        """

    async def start(self, uuid: str, *, paused: bool = False) -> None:
        """Start a defined domain, from power-on and never from a saved image. A running one is left as it is.

        Raises Refused with VolumeMissing, VolumeInUse, NoSuchBridge, NoMemory or OperationFailed.
        """

    async def shutdown(self, uuid: str) -> None:
        """Ask the guest to power off (agent if it is connected, else the ACPI button). Returns at once."""

    async def destroy(self, uuid: str) -> None:
        """Cut the domain's power. Succeeds when it is off."""

    async def reboot(self, uuid: str) -> None:
        """Ask the guest to reboot."""

    async def reset(self, uuid: str) -> None:
        """Press the reset button."""

    async def suspend(self, uuid: str) -> None:
        """Pause the virtual CPUs."""

    async def resume(self, uuid: str) -> None:
        """Run the virtual CPUs again."""

    async def undefine(self, uuid: str, *, remove_nvram: bool = False) -> None:
        """Remove the definition of a domain that is off; NVRAM is kept unless asked. Absent is done.

        Raises Refused when the domain is running: a running domain never becomes transient behind our back.
        """

    async def domain_xml(self, uuid: str, *, inactive: bool = False) -> str:
        """The domain's document as libvirt keeps it. Raises NotFound."""

    async def set_metadata(self, uuid: str, xml: str) -> None:
        """Replace our metadata element, in the running domain and in its definition."""

    async def attach_device(self, uuid: str, xml: str) -> None:
        """Plug a device into the running domain and its definition; one with that alias that is there is left alone.

        Raises Refused(NoHotPlug) for a device that the host cannot plug in while the domain runs.
        """

    async def detach_device(self, uuid: str, alias: str) -> None:
        """Ask the guest to give a device up and wait for it; absent is done. Raises HostTimeout when it keeps it."""

    async def update_device(self, uuid: str, xml: str, *, force: bool = False) -> None:
        """Change a device in place (the medium of a CD-ROM, the bridge of a network card), in the running domain and
        its definition.

        force: open the tray of a CD-ROM drive though the guest holds it. Raises NotFound, Refused(TrayLocked) when the
        guest holds the tray (it was asked to let go, and may yet), Refused(NoTray) for a drive that was plugged in
        while the domain ran and whose medium cannot be changed: detach and attach it.
        """

    async def resize_block(self, uuid: str, path: str, size: int) -> None:
        """Grow a running domain's disk to size bytes. Never shrinks."""

    async def query_guest(self, uuid: str) -> GuestFacts | None:
        """Ask the guest agent; None where there is none. The answer is also kept in the observation."""

    async def freeze(self, uuid: str) -> None:
        """Have the guest agent freeze the guest's file systems; frozen is done.

        Raises Refused with AgentNotConnected or AgentUnresponsive. Whoever froze a guest thaws it: nobody else will.
        """

    async def thaw(self, uuid: str) -> None:
        """Have the guest agent thaw the guest's file systems; not frozen is done.

        Raises Refused with AgentNotConnected or AgentUnresponsive, and then the guest may be frozen still.
        """

    # Drives of running domains ---------------------------------------------------------------------------------------
    # A drive is named by its device's alias, a layer by the path that the observation shows. Each raises
    # NotFound(NoDevice), Refused(NotRunning), Refused(ChainDiffers) when the layers are not what the call speaks of,
    # and Refused(BlockJobActive) when another block job has the drive. The definition follows the running domain.
    # A block job is QEMU's: it goes on, and ends, while the daemon is away; a daemon that comes back takes it over. It
    # dies with its QEMU: the leaf is then what it was before the job, unless the drive had been pivoted.

    async def snapshot(self, uuid: str, overlays: Mapping[str, str], *, quiesce: bool = False) -> None:
        """Have drives (alias → path of the overlay) go on with overlays that were made on their leaves, all of them at
        one instant; done if all of them have them already. Nothing is changed if it raises Refused.

        quiesce: freeze the guest's file systems around it. Raises Refused with VolumeMissing, ChainDiffers (also for an
        overlay that is made on another layer, or of another size), VolumeInUse, AgentNotConnected, AgentUnresponsive.
        """

    async def commit(self, uuid: str, alias: str, top: str, base: str, *, bandwidth: int = 0) -> None:
        """Begin to move what the layers from top down to above base hold into base. If top is the leaf, `pivot` to base
        ends it; else it ends by itself, and what was on top of top is then on top of base. The files stay.

        Done if base is the leaf or there is no top above base any more. A commit that runs keeps to the new bandwidth
        (bytes per second, 0: no limit). Raises Refused(VolumeInUse) when somebody else has base open.
        """

    async def copy_block(
        self, uuid: str, alias: str, target: str, form: str, *, shallow: bool = False, bandwidth: int = 0
    ) -> None:
        """Begin to copy a drive to the file at target, which is there already, as large as the drive, in that format;
        `pivot` to target ends it. shallow: only the leaf, onto the layer that target was made on.

        Done if target is the leaf. A copy that runs keeps to the new bandwidth. Raises Refused(VolumeMissing).
        """

    async def block_job(self, uuid: str, alias: str) -> BlockJob | None:
        """How the drive's block job stands; None where there is none."""

    async def pivot(self, uuid: str, alias: str, leaf: str) -> None:
        """Have the drive go on with leaf, to which its block job mirrors it; done if that is its leaf already.

        Raises Refused with JobNotReady, NoBlockJob (it failed or was cancelled: the drive is as it was), ChainDiffers.
        """

    async def cancel_job(self, uuid: str, alias: str) -> None:
        """End the drive's block job, which leaves the drive's layers as they are; none is done.

        What it wrote stays in base or target: base is hidden by the layers above it, target is of no use.
        """

    # Storage -------------------------------------------------------------------------------------------------------

    async def ensure_pool(self, xml: str) -> PoolInfo:
        """Have a storage pool over the directory that the document names. A pool that is over this directory already
        is used, whatever its name; from then on `pool` in the methods below means the directory's path.

        Raises Refused(PathMissing) when there is no such directory.
        """

    async def pool_info(self, pool: str) -> PoolInfo:
        """Size and free space of the file system, asked anew."""

    async def volume_names(self, pool: str, *, max_age: float = 0.0) -> FileNames:
        """The files in the directory, scanned anew unless a scan began no longer than max_age seconds ago."""

    async def volume(self, pool: str, name: str) -> Volume | None:
        """One file, as it is now; None where there is none: the directory is scanned before it counts as absent."""

    async def create_volume(self, pool: str, xml: str) -> Volume:
        """Make a new file. Raises AlreadyExists and never writes into one that is there, StorageFull.

        A document with a backing store makes an overlay on a file of the same directory, and names that file in the new
        one's header as the document does: by its bare name, so that a chain stays whole wherever the directory is
        mounted. Raises Refused(VolumeMissing) when there is no such file.
        """

    async def copy_volume(self, pool: str, xml: str, source: str) -> Volume:
        """Make a new file that holds what the volume named source holds, converted to the document's format.

        Bound: an hour. Raises AlreadyExists, NotFound (source), StorageFull.
        """

    async def resize_volume(self, pool: str, name: str, size: int) -> None:
        """Grow a volume that no domain uses to size bytes. Never shrinks."""

    async def delete_volume(self, pool: str, name: str) -> None:
        """Delete the file. Absent is done."""

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], *, size: int, offset: int = 0) -> None:
        """Write data, of size bytes in all, into the volume from byte offset on. No deadline but 60 s a chunk.

        What lies before and behind stays; a volume that ends before the data does grows with it, and bytes that nobody
        wrote are zero. Raises NotFound, StorageFull, Refused(SizeMismatch).
        """

    def download(self, pool: str, name: str, *, limit: int | None = None, offset: int = 0) -> AsyncIterator[bytes]:
        """The volume's bytes from byte offset on (at most limit of them, none behind its end), in chunks.

        Raises NotFound.
        """


HostListener = Callable[[str, str | None], None]
"""Called with (host, uuid) when something is newly observed of a domain, or (host, None) of the host itself. It is
called in the event loop, and must only take note."""


@dataclass(frozen=True)
class HostTarget:
    """How a host is to be reached: when any of it changes, the connection is made anew."""

    name: str
    uri: str
    credentials: dict[str, bytes] = field(default_factory=dict)
    """Keys of the credentials Secret: ca.crt, tls.crt, tls.key; ssh-privatekey, known_hosts; username, password."""
    heartbeat_seconds: int = 3
    audit_seconds: int = 300


class HostDirectory(Protocol):
    """All hosts of this process: connects, watches and gives them out."""

    def ensure(self, target: HostTarget) -> Hypervisor:
        """Have a connection to this target kept up from now on (same target again: the same one). Never blocks."""

    async def remove(self, name: str) -> None:
        """Close and forget a host."""

    def get(self, name: str) -> Hypervisor | None:
        """The host of that name, or None when it was never ensured."""

    def names(self) -> tuple[str, ...]:
        """All hosts."""

    def subscribe(self, listener: HostListener) -> None:
        """Hear of every new observation."""

    async def close(self) -> None:
        """Close everything."""
