"""The driver contract, kept by the libvirt driver over every transport, against the lab's real hosts.

Runs inside the lab (`python -m lab exec -- python -m pytest ...`); LAB_STATE names it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio

from drivers.contract import Bed, Check, Contract
from drivers.hypervisor import HostTarget
from drivers.libvirt import LibvirtDirectory
from drivers.model import ConnectionState
from lab.api import Lab
from lab.errors import CommandFailedError
from lab.hosts import Host
from lab.pki import lab_authority

DIRECTORY = "/srv/local"
TRANSPORTS = ("tls", "ssh", "tcp", "unix")
# What a transport can change is tried over each of them, and everything over the first.
ON_EACH = {
    "a_connected_host_says_what_it_is",
    "a_refresh_is_complete_and_newer",
    "a_host_that_is_not_there_says_so_at_once",
    "what_others_do_is_seen",
    "older_never_overwrites_newer",
    "starting_twice_is_starting_once",
    "a_guest_that_powers_off_is_told_from_a_destroyed_one",
    "bytes_come_back_as_they_went",
    "bytes_go_where_they_were_sent",
    "an_upload_of_the_wrong_size_is_refused",
    "a_hung_daemon_costs_a_deadline",
    "a_restarted_daemon_is_listed_anew",
}
CHECKS = [
    pytest.param(transport, check, id=f"{transport}-{check.name}")
    for transport in TRANSPORTS
    for check in Contract.checks()
    if transport == TRANSPORTS[0] or check.name in ON_EACH
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class LabFaults:
    """Faults of one host of the lab."""

    host: Host

    async def hang(self) -> None:
        await asyncio.to_thread(self.host.hang)

    async def resume(self) -> None:
        await asyncio.to_thread(self.host.resume)

    async def restart_daemon(self, *, kill: bool = False) -> None:
        await asyncio.to_thread(self.host.daemon_kill if kill else self.host.daemon_stop)
        await asyncio.to_thread(self.host.daemon_start)

    async def kill_guest(self, name: str) -> None:
        await asyncio.to_thread(self.host.qemu_kill, name)

    async def freeze_guest(self, name: str) -> None:
        await asyncio.to_thread(self.host.qemu_stop, name)

    async def thaw_guest(self, name: str) -> None:
        if any(qemu.name == name for qemu in await asyncio.to_thread(self.host.qemus)):
            await asyncio.to_thread(self.host.qemu_cont, name)


@dataclass
class LabImages:
    """Images on one host of the lab, and the qemu-img there."""

    host: Host

    async def layers(self, path: str) -> list[str]:
        told = await self._ask("info", "--backing-chain", "--output=json", path)
        # A name without a path lies beside the image that names it; qemu-img puts that image's folder before it.
        return [layer["filename"] for layer in json.loads(told)]

    async def damage(self, path: str) -> str:
        try:
            await self._ask("check", "-q", path)
        except CommandFailedError as error:
            return str(error)
        return ""

    async def _ask(self, *words: str) -> str:
        return await asyncio.to_thread(self.host.run, "qemu-img", *words)


def target(lab: Lab, transport: str, name: str) -> tuple[HostTarget, Host]:
    """How a host of the lab is reached over a transport, and the host."""
    host = lab.host("kvm2" if transport in {"ssh", "tcp"} else "kvm1")
    uri = {"tls": host.uri_tls, "ssh": host.uri_ssh, "tcp": host.uri_tcp, "unix": host.uri_unix}[transport]
    assert uri is not None
    return HostTarget(name, uri, credentials(lab, transport), heartbeat_seconds=3), host


def credentials(lab: Lab, transport: str) -> dict[str, bytes]:
    """What a credentials Secret for this transport holds."""
    if transport == "tls":
        return {key: (lab.state.pki / "client" / key).read_bytes() for key in ("ca.crt", "tls.crt", "tls.key")}
    if transport == "ssh":
        keys = lab.state.pki / "ssh"
        return {
            "ssh-privatekey": (keys / "id_ed25519").read_bytes(),
            "known_hosts": (keys / "known_hosts").read_bytes(),
        }
    return {}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beds(lab: Lab) -> AsyncIterator[dict[str, Bed]]:
    """One bed for each transport, made when it is first used."""
    directory = LibvirtDirectory(asyncio.get_running_loop())
    made: dict[str, Bed] = {}
    heard: list[tuple[str, str | None]] = []
    directory.subscribe(lambda host, uuid: heard.append((host, uuid)))
    for transport in TRANSPORTS:
        way, host = target(lab, transport, transport)
        made[transport] = Bed(
            host=directory.ensure(way),
            other=directory.ensure(HostTarget(f"{transport}-other", way.uri, way.credentials)),
            unreachable=directory.ensure(HostTarget(f"{transport}-nobody", "qemu+tcp://10.77.0.250/system")),
            directory=DIRECTORY,
            heard=heard,
            faults=LabFaults(host),
            images=LabImages(host),
        )
    yield made
    await directory.close()


@pytest.mark.parametrize(("transport", "check"), CHECKS)
async def test_the_contract_is_kept(beds: dict[str, Bed], transport: str, check: Check) -> None:
    await Contract.run_check(beds[transport], check)


def _spoiled(lab: Lab, fault: str) -> HostTarget:
    """A target that cannot be connected to, for the reason that is its name."""
    kvm1, kvm2 = lab.host("kvm1"), lab.host("kvm2")
    tls, ssh = credentials(lab, "tls"), credentials(lab, "ssh")
    stranger = lab.state.pki / "stranger"
    match fault:
        case "BadURI":
            return HostTarget("bad", "http://kvm1.lab/")
        case "BadURI-command":
            return HostTarget("bad", "qemu+ssh://kvm1.lab/system?command=/bin/true", ssh)
        case "TLSRefused-by-host":
            return HostTarget("bad", kvm1.uri_tls, {key: (stranger / key).read_bytes() for key in tls})
        case "TLSRefused-by-us":
            return HostTarget("bad", kvm1.uri_tls, tls | {"ca.crt": (stranger / "authority" / "ca.crt").read_bytes()})
        case "TLSRefused-wrong-key":
            return HostTarget("bad", kvm1.uri_tls, tls | {"tls.key": (stranger / "tls.key").read_bytes()})
        case "CertificateExpired":
            expired = lab_authority(lab.state.pki).issue(
                lab.state.pki / "expired", "tls", "operator", lifetime=timedelta(minutes=-1)
            )
            pair = {"tls.crt": expired.certificate.read_bytes(), "tls.key": expired.key.read_bytes()}
            return HostTarget("bad", kvm1.uri_tls, tls | pair)
        case "AuthFailed":
            return HostTarget("bad", str(kvm2.uri_ssh), ssh | {"ssh-privatekey": b"no key"})
        case "HostKeyUnknown":
            other = ssh["known_hosts"].replace(b"kvm", b"other")
            return HostTarget("bad", str(kvm2.uri_ssh), ssh | {"known_hosts": other})
        case "Unresolvable":
            return HostTarget("bad", "qemu+tls://nobody.lab/system", tls)
        case "Unresolvable-ssh":
            return HostTarget("bad", "qemu+ssh://nobody.lab/system", ssh)
        case "Unreachable":
            return HostTarget("bad", "qemu+tcp://kvm1.lab:1/system")
        case "Unreachable-unix":
            return HostTarget("bad", "qemu+unix:///system?socket=/nowhere/libvirt-sock")
        case _:
            return HostTarget("bad", kvm1.uri_tls, {"ca.crt": tls["ca.crt"]})


@pytest.mark.parametrize(
    "fault",
    [
        "BadURI",
        "BadURI-command",
        "TLSRefused-by-host",
        "TLSRefused-by-us",
        "TLSRefused-wrong-key",
        "CertificateExpired",
        "AuthFailed",
        "HostKeyUnknown",
        "Unresolvable",
        "Unresolvable-ssh",
        "Unreachable",
        "Unreachable-unix",
        "CredentialsIncomplete",
    ],
)
async def test_a_connection_that_is_refused_says_why_and_heals(lab: Lab, fault: str) -> None:
    directory = LibvirtDirectory(asyncio.get_running_loop())
    try:
        host = directory.ensure(_spoiled(lab, fault))
        async with asyncio.timeout(60):
            while host.view().error is None:
                await asyncio.sleep(0.05)
        error = host.view().error
        assert error is not None
        assert error.reason == fault.partition("-")[0], error.message
        assert host.view().state is ConnectionState.CONNECTING
        # Another target under the same name is a new connection.
        way, _ = target(lab, "tls", "bad")
        mended = directory.ensure(way)
        assert mended is not host
        assert directory.ensure(way) is mended
        async with asyncio.timeout(90):
            while mended.view().state is not ConnectionState.CONNECTED:
                await asyncio.sleep(0.05)
        assert mended.view().error is None
    finally:
        await directory.close()
    assert directory.names() == ()
