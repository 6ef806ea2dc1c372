"""The guest's root file system: the files of ``root/``, busybox, the kernel modules and the guest agent."""

import gzip
import shutil
import stat
from pathlib import Path

from lab.guest.modules import load_order
from lab.guest.tools import GuestError, run

_RECIPE = Path(__file__).parent / "root"
_PROGRAMS = Path(__file__).parent / "programs"
_LOADER = "ld-linux-x86-64.so.2"
_SHUTDOWN = ("halt", "poweroff", "reboot")
"""What the guest's own shutdown is also called as."""


def find(root: Path, *candidates: str) -> Path:
    """The first of ``candidates`` (glob patterns below ``root``: releases put files under / or /usr)."""
    for candidate in candidates:
        found = sorted(root.glob(candidate))
        if found:
            return found[-1]
    raise GuestError(f"none of {', '.join(candidates)} is in the packages")


def kernel_version(packages: Path) -> str:
    """The version of the unpacked kernel, as ``uname -r`` will say it."""
    return find(packages, "boot/vmlinuz-*").name.removeprefix("vmlinuz-")


def assemble(packages: Path, tree: Path) -> None:
    """Fill the empty folder ``tree`` with the guest's files from the unpacked ``packages``."""
    version = kernel_version(packages)
    shutil.copytree(_RECIPE, tree)
    for name in _SHUTDOWN:
        # Made here: a symbolic link in the repository does not survive every way of copying one.
        (tree / "sbin" / name).symlink_to("shutdown")
    release = tree / "etc/os-release"
    release.write_text(release.read_text().replace("@KERNEL@", version))
    _install_busybox(find(packages, "bin/busybox", "usr/bin/busybox"), tree)
    _install_modules(find(packages, f"lib/modules/{version}", f"usr/lib/modules/{version}"), tree / "lib/modules")
    _install_agent(packages, tree)
    for source in sorted(_PROGRAMS.glob("*.c")):
        program = tree / "usr/lib/guest" / source.stem
        run("gcc", "-static", "-O2", "-s", "-Wall", "-Werror", "-o", str(program), str(source))


def pack(tree: Path, archive: Path) -> None:
    """Write ``tree`` as a compressed cpio archive that belongs to root, whoever runs this."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    options = ("--create", "--format=newc", "--owner=0:0", "--reproducible", "--quiet")
    content = run("cpio", *options, cwd=tree, stdin="\n".join(names).encode())
    archive.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))


def _install(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IWUSR)


def _install_busybox(busybox: Path, tree: Path) -> None:
    """Busybox and a link per applet, but where the guest has a command of its own."""
    _install(busybox, tree / "bin/busybox")
    for name in run(str(busybox), "--list-full").decode().split():
        link = tree / name
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")


def _install_modules(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    modules = load_order(source)
    for name, content in modules:
        (target / f"{name}.ko").write_bytes(content)
    (target / "order").write_text("".join(f"{name}.ko\n" for name, _ in modules))


def _install_agent(packages: Path, tree: Path) -> None:
    """The agent with the loader and the libraries that the loader itself finds among the packages."""
    agent = find(packages, "usr/sbin/qemu-ga", "usr/bin/qemu-ga")
    loader = find(packages, f"lib/x86_64-linux-gnu/{_LOADER}", f"usr/lib/x86_64-linux-gnu/{_LOADER}")
    folders = [packages / "lib/x86_64-linux-gnu", packages / "usr/lib/x86_64-linux-gnu"]
    path = ":".join(str(folder) for folder in folders)
    listing = run(str(loader), "--inhibit-cache", "--library-path", path, "--list", str(agent)).decode()
    for library in _library_files(listing):
        if not library.is_relative_to(packages):
            raise GuestError(f"{library.name} of the guest agent is not in the packages")
        _install(library, tree / "usr/lib/x86_64-linux-gnu" / library.name)
    _install(agent, tree / "usr/sbin/qemu-ga")
    _install(loader, tree / "lib64" / _LOADER)


def _library_files(listing: str) -> list[Path]:
    """The files in the loader's ``--list``: lines ``NAME => PATH (ADDRESS)``."""
    paths = [line.split("=>")[1].split("(")[0].strip() for line in listing.splitlines() if "=>" in line]
    # The loader lists itself; it is installed at the path that programs name.
    return [Path(path) for path in paths if not path.endswith(_LOADER)]
