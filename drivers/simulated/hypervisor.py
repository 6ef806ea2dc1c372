"""A simulated machine as the contract has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from drivers import deadlines
from drivers.deadlines import (
    AGENT_SECONDS,
    BLOCK_SECONDS,
    CALL_SECONDS,
    DESTROY_SECONDS,
    DEVICE_SECONDS,
    SNAPSHOT_SECONDS,
    START_SECONDS,
)
from drivers.errors import Refused
from drivers.host import LinkedHost
from drivers.hypervisor import HostListener, HostTarget
from drivers.model import BlockJob, CPUModel, FileNames, PoolInfo, Volume
from drivers.scans import Scans
from drivers.simulated import blocks, devices, domains, platform, pools
from drivers.simulated.daemon import Daemon
from drivers.simulated.link import SimulatedLink
from drivers.simulated.pools import CHUNK
from drivers.simulated.wire import Effect, Sender
from drivers.simulated.world import World


class SimulatedHost(LinkedHost[SimulatedLink]):
    """One host; a Hypervisor."""

    def __init__(self, target: HostTarget, world: World, sender: Sender, listener: HostListener) -> None:
        """Must be made within a running event loop; connects once `open` is called."""
        super().__init__(SimulatedLink(target, world, sender, listener))
        self._who = sender.name
        self._scans = Scans()

    def abandon(self) -> None:
        """The process died: do nothing more."""
        self._link.abandon()

    async def baseline_cpu(self, cpus: Sequence[str]) -> CPUModel:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> CPUModel:
            del daemon
            try:
                return platform.baseline(cpus)
            except ValueError as error:
                raise Refused(f"baseline_cpu: {error}", reason="OperationFailed") from error

        found: CPUModel = await self._link.call("baseline_cpu", effect, CALL_SECONDS)
        return found

    # Domains -------------------------------------------------------------------------------------------------------

    async def define(self, xml: str) -> None:
        """See Hypervisor."""
        uuid = await self._link.call("define", lambda daemon: domains.define(daemon, xml, self._who), CALL_SECONDS)
        await self._link.read_soon(uuid)

    async def start(self, uuid: str, *, paused: bool = False) -> None:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> None:
            domains.start(daemon, uuid, self._who, paused=paused)

        await self._on_domain("start", effect, START_SECONDS, uuid)

    async def _shutdown_by_agent(self, uuid: str) -> None:
        await self._on_guest("shutdown", lambda daemon: domains.shutdown_by_agent(daemon, uuid), AGENT_SECONDS, uuid)

    async def _press_power(self, uuid: str) -> None:
        await self._on_guest("shutdown", lambda daemon: domains.press_power(daemon, uuid), CALL_SECONDS, uuid)

    async def destroy(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_domain("destroy", lambda daemon: domains.destroy(daemon, uuid, self._who), DESTROY_SECONDS, uuid)

    async def reboot(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("reboot", lambda daemon: domains.reset(daemon, uuid), AGENT_SECONDS, uuid)

    async def reset(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("reset", lambda daemon: domains.reset(daemon, uuid), CALL_SECONDS, uuid)

    async def suspend(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("suspend", lambda daemon: domains.suspend(daemon, uuid), CALL_SECONDS, uuid)

    async def resume(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("resume", lambda daemon: domains.resume(daemon, uuid), CALL_SECONDS, uuid)

    async def undefine(self, uuid: str, *, remove_nvram: bool = False) -> None:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> None:
            domains.undefine(daemon, uuid, self._who, remove_nvram=remove_nvram)

        await self._on_domain("undefine", effect, CALL_SECONDS, uuid)

    async def domain_xml(self, uuid: str, *, inactive: bool = False) -> str:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> str:
            return domains.domain_xml(daemon, uuid, inactive=inactive)

        xml: str = await self._link.call("domain_xml", effect, CALL_SECONDS, uuid=uuid, guest=not inactive)
        return xml

    async def set_metadata(self, uuid: str, xml: str) -> None:
        """See Hypervisor."""
        await self._on_guest("set_metadata", lambda daemon: domains.set_metadata(daemon, uuid, xml), CALL_SECONDS, uuid)

    async def attach_device(self, uuid: str, xml: str) -> None:
        """See Hypervisor."""
        await self._on_guest("attach_device", lambda daemon: devices.attach(daemon, uuid, xml), DEVICE_SECONDS, uuid)

    async def _places(self, uuid: str, alias: str) -> tuple[bool, bool]:
        found: tuple[bool, bool] = await self._link.call(
            "detach_device", lambda daemon: devices.present(daemon, uuid, alias), CALL_SECONDS, uuid=uuid, guest=True
        )
        return found

    async def _ask_to_leave(self, uuid: str, alias: str) -> None:
        await self._detach(lambda daemon: devices.unplug(daemon, uuid, alias), uuid)

    async def _detach_defined(self, uuid: str, alias: str) -> None:
        await self._detach(lambda daemon: devices.detach_definition(daemon, uuid, alias), uuid)

    async def _detach(self, effect: Effect, uuid: str) -> None:
        await self._link.call("detach_device", effect, DEVICE_SECONDS, uuid=uuid, guest=True)

    async def update_device(self, uuid: str, xml: str, *, force: bool = False) -> None:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> object:
            return devices.update_device(daemon, uuid, xml, force=force)

        await self._on_guest("update_device", effect, DEVICE_SECONDS, uuid)

    async def resize_block(self, uuid: str, path: str, size: int) -> None:
        """See Hypervisor."""
        await self._on_guest(
            "resize_block", lambda daemon: devices.resize_block(daemon, uuid, path, size), DEVICE_SECONDS, uuid
        )

    async def freeze(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("freeze", lambda daemon: blocks.freeze(daemon, uuid), AGENT_SECONDS, uuid)

    async def thaw(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("thaw", lambda daemon: blocks.thaw(daemon, uuid), AGENT_SECONDS, uuid)

    # Drives of running domains ---------------------------------------------------------------------------------------

    async def snapshot(self, uuid: str, overlays: Mapping[str, str], *, quiesce: bool = False) -> None:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> None:
            blocks.snapshot(daemon, uuid, overlays, quiesce=quiesce)

        await self._on_guest("snapshot", effect, SNAPSHOT_SECONDS, uuid)

    async def commit(self, uuid: str, alias: str, top: str, base: str, *, bandwidth: int = 0) -> None:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> None:
            blocks.commit(daemon, uuid, alias, top, base, bandwidth=bandwidth)

        await self._on_guest("commit", effect, BLOCK_SECONDS, uuid)

    async def copy_block(
        self, uuid: str, alias: str, target: str, form: str, *, shallow: bool = False, bandwidth: int = 0
    ) -> None:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> None:
            blocks.copy(daemon, uuid, alias, target, form, shallow=shallow, bandwidth=bandwidth)

        await self._on_guest("copy_block", effect, BLOCK_SECONDS, uuid)

    async def block_job(self, uuid: str, alias: str) -> BlockJob | None:
        """See Hypervisor."""

        def effect(daemon: Daemon) -> BlockJob | None:
            return blocks.block_job(daemon, uuid, alias)

        async with self._turns.turn("block_job", uuid, CALL_SECONDS):
            job: BlockJob | None = await self._link.call("block_job", effect, CALL_SECONDS, uuid=uuid, guest=True)
        return job

    async def pivot(self, uuid: str, alias: str, leaf: str) -> None:
        """See Hypervisor."""
        await self._on_guest("pivot", lambda daemon: blocks.pivot(daemon, uuid, alias, leaf), BLOCK_SECONDS, uuid)

    async def cancel_job(self, uuid: str, alias: str) -> None:
        """See Hypervisor."""
        await self._on_guest("cancel_job", lambda daemon: blocks.cancel(daemon, uuid, alias), BLOCK_SECONDS, uuid)

    # The ways of calls -----------------------------------------------------------------------------------------------

    async def _on_domain(self, what: str, effect: Effect, deadline: float, uuid: str, *, guest: bool = False) -> None:
        """Make a call that changes a domain, and read it anew, also after an error: a start may fail half way."""
        self._link.require_connected()
        try:
            await self._link.call(what, effect, deadline, uuid=uuid, guest=guest)
        finally:
            await self._link.read_soon(uuid)

    async def _on_guest(self, what: str, effect: Effect, deadline: float, uuid: str) -> None:
        """Make a call that needs the domain's own QEMU, which may be frozen: one per domain."""
        async with self._turns.turn(what, uuid, deadline):
            await self._on_domain(what, effect, deadline, uuid, guest=True)

    # Storage -------------------------------------------------------------------------------------------------------

    async def ensure_pool(self, xml: str) -> PoolInfo:
        """See Hypervisor."""
        info: PoolInfo = await self._link.call(
            "ensure_pool", lambda daemon: pools.ensure_pool(daemon, xml), deadlines.SCAN_SECONDS
        )
        return info

    async def pool_info(self, pool: str) -> PoolInfo:
        """See Hypervisor."""
        info: PoolInfo = await self._link.call(
            "pool_info", lambda daemon: pools.pool_info(daemon, pool), deadlines.SCAN_SECONDS
        )
        return info

    async def volume_names(self, pool: str, *, max_age: float = 0.0) -> FileNames:
        """See Hypervisor."""

        async def scan() -> FileNames:
            names: FileNames = await self._link.call(
                "volume_names", lambda daemon: pools.volume_names(daemon, pool), deadlines.SCAN_SECONDS
            )
            return names

        return await self._scans.get(pool, max_age, scan)

    async def volume(self, pool: str, name: str) -> Volume | None:
        """See Hypervisor."""
        found: Volume | None = await self._link.call(
            "volume", lambda daemon: pools.describe(daemon, pool, name), deadlines.SCAN_SECONDS
        )
        return found

    async def create_volume(self, pool: str, xml: str) -> Volume:
        """See Hypervisor."""
        volume: Volume = await self._changing(
            pool, "create_volume", lambda daemon: pools.create_volume(daemon, pool, xml), deadlines.CREATE_SECONDS
        )
        return volume

    async def copy_volume(self, pool: str, xml: str, source: str) -> Volume:
        """See Hypervisor."""
        volume: Volume = await self._changing(
            pool, "copy_volume", lambda daemon: pools.copy_volume(daemon, pool, xml, source), deadlines.COPY_SECONDS
        )
        return volume

    async def resize_volume(self, pool: str, name: str, size: int) -> None:
        """See Hypervisor."""
        await self._refuse_in_use(pool, name)
        await self._changing(
            pool,
            "resize_volume",
            lambda daemon: pools.resize_volume(daemon, pool, name, size),
            deadlines.CREATE_SECONDS,
        )

    async def delete_volume(self, pool: str, name: str) -> None:
        """See Hypervisor."""
        await self._refuse_in_use(pool, name)
        await self._changing(
            pool, "delete_volume", lambda daemon: pools.delete_volume(daemon, pool, name), deadlines.CREATE_SECONDS
        )

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], *, size: int, offset: int = 0) -> None:
        """See Hypervisor."""
        store, file = await self._link.call(
            "upload", lambda daemon: pools.open_file(daemon, pool, name), deadlines.CHUNK_SECONDS
        )
        sent = 0
        try:
            async for chunk in data:
                sent += len(chunk)
                if sent > size:
                    raise Refused(f"upload of {name}: more than the {size} bytes announced", reason="SizeMismatch")
                at = offset + sent - len(chunk)

                def write(daemon: Daemon, at: int = at, chunk: bytes = chunk) -> None:
                    pools.write_file(daemon, store, file, name, at, chunk)

                await self._link.call("upload", write, deadlines.CHUNK_SECONDS)
            if sent != size:
                raise Refused(f"upload of {name}: {sent} of {size} bytes", reason="SizeMismatch")
        finally:
            self._scans.forget(pool)

    async def download(
        self, pool: str, name: str, *, limit: int | None = None, offset: int = 0
    ) -> AsyncIterator[bytes]:
        """See Hypervisor."""
        if limit == 0:
            return
        _, file = await self._link.call(
            "download", lambda daemon: pools.open_file(daemon, pool, name), deadlines.CHUNK_SECONDS
        )
        left = limit
        while left is None or left > 0:
            length = CHUNK if left is None else min(CHUNK, left)

            def read(daemon: Daemon, at: int = offset, length: int = length) -> bytes:
                del daemon
                return bytes(file.content.read(at, length))

            chunk: bytes = await self._link.call("download", read, deadlines.CHUNK_SECONDS)
            if not chunk:
                return
            offset += len(chunk)
            left = None if left is None else left - len(chunk)
            yield chunk

    async def _changing(self, pool: str, what: str, effect: Effect, deadline: float) -> Volume:
        try:
            volume: Volume = await self._link.call(what, effect, deadline)
            return volume
        finally:
            # Also after a failure: it may have left something, or taken it away.
            self._scans.forget(pool)

    async def _refuse_in_use(self, pool: str, name: str) -> None:
        path: str | None = await self._link.call(
            "volume_path", lambda daemon: pools.volume_path(daemon, pool, name), deadlines.SCAN_SECONDS
        )
        if path is not None and self._link.image_in_use(path):
            raise Refused(f"{path} belongs to a running domain", reason="VolumeInUse")
