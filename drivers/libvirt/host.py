"""A host behind libvirt, as the contract has it: each method is a call on the lane where it can delay nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Concatenate, ParamSpec

import libvirt

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
from drivers.libvirt import blocks, devices, domains, facts
from drivers.libvirt.channel import Channel, Observer
from drivers.libvirt.link import LibvirtLink
from drivers.libvirt.storage import Storage
from drivers.model import BlockJob, CPUModel, FileNames, PoolInfo, Volume

P = ParamSpec("P")


class LibvirtHost(LinkedHost[LibvirtLink]):
    """One host; a Hypervisor."""

    def __init__(self, target: HostTarget, listener: HostListener, observe: Observer) -> None:
        """Must be made within a running event loop; connects once `open` is called."""
        super().__init__(LibvirtLink(target, listener, observe))
        self._storage = Storage(self._link, self._link.image_in_use)
        self._link.on_pool_change(self._storage.forget)

    async def baseline_cpu(self, cpus: Sequence[str]) -> CPUModel:
        """See Hypervisor."""
        return await self._link.slow.call("baseline_cpu", facts.baseline, CALL_SECONDS, cpus)

    # Domains -------------------------------------------------------------------------------------------------------

    async def define(self, xml: str) -> None:
        """See Hypervisor."""
        uuid = await self._link.control.call("define", domains.define, CALL_SECONDS, xml)
        await self._link.read_soon(uuid)

    async def start(self, uuid: str, *, paused: bool = False) -> None:
        """See Hypervisor."""
        await self._on_domain(self._link.power, "start", domains.start, START_SECONDS, uuid, paused=paused)

    async def _shutdown_by_agent(self, uuid: str) -> None:
        await self._on_guest("shutdown_by_agent", domains.shutdown_by_agent, AGENT_SECONDS, uuid)

    async def _press_power(self, uuid: str) -> None:
        await self._on_guest("shutdown", domains.press_power, CALL_SECONDS, uuid)

    async def destroy(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_domain(self._link.power, "destroy", domains.destroy, DESTROY_SECONDS, uuid)

    async def reboot(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("reboot", domains.reboot, AGENT_SECONDS, uuid)

    async def reset(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("reset", domains.reset, CALL_SECONDS, uuid)

    async def suspend(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("suspend", domains.suspend, CALL_SECONDS, uuid)

    async def resume(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("resume", domains.resume, CALL_SECONDS, uuid)

    async def undefine(self, uuid: str, *, remove_nvram: bool = False) -> None:
        """See Hypervisor."""
        await self._on_domain(
            self._link.control, "undefine", domains.undefine, CALL_SECONDS, uuid, remove_nvram=remove_nvram
        )

    async def domain_xml(self, uuid: str, *, inactive: bool = False) -> str:
        """See Hypervisor."""
        control = self._link.control
        return await control.call("domain_xml", domains.domain_xml, CALL_SECONDS, uuid, inactive=inactive)

    async def set_metadata(self, uuid: str, xml: str) -> None:
        """See Hypervisor."""
        await self._on_guest("set_metadata", domains.set_metadata, CALL_SECONDS, uuid, xml)

    async def attach_device(self, uuid: str, xml: str) -> None:
        """See Hypervisor."""
        await self._on_guest("attach_device", devices.attach, DEVICE_SECONDS, uuid, xml)

    async def _places(self, uuid: str, alias: str) -> tuple[bool, bool]:
        places = await self._link.slow.call("detach_device", devices.present, CALL_SECONDS, uuid, alias)
        return bool(places & libvirt.VIR_DOMAIN_AFFECT_LIVE), bool(places & libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    async def _ask_to_leave(self, uuid: str, alias: str) -> None:
        try:
            await self._detach(uuid, alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except Refused as error:
            # The guest was asked before and has not answered yet.
            if "in the process of unplug" not in error.message:
                raise

    async def _detach_defined(self, uuid: str, alias: str) -> None:
        await self._detach(uuid, alias, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    async def _detach(self, uuid: str, alias: str, place: int) -> None:
        await self._link.slow.call("detach_device", devices.detach, DEVICE_SECONDS, uuid, alias, place)

    async def update_device(self, uuid: str, xml: str, *, force: bool = False) -> None:
        """See Hypervisor."""
        await self._on_guest("update_device", devices.update, DEVICE_SECONDS, uuid, xml, force=force)

    async def resize_block(self, uuid: str, path: str, size: int) -> None:
        """See Hypervisor."""
        await self._on_guest("resize_block", devices.resize_block, DEVICE_SECONDS, uuid, path, size)

    async def freeze(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("freeze", blocks.freeze, AGENT_SECONDS, uuid)

    async def thaw(self, uuid: str) -> None:
        """See Hypervisor."""
        await self._on_guest("thaw", blocks.thaw, AGENT_SECONDS, uuid)

    # Drives of running domains ---------------------------------------------------------------------------------------

    async def snapshot(self, uuid: str, overlays: Mapping[str, str], *, quiesce: bool = False) -> None:
        """See Hypervisor."""
        await self._on_guest("snapshot", blocks.snapshot, SNAPSHOT_SECONDS, uuid, overlays, quiesce=quiesce)

    async def commit(self, uuid: str, alias: str, top: str, base: str, *, bandwidth: int = 0) -> None:
        """See Hypervisor."""
        await self._on_guest("commit", blocks.commit, BLOCK_SECONDS, uuid, alias, top, base, bandwidth=bandwidth)

    async def copy_block(
        self, uuid: str, alias: str, target: str, form: str, *, shallow: bool = False, bandwidth: int = 0
    ) -> None:
        """See Hypervisor."""
        await self._on_guest(
            "copy_block", blocks.copy, BLOCK_SECONDS, uuid, alias, target, form, shallow=shallow, bandwidth=bandwidth
        )

    async def block_job(self, uuid: str, alias: str) -> BlockJob | None:
        """See Hypervisor."""
        async with self._turns.turn("block_job", uuid, CALL_SECONDS):
            return await self._link.slow.call("block_job", blocks.block_job, CALL_SECONDS, uuid, alias)

    async def pivot(self, uuid: str, alias: str, leaf: str) -> None:
        """See Hypervisor."""
        await self._on_guest("pivot", blocks.pivot, BLOCK_SECONDS, uuid, alias, leaf)

    async def cancel_job(self, uuid: str, alias: str) -> None:
        """See Hypervisor."""
        await self._on_guest("cancel_job", blocks.cancel, BLOCK_SECONDS, uuid, alias)

    # The ways of calls -----------------------------------------------------------------------------------------------

    async def _on_domain(
        self,
        channel: Channel,
        what: str,
        function: Callable[Concatenate[libvirt.virConnect, str, P], None],
        deadline: float,
        uuid: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Make a call that changes a domain, and read it anew, also after an error: a start may fail half way."""
        try:
            await channel.call(what, function, deadline, uuid, *args, **kwargs)
        finally:
            await self._link.read_soon(uuid)

    async def _on_guest(
        self,
        what: str,
        function: Callable[Concatenate[libvirt.virConnect, str, P], None],
        deadline: float,
        uuid: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Make a call that needs the domain's own QEMU, which may be frozen: on the slow lane, one per domain."""
        async with self._turns.turn(what, uuid, deadline):
            await self._on_domain(self._link.slow, what, function, deadline, uuid, *args, **kwargs)

    # Storage -------------------------------------------------------------------------------------------------------

    async def ensure_pool(self, xml: str) -> PoolInfo:
        """See Hypervisor."""
        return await self._storage.ensure_pool(xml)

    async def pool_info(self, pool: str) -> PoolInfo:
        """See Hypervisor."""
        return await self._storage.pool_info(pool)

    async def volume_names(self, pool: str, *, max_age: float = 0.0) -> FileNames:
        """See Hypervisor."""
        return await self._storage.volume_names(pool, max_age)

    async def volume(self, pool: str, name: str) -> Volume | None:
        """See Hypervisor."""
        return await self._storage.volume(pool, name)

    async def create_volume(self, pool: str, xml: str) -> Volume:
        """See Hypervisor."""
        return await self._storage.create_volume(pool, xml)

    async def copy_volume(self, pool: str, xml: str, source: str) -> Volume:
        """See Hypervisor."""
        return await self._storage.copy_volume(pool, xml, source)

    async def resize_volume(self, pool: str, name: str, size: int) -> None:
        """See Hypervisor."""
        await self._storage.resize_volume(pool, name, size)

    async def delete_volume(self, pool: str, name: str) -> None:
        """See Hypervisor."""
        await self._storage.delete_volume(pool, name)

    async def upload(self, pool: str, name: str, data: AsyncIterator[bytes], *, size: int, offset: int = 0) -> None:
        """See Hypervisor."""
        await self._storage.upload(pool, name, data, size, offset)

    def download(self, pool: str, name: str, *, limit: int | None = None, offset: int = 0) -> AsyncIterator[bytes]:
        """See Hypervisor."""
        return self._storage.download(pool, name, limit, offset)
