"""What a driver promises when the host does not keep its own promises."""

from __future__ import annotations

import asyncio

from drivers.contract import documents
from drivers.contract.bed import Bed, Faults, eventually, expect, is_fresh, refused, require, within
from drivers.contract.drives import DATA, ROOT, SLOW, Counting, last_number
from drivers.errors import HostUnavailable, NotConnected, Refused
from drivers.model import ConnectionState, DomainState, JobKind, StopReason


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


async def a_block_job_outlives_its_daemon(bed: Bed) -> None:
    """A block job goes on when the daemon is killed in the middle: it can be limited and pivoted after it, and one
    that ended by itself meanwhile is seen to have ended. Nothing that the guest wrote is lost.
    """
    guest = await Counting.begin(bed)
    await guest.snapshot()
    root, data = await guest.snapshot()
    middle = require(data.backing, "a layer below")
    await bed.host.commit(guest.uuid, ROOT, root.path, guest.root.path, bandwidth=SLOW)
    await bed.host.commit(guest.uuid, DATA, middle, guest.data.path, bandwidth=2**20)
    listed = require(bed.host.view().inventory, "a list").listed_at
    await _faults(bed).restart_daemon(kill=True)

    def listed_anew() -> bool:
        return is_fresh(bed.host) and require(bed.host.view().inventory, "a list").listed_at > listed

    await eventually("listed anew", listed_anew, 60)
    job = require(await bed.host.block_job(guest.uuid, ROOT), "the job goes on")
    expect((job.kind, job.ready) == (JobKind.ACTIVE_COMMIT, False), f"{job}")
    await bed.host.commit(guest.uuid, ROOT, root.path, guest.root.path)
    await guest.ready(ROOT)
    await bed.host.pivot(guest.uuid, ROOT, guest.root.path)
    await guest.has(ROOT, guest.root)
    await guest.idle(DATA)
    await guest.has(DATA, data, guest.data)
    await guest.end()
    numbers = [await last_number(bed, layer) for layer in (guest.root, data)]
    expect(numbers[0] - numbers[1] in {0, 1}, f"both disks to the end: {numbers}")
    await bed.sound(guest.root)
    await bed.sound(data, guest.data)


async def a_killed_guest_keeps_its_leaf(bed: Bed) -> None:
    """A process that is killed while its block job is ready leaves the leaf where it was, in the definition too, and it
    starts again.
    """
    guest = await Counting.begin(bed)
    root, _ = await guest.snapshot()
    await bed.host.commit(guest.uuid, ROOT, root.path, guest.root.path)
    await guest.ready(ROOT)
    await _faults(bed).kill_guest(require(bed.seen(guest.uuid), "seen").name)
    await bed.comes_to(guest.uuid, DomainState.SHUT_OFF)
    expect(root.path in await bed.host.domain_xml(guest.uuid), "the definition has the leaf")
    expect(
        require(await bed.host.volume(bed.directory, root.name), "the leaf").backing == guest.root.path, "its header"
    )
    await refused(bed.host.pivot(guest.uuid, ROOT, guest.root.path), Refused, "NotRunning")
    await bed.host.start(guest.uuid)
    await guest.has(ROOT, root, guest.root)
    expect(await bed.host.block_job(guest.uuid, ROOT) is None, "no job")


CHECKS = (
    a_hung_daemon_costs_a_deadline,
    a_killed_guest_has_crashed,
    a_restarted_daemon_is_listed_anew,
    a_frozen_guest_delays_nobody,
    a_block_job_outlives_its_daemon,
    a_killed_guest_keeps_its_leaf,
)
