"""The VM's own files on its storage domain: the cloud-init seed, and the UEFI variables that libvirt makes.

Each is written down in the VM's status before it is made, and removed with the VM; a seed that is not used any more is
removed when the VM is off. A VM whose object was made anew has another status: what its domain has open is written down
when the domain is bound to it, and seeds of its name that nobody has open go when it starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import PurePosixPath

from crds.storage_domain import StorageDomain, StorageScope
from crds.virtual_machine import VirtualMachine, VMFile
from drivers.hypervisor import Hypervisor
from drivers.model import DomainObservation
from reconcilers.context import Context
from reconcilers.reach import working_host
from reconcilers.storage_domain.marker import DomainNotReachable
from reconcilers.virtual_machine.document import home
from reconcilers.virtual_machine.needs import Needs
from xmlgen import names
from xmlgen.sections import SEED_ALIAS
from xmlgen.seed import SeedInput, seed_digest, seed_iso
from xmlgen.volume import volume_xml


async def ensure_seed(
    ctx: Context, vm: VirtualMachine, needs: Needs, host: Hypervisor, path: str, seed: SeedInput
) -> None:
    """Have the seed on the storage. Its name carries the digest of its content: one that is whole is never rewritten.

    A seed without its last block is what a crash has left of an upload, and is made again. The VM is about to start, so
    it runs nowhere: what there is of seeds under its name and is not in its status was made for an earlier object.
    """
    place = home(needs)
    assert place is not None and place.domain is not None, "a VM with a seed has a first disk"
    pool, name = place.domain.spec.directory.path, PurePosixPath(path).name
    data = seed_iso(seed) + _last_block(seed)
    there = await host.volume_names(pool, max_age=2.0)
    recorded = {file.name for file in vm.status.files}
    for stale in there.starting(names.beginning(vm.metadata.namespace, vm.metadata.name)):
        if stale not in recorded and names.is_seed_of(stale, vm.metadata.namespace, vm.metadata.name):
            ctx.event(vm, "SeedRemoved", f"{stale}, of an earlier object of this name, is removed")
            await host.delete_volume(pool, stale)
    if name in there:
        content = b"".join([chunk async for chunk in host.download(pool, name, limit=len(data))])
        if content.endswith(_last_block(seed)):
            return
        await host.delete_volume(pool, name)
    await host.create_volume(pool, volume_xml(name, "raw", len(data)))
    await host.upload(pool, name, _chunks(data), size=len(data))


def opened_by(ctx: Context, vm: VirtualMachine, domain: DomainObservation, host: str) -> list[VMFile]:
    """The VM's own files that its domain has open: the seed, and the UEFI variables of the uid it is stamped with."""
    identity, found = domain.identity, list[VMFile]()
    if identity is None:
        return []
    storage = {at.spec.directory.path: at for at in ctx.objects.all(StorageDomain) if vm.spec.pool in at.spec.pools}
    sources = [device.source for device in domain.devices if device.alias == SEED_ALIAS and device.source]
    for path in map(PurePosixPath, (*sources, *domain.images)):
        is_seed = names.is_seed_of(path.name, identity.namespace, identity.name)
        is_nvram = path.name == names.nvram_name(identity.namespace, identity.name, identity.uid)
        at = storage.get(str(path.parent))
        if at is not None and (is_seed or is_nvram):
            local = at.spec.directory.scope is StorageScope.HOST_LOCAL
            found.append(VMFile(name=path.name, storage_domain=at.metadata.name, host=host if local else None))
    return found


def _last_block(seed: SeedInput) -> bytes:
    """A block behind the file system, which is written last: where it is, everything before it is."""
    return f"hostler-seed {seed_digest(seed)}".encode().ljust(2048, b"\0")


async def _chunks(data: bytes, size: int = 262144) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def remove_files(ctx: Context, vm: VirtualMachine, files: Iterable[VMFile]) -> str | None:
    """Delete these files; absent is done. Returns why it could not be done yet, or None.

    A StorageDomain object that is gone takes the knowledge of where the files are with it: they stay.
    """
    for file in files:
        domain = ctx.objects.get(StorageDomain, file.storage_domain)
        if domain is None:
            ctx.event(vm, "FileLeft", f"{file.name} is left: StorageDomain {file.storage_domain} is gone", warning=True)
            continue
        try:
            host = await working_host(ctx, domain, file.host)
        except DomainNotReachable as error:
            return error.message
        if host is None:
            return f"no host reaches storage domain {file.storage_domain}, where {file.name} is to be removed"
        await host.delete_volume(domain.spec.directory.path, file.name)
    return None
