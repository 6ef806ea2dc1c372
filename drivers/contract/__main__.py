"""`python -m drivers.contract --uri URI`: find out whether a host does all that Hostler relies on."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from drivers.contract.bed import PREFIX, Bed
from drivers.contract.suite import Check, Contract
from drivers.contract.timings import Timings
from drivers.errors import ConnectFailed, HypervisorError
from drivers.hypervisor import HostTarget
from drivers.libvirt import LibvirtDirectory
from drivers.libvirt.uri import check_credentials, parse
from drivers.model import ConnectionState

NOBODY = "qemu+tcp://127.0.0.1:1/system"
"""Where nothing listens."""
CONNECT_SECONDS = 60.0
KEYS = ("ca.crt", "tls.crt", "tls.key", "ssh-privatekey", "known_hosts", "username", "password")
_DESCRIPTION = f"""\
Tries on a real host what Hostler relies on. Everything that it makes is named {PREFIX}…: domains of 16 MiB and small
files, removed after each check, and a storage pool over the directory, unless there is one already; the pool stays
(virsh pool-destroy ends it). Domains and files of that name that are there before are removed too; nothing else is
touched."""


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0 if all promises are kept, 1 if not; bad arguments end in status 2."""
    given = _parse(arguments)
    checks = [check for check in Contract.checks() if not given.check or check.name in given.check]
    if given.list:
        for check in checks:
            print(f"{check.name}\n    {check.promise}")
        return 0
    return asyncio.run(_try(given.target, given.directory, checks, given.latencies))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m drivers.contract",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--uri", help="how libvirt reaches the host, as in a Host's spec: qemu+tls://kvm1/system")
    parser.add_argument(
        "--credentials", type=Path, metavar="DIR", help=f"a folder of files named as a Secret's keys: {', '.join(KEYS)}"
    )
    parser.add_argument(
        "--directory", default="/var/lib/libvirt/images", metavar="PATH", help="where files may be made (%(default)s)"
    )
    parser.add_argument("--check", action="append", metavar="NAME", help="only this check; may be repeated")
    parser.add_argument("--list", action="store_true", help="say what is checked, and check nothing")
    parser.add_argument("--latencies", action="store_true", help="print how long each kind of call took, in the end")
    given = parser.parse_args(arguments)
    names = {check.name for check in Contract.checks()}
    for name in given.check or ():
        if name not in names:
            parser.error(f"there is no check {name!r}: --list shows them all")
    if given.list:
        return given
    if not given.uri:
        parser.error("--uri is needed: the host that is to be tried")
    if not given.directory.startswith("/"):
        parser.error(f"--directory {given.directory}: a path on the host begins with /")
    try:
        given.target = HostTarget("host", given.uri, _credentials(given.credentials))
        check_credentials(parse(given.uri), given.target)
    except (ConnectFailed, OSError) as error:
        parser.error(str(error).replace("the host's credentials Secret", "the folder of --credentials"))
    return given


def _credentials(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise NotADirectoryError(f"--credentials {folder} is no folder")
    return {key: (folder / key).read_bytes() for key in KEYS if (folder / key).is_file()}


async def _try(target: HostTarget, path: str, checks: list[Check], latencies: bool) -> int:
    timings = Timings()
    directory = LibvirtDirectory(asyncio.get_running_loop(), timings)
    heard: list[tuple[str, str | None]] = []
    directory.subscribe(lambda host, uuid: heard.append((host, uuid)))
    try:
        bed = Bed(
            host=directory.ensure(target),
            other=directory.ensure(HostTarget("other", target.uri, target.credentials)),
            unreachable=directory.ensure(HostTarget("nobody", NOBODY)),
            directory=path.rstrip("/"),
            heard=heard,
        )
        if complaint := await _usable(bed):
            print(complaint, file=sys.stderr)
            return 1
        kept = await _run(bed, checks)
    finally:
        await directory.close()
    if latencies:
        print(f"\nSeconds by call, median and 95th percentile:\n{timings.table()}")
    return 0 if kept else 1


async def _usable(bed: Bed) -> str | None:
    """What keeps the checks from beginning at all; None if they can."""
    for _ in range(int(CONNECT_SECONDS / 0.1)):
        view = bed.host.view()
        if view.state is ConnectionState.CONNECTED:
            break
        if view.error is not None:
            return f"no connection to the host: {view.error.reason}: {view.error.message}"
        await asyncio.sleep(0.1)
    else:
        return f"no connection to the host within {CONNECT_SECONDS:g} s"
    try:
        await bed.host.ensure_pool(bed.pool)
    except HypervisorError as error:
        return f"the directory {bed.directory} of the host cannot be used: {error.reason}: {error.message}"
    return None


async def _run(bed: Bed, checks: list[Check]) -> bool:
    """Run checks, with a line for each; whether all that ran were kept."""
    kept = failed = 0
    for check in checks:
        outcomes = await Contract.run(bed, [check])
        if not outcomes:
            print(f"not run            {check.name}: it stops the daemon or kills guests, which needs root on the host")
        for outcome in outcomes:
            if outcome.error is None:
                kept += 1
                print(f"ok      {outcome.seconds:7.1f} s  {check.name}", flush=True)
            else:
                failed += 1
                told = str(outcome.error) or type(outcome.error).__name__
                print(f"failed  {outcome.seconds:7.1f} s  {check.name}: {told}", flush=True)
                print(f"                   promised: {check.promise}")
    print(f"\n{kept} kept, {failed} failed, {len(checks) - kept - failed} not run")
    return failed == 0


if __name__ == "__main__":
    sys.exit(main())
