"""The guest's boot disk: one FAT file system on the whole disk that starts by BIOS and by UEFI.

BIOS runs syslinux from the FAT's boot sector, UEFI finds systemd-boot at the fallback path; both load the same
kernel and initramfs. Everything is done by tools that write into files, so no root and no loop device is needed.
"""

import shutil
from pathlib import Path

from lab.guest.tools import run

VIRTUAL_SIZE = 64 * 1024 * 1024
"""The size of the disk as the guest sees it, in bytes: it fits into the smallest Disk that tests use."""

COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=3 mitigations=off nokaslr cryptomgr.notests "
    "initcall_blacklist=crypto_kdf108_init,init_kprobe_trace"
)
"""The kernel's command line: quiet, because the serial console carries the guest's own lines; without the self-tests of
ciphers and what else takes long under emulation and serves nothing here (two seconds of the boot)."""

LABEL = "LAB-GUEST"

_RECIPE = Path(__file__).parent / "boot"


def write(image: Path, work: Path, kernel: Path, initramfs: Path, uefi_loader: Path) -> None:
    """Write the compressed qcow2 ``image``; ``work`` is an existing folder for what is in between."""
    files = work / "boot"
    shutil.copytree(_RECIPE, files)
    for config in (files / "syslinux.cfg", files / "loader/entries/guest.conf"):
        config.write_text(config.read_text().replace("@COMMAND_LINE@", COMMAND_LINE))
    (files / "EFI/BOOT").mkdir(parents=True)
    shutil.copyfile(uefi_loader, files / "EFI/BOOT/BOOTX64.EFI")
    shutil.copyfile(kernel, files / "vmlinuz")
    shutil.copyfile(initramfs, files / "initrd")

    raw = work / "disk.raw"
    with raw.open("wb") as disk:
        disk.truncate(VIRTUAL_SIZE)
    run("mkfs.vfat", "-n", LABEL, "-i", "4c414247", str(raw))
    run("mcopy", "-s", "-m", "-i", str(raw), *(str(path) for path in sorted(files.iterdir())), "::/")
    run("syslinux", "--install", str(raw))
    run("qemu-img", "convert", "-O", "qcow2", "-c", str(raw), str(image))
