"""From a VM and what it needs to the input of its domain document. Pure but for the cache, where MACs are compared."""

from __future__ import annotations

from dataclasses import dataclass

from crds.quantity import to_bytes
from crds.storage_domain import StorageDomain
from crds.virtual_machine import POOL_BASELINE, CloudInit, DiskType, FirmwareType, VirtualMachine, VMFile
from drivers.model import HostFacts
from placement import Request, memory_overhead
from reconcilers.context import Context
from reconcilers.virtual_machine.needs import Drive, Needs
from xmlgen import domain as xml
from xmlgen import inputs, mac, names
from xmlgen.metadata import Identity
from xmlgen.seed import SeedInput, seed_digest


@dataclass(frozen=True)
class Files:
    """Where the VM's own files lie; paths are None for what the VM does not have."""

    seed: str | None
    nvram: str | None
    records: tuple[VMFile, ...]


def placement_request(vm: VirtualMachine, needs: Needs, *, only: frozenset[str] | None) -> Request:
    """What the VM asks of a host. `only`: hosts that alone may take it."""
    model = vm.spec.cpu.model
    size = to_bytes(vm.spec.memory.size)
    return Request(
        cpus=vm.spec.cpu.count,
        memory=size + memory_overhead(size, vm.spec.cpu.count),
        host=vm.spec.placement.host,
        host_selector=vm.spec.placement.host_selector,
        storage_domains=needs.storage_domains,
        networks=frozenset(needs.networks),
        hosts=needs.hosts,
        only=only,
        cpu_model=None if model == POOL_BASELINE else model,
        uefi=vm.spec.firmware.type is FirmwareType.UEFI,
    )


def seed_input(vm: VirtualMachine, user_data: str | None) -> SeedInput | None:
    """What cloud-init shall find, or None for a VM without it. The instance id is the VM's uid: new for a new VM."""
    data: CloudInit | None = vm.spec.cloud_init
    if data is None:
        return None
    return SeedInput(
        instance_id=vm.metadata.uid,
        hostname=vm.metadata.name,
        user_data=user_data if user_data is not None else (data.user_data or ""),
        network_data=data.network_data,
    )


def home(needs: Needs) -> Drive | None:
    """The first drive with a disk: the VM's own files lie beside it."""
    return next((d for d in needs.drives if d.disk is not None and d.spec.type is DiskType.DISK), None)


def files_of(vm: VirtualMachine, needs: Needs, seed: SeedInput | None) -> Files:
    """The VM's own files under this spec. `home(needs)` must be there when the VM has any."""
    place = home(needs)
    if place is None or place.disk is None or place.domain is None:
        return Files(None, None, ())
    meta, records, paths = vm.metadata, [], dict[str, str]()
    wanted = {
        "seed": names.seed_name(meta.namespace, meta.name, meta.uid, seed_digest(seed)) if seed is not None else None,
        "nvram": names.nvram_name(meta.namespace, meta.name, meta.uid)
        if vm.spec.firmware.type is FirmwareType.UEFI
        else None,
    }
    for role, name in wanted.items():
        if name is not None:
            paths[role] = path_on(place.domain, name)
            records.append(VMFile(name=name, storage_domain=place.domain.metadata.name, host=place.disk.status.host))
    return Files(paths.get("seed"), paths.get("nvram"), tuple(records))


def path_on(domain: StorageDomain, name: str) -> str:
    """Absolute path of a file of a storage domain, the same on every host."""
    return f"{domain.spec.directory.path}/{name}"


def domain_input(
    ctx: Context, vm: VirtualMachine, needs: Needs, files: Files, *, epoch: int, uuid: str
) -> inputs.DomainInput:
    """The input of the domain document. `needs` must have no problems."""
    baseline = needs.pool.status.baseline if needs.pool is not None else None
    assert baseline is not None, "resolved needs have a pool with a baseline"
    kept = {d.name: inputs.Kept(d.name, d.address, d.target, d.mac) for d in vm.status.devices}
    return inputs.DomainInput(
        identity=Identity(ctx.installation, vm.metadata.namespace, vm.metadata.name, vm.metadata.uid, epoch),
        uuid=uuid,
        spec=vm.spec,
        baseline=baseline,
        drives=tuple(_drive(vm, d) for d in needs.drives),
        nics=tuple(_nics(ctx, vm, needs)),
        seed=files.seed,
        nvram=files.nvram,
        kept=kept,
    )


def _drive(vm: VirtualMachine, drive: Drive) -> inputs.Drive:
    disk = drive.disk
    image = inputs.Image.of(disk.spec, disk.status.path) if disk is not None and disk.status.path is not None else None
    return inputs.Drive.of(drive.spec, vm.spec.guest_os, image)


def _nics(ctx: Context, vm: VirtualMachine, needs: Needs) -> list[inputs.Nic]:
    kept = {d.name: d.mac for d in vm.status.devices if d.mac is not None}
    return [
        inputs.Nic.of(
            nic,
            needs.networks[nic.network].spec.bridge.name,
            kept.get(f"ua-nic-{nic.name}") or _free_mac(ctx, vm, nic.name),
        )
        for nic in vm.spec.nics
    ]


def _free_mac(ctx: Context, vm: VirtualMachine, nic: str) -> str:
    """The VM's own stable MAC; the next one in the rare case that another VM has it."""
    attempt = 0
    while True:
        address = mac.stable_mac(vm.metadata.uid, nic, attempt)
        others = ctx.objects.by_index(VirtualMachine, "mac", address)
        if all(other.metadata.uid == vm.metadata.uid for other in others):
            return address
        attempt += 1


def placeholders(facts: HostFacts, needs: Needs) -> xml.HostPlaceholders:
    """What the host fills in. How guests run is the pool's: kvm only where every host can."""
    baseline = needs.pool.status.baseline if needs.pool is not None else None
    return xml.HostPlaceholders(
        virtualization=baseline.virtualization if baseline is not None else facts.virtualization,
        uefi=facts.firmware_uefi,
    )
