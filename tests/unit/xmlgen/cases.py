"""The domains that the golden files show, and how to make more of their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crds.host_pool import PoolBaseline
from crds.virtual_machine import VirtualMachineSpec
from xmlgen.domain import DomainInput, Drive, HostPlaceholders, Identity, Image, Kept, Nic

UUID = "2f7a8f0e-5d0c-4b1f-9a55-8f3f2d9b1c01"
BASELINE = PoolBaseline.model_validate(
    {
        "architecture": "x86_64",
        "virtualization": "qemu",
        "cpu": {"model": "qemu64", "features": ["+ssse3", "-svm"]},
        "machines": [{"family": "q35", "type": "pc-q35-7.2"}, {"family": "pc", "type": "pc-i440fx-7.2"}],
    }
)
LINUX = HostPlaceholders("qemu", ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"))


def spec(**fields: Any) -> VirtualMachineSpec:
    """A spec with what is required, and these fields as a manifest has them."""
    return VirtualMachineSpec.model_validate(
        {"runPolicy": "Always", "pool": "default", "memory": {"size": "64Mi"}} | fields
    )


def domain(
    declared: VirtualMachineSpec,
    *,
    kept: Mapping[str, Kept] | None = None,
    images: Callable[[str], Image | None] | None = None,
    name: str = "web",
    uuid: str = UUID,
    baseline: PoolBaseline = BASELINE,
    seed: str | None = None,
    nvram: str | None = None,
) -> DomainInput:
    """What the operator makes of a spec: every drive that refers to a Disk gets an image, every card the bridge
    that is called as its network."""
    find = images or (lambda drive: Image(f"/srv/shared/default.{name}-{drive}-0a1b2c3d.qcow2", "qcow2"))
    return DomainInput(
        identity=Identity("lab", "default", name, "0b1f7a52-7f5d-4b8e-8f0e-3f1c2d4e5f60", 1),
        uuid=uuid,
        spec=declared,
        baseline=baseline,
        drives=tuple(
            Drive.of(disk, declared.guest_os, find(disk.name) if disk.disk_ref or disk.template else None)
            for disk in declared.disks
        ),
        nics=tuple(Nic.of(nic, nic.network) for nic in declared.nics),
        seed=seed,
        nvram=nvram,
        kept=kept or {},
    )


def disk(name: str, **fields: Any) -> dict[str, Any]:
    """A drive with a Disk behind it, as a manifest has it."""
    return {"name": name, "diskRef": {"name": name}} | fields


def nic(name: str, **fields: Any) -> dict[str, Any]:
    """A network card, as a manifest has it."""
    return {"name": name, "network": "lan"} | fields


_ROOT = [disk("root")]
_LAN = [nic("lan")]
_EVERYTHING = {
    "watchdog": {"action": "poweroff"},
    "graphics": [{"type": "vnc"}],
    "video": "virtio",
}
_NOTHING = {
    "rng": "Disabled",
    "serialConsole": "Disabled",
    "guestAgent": "Disabled",
    "balloon": "Disabled",
}


def _sectors(drive: str) -> Image:
    return Image(f"/srv/shared/{drive}.raw", "raw", shared=drive == "quorum", discard="ignore", sector_size=4096)


CASES: dict[str, DomainInput] = {
    "linux-bios-q35": domain(
        spec(disks=_ROOT, nics=_LAN, cpu={"cores": 2}),
        seed="/srv/shared/default.web-0a1b2c3d.0123456789abcdef.seed.iso",
    ),
    "linux-bios-pc": domain(spec(machine="pc", disks=[disk("root"), disk("cd", type="cdrom", bus="sata")], nics=_LAN)),
    "linux-uefi": domain(
        spec(firmware={"type": "UEFI"}, disks=_ROOT, nics=_LAN, memory={"size": "256Mi"}),
        nvram="/srv/shared/default.web-0a1b2c3d.nvram.fd",
    ),
    "windows": domain(
        spec(
            guestOS="Windows",
            firmware={"type": "UEFI"},
            cpu={"sockets": 1, "cores": 2, "threads": 2},
            disks=[disk("system", bus="sata"), {"name": "drivers", "type": "cdrom"}],
            nics=[nic("lan", model="e1000e")],
            devices={"graphics": [{"type": "vnc"}]},
        ),
        nvram="/srv/shared/default.web-0a1b2c3d.nvram.fd",
        seed="/srv/shared/default.web-0a1b2c3d.0123456789abcdef.seed.iso",
    ),
    "windows-kvm": domain(
        spec(guestOS="Windows", disks=_ROOT, nics=_LAN),
        baseline=BASELINE.model_copy(update={"virtualization": "kvm"}),
    ),
    "other": domain(spec(guestOS="Other", machine="pc", disks=[disk("root"), disk("cd", type="cdrom")])),
    "all-devices": domain(
        spec(
            devices=_EVERYTHING,
            disks=[
                disk("root", bootOrder=2),
                disk("data", bus="scsi"),
                disk("old", bus="sata"),
                disk("install", type="cdrom"),
                {"name": "empty", "type": "cdrom", "bus": "sata"},
            ],
            nics=[nic("lan", bootOrder=1, mac="52:54:00:aa:bb:cc"), nic("dmz", model="e1000e")],
        ),
        seed="/srv/shared/default.web-0a1b2c3d.0123456789abcdef.seed.iso",
    ),
    "no-devices": domain(spec(devices=_NOTHING, cpu={"model": "Nehalem"})),
    "cluster-disks": domain(spec(disks=[disk("quorum", bus="scsi"), disk("log")]), images=_sectors),
    "kept-addresses": domain(
        spec(disks=[disk("new"), disk("root"), disk("lun", bus="scsi"), disk("lun2", bus="scsi")], nics=_LAN),
        kept={
            "ua-disk-root": Kept("ua-disk-root", "pci:0000:09:00.0", "vda"),
            "ua-disk-lun": Kept("ua-disk-lun", "drive:0:0:0:3", "sdb"),
            "ua-nic-lan": Kept("ua-nic-lan", "pci:0000:0b:00.0", None, "52:54:00:12:34:56"),
            "ua-balloon": Kept("ua-balloon", "pci:0000:03:00.0"),
        },
    ),
}
