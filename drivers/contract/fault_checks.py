"""What a driver promises when the host does not keep its own promises."""

from __future__ import annotations

import asyncio

from drivers.contract import documents
from drivers.contract.bed import Bed, Faults, eventually, expect, is_fresh, refused, require, within
from drivers.errors import HostUnavailable, NotConnected
from drivers.model import ConnectionState, DomainState, StopReason


def _faults(bed: Bed) -> Faults:
    return require(bed.faults, "faults can be made")


async def a_hung_daemon_costs_a_deadline(bed: Bed) -> None:
    """Calls to a daemon that hangs return in time; the host becomes Suspect, then refuses at once; all of it heals."""
    identifier = await bed.running()
    bed.heard.clear()
    await _faults(bed).hang()
    try:
        with within(45.0, "a call to a hung daemon"):
            await refused(bed.host.refresh(identifier), HostUnavailable)
        await eventually("suspect", lambda: bed.host.view().state is ConnectionState.SUSPECT, 30)
        view = bed.host.view()
        expect(not view.fresh and bed.seen(identifier), "the newest observation stays, and is not fresh")
        expect((bed.host.name, None) in bed.heard, "listeners heard of it")
        with within(0.5, "refusing"):
            await refused(bed.host.start(identifier), NotConnected)
            await refused(bed.host.volume_names(bed.directory), NotConnected)
    finally:
        await _faults(bed).resume()
    await eventually("connected and fresh again", lambda: is_fresh(bed.host), 60)
    expect(require(bed.seen(identifier), "seen").state is DomainState.RUNNING, "the guest ran on")


async def a_killed_guest_has_crashed(bed: Bed) -> None:
    """A domain whose process is killed is seen shut off with the reason Crashed, without asking."""
    identifier = await bed.running()
    await _faults(bed).kill_guest(require(bed.seen(identifier), "seen").name)
    stopped = await bed.comes_to(identifier, DomainState.SHUT_OFF)
    expect(stopped.stop_reason is StopReason.CRASHED, f"stopped by {stopped.stop_reason}")
    await bed.host.start(identifier)


async def a_restarted_daemon_is_listed_anew(bed: Bed) -> None:
    """After a restart of the daemon everything is listed anew; guests ran on, and why one is off is still known."""
    running, stopped = await bed.running(), await bed.running()
    await bed.host.destroy(stopped)
    listed = require(bed.host.view().inventory, "a list").listed_at
    await _faults(bed).restart_daemon()

    def listed_anew() -> bool:
        return is_fresh(bed.host) and require(bed.host.view().inventory, "a list").listed_at > listed

    await eventually("listed anew", listed_anew, 60)
    expect(require(bed.seen(running), "seen").state is DomainState.RUNNING, "the guest ran on")
    seen = require(bed.seen(stopped), "seen")
    expect(seen.stop_reason is StopReason.DESTROYED, f"stopped by {seen.stop_reason}")
    await bed.host.define(bed.domain()[1])


async def a_frozen_guest_delays_nobody(bed: Bed) -> None:
    """With one guest's process frozen, calls for others go on, lists are complete, and its power can be cut."""
    volume = await bed.volume()
    frozen = await bed.running(documents.disk(volume.path, "qcow2"))
    name = require(bed.seen(frozen), "seen").name
    await _faults(bed).freeze_guest(name)
    try:
        stuck = [asyncio.ensure_future(bed.host.resize_block(frozen, volume.path, 2**22)) for _ in range(4)]
        await asyncio.sleep(0.5)
        with within(60.0, "another guest's life"):
            second = await bed.running()
            await bed.host.destroy(second)
        with within(60.0, "a list"):
            await bed.host.refresh()
        expect(bed.seen(frozen), "the frozen one is in the list")
        with within(60.0, "cutting its power"):
            await bed.host.destroy(frozen)
    finally:
        await _faults(bed).thaw_guest(name)
    await asyncio.gather(*stuck, return_exceptions=True)
    await bed.comes_to(frozen, DomainState.SHUT_OFF)


CHECKS = (
    a_hung_daemon_costs_a_deadline,
    a_killed_guest_has_crashed,
    a_restarted_daemon_is_listed_anew,
    a_frozen_guest_delays_nobody,
)
