"""Layers of images: overlays, snapshots of running domains, and block jobs."""

from __future__ import annotations

import asyncio
import random
import uuid

from drivers.contract import documents
from drivers.contract.bed import PREFIX, Bed, expect, refused, require
from drivers.contract.drives import DATA, ROOT, SLOW, TICKS_SECONDS, Counting, last_number
from drivers.errors import AlreadyExists, NotFound, Refused
from drivers.model import DomainState, JobKind, Work


async def an_overlay_shows_what_is_below_it(bed: Bed) -> None:
    """An overlay shows what the layer below holds, says which that is, and names it by its bare name and format."""
    content = random.Random(5).randbytes(2**20)  # noqa: S311 - any bytes do
    base = await bed.volume("raw", len(content))
    await bed.upload(base.name, content)
    middle = await bed.overlay(base)
    top = await bed.overlay(middle)
    for overlay, below in ((middle, base), (top, middle)):
        expect((overlay.backing, overlay.backing_format) == (below.path, below.format), f"{overlay}")
        expect(overlay.capacity == len(content), f"{overlay.capacity} bytes")
        head = await bed.download(overlay.name, 65536)
        at, length = int.from_bytes(head[8:16], "big"), int.from_bytes(head[16:20], "big")
        expect(head[at : at + length].decode() == below.name, f"the header says {head[at : at + length]!r}")
    expect(await bed.shown(top) == content, "what the lowest layer holds")
    await bed.sound(top, middle, base)
    again = documents.volume(top.name, "qcow2", len(content), below=(base.name, "raw"))
    await refused(bed.host.create_volume(bed.directory, again), AlreadyExists)
    absent = documents.volume(bed.volume_name("qcow2"), "qcow2", 2**20, below=(f"{PREFIX}none.raw", "raw"))
    await refused(bed.host.create_volume(bed.directory, absent), Refused, "VolumeMissing")
    await bed.host.resize_volume(bed.directory, top.name, 2**21)
    grown = require(await bed.host.volume(bed.directory, top.name), "the overlay")
    expect((grown.capacity, grown.backing) == (2**21, middle.path), f"{grown}")
    expect(await bed.shown(grown) == content.ljust(2**21, b"\0"), "grown by zeros")


async def a_snapshot_is_of_one_instant(bed: Bed) -> None:
    """Drives go on with overlays at one instant, while the guest writes; asking again changes nothing."""
    guest = await Counting.begin(bed)
    root, data = await guest.snapshot()
    await bed.host.snapshot(guest.uuid, {ROOT: root.path, DATA: data.path})
    await guest.has(ROOT, root, guest.root)
    await guest.has(DATA, data, guest.data)
    seen = require(bed.seen(guest.uuid), "seen")
    expect(sorted(seen.images) == sorted((root.path, data.path)), f"images: {seen.images}")
    for layer in (guest.root, guest.data):
        expect(layer.path in seen.opened, f"{layer.name} is in use")
        await refused(bed.host.delete_volume(bed.directory, layer.name), Refused, "VolumeInUse")
    before = [await last_number(bed, layer) for layer in (guest.root, guest.data)]
    expect(before[0] - before[1] in {0, 1}, f"at one instant: {before}")
    await guest.end()
    after = [await last_number(bed, layer) for layer in (root, data)]
    expect(min(after) > max(before), f"the guest wrote on, from {before} to {after}")
    expect([await last_number(bed, layer) for layer in (guest.root, guest.data)] == before, "and not below")
    await bed.sound(root, guest.root)
    await bed.sound(data, guest.data)
    await bed.host.start(guest.uuid)


async def a_snapshot_that_cannot_be_made_changes_nothing(bed: Bed) -> None:
    """A missing overlay, one made on another layer or of another size, a guest without an agent: Refused, no change."""
    first, second = await bed.volume(capacity=2**20), await bed.volume("raw", 2**20)
    identifier = await bed.running(
        documents.disk(first.path, "qcow2"), documents.disk(second.path, "raw", target="vdb")
    )
    good, other = await bed.overlay(first), await bed.overlay(second)
    larger = await bed.overlay(second, 2**21)
    snapshot, absent = bed.host.snapshot, f"{bed.directory}/{PREFIX}none.qcow2"
    refusals = (
        ({ROOT: good.path, DATA: absent}, False, "VolumeMissing"),
        ({ROOT: good.path, DATA: good.path}, False, "ChainDiffers"),
        ({ROOT: good.path, DATA: larger.path}, False, "ChainDiffers"),
        ({ROOT: good.path, DATA: second.path}, False, "ChainDiffers"),
        ({ROOT: good.path, DATA: other.path}, True, "AgentNotConnected"),
        ({ROOT: good.path, "ua-disk-none": other.path}, False, "NoDevice"),
    )
    for overlays, quiesce, reason in refusals:
        await refused(snapshot(identifier, overlays, quiesce=quiesce), Refused, reason)
        await bed.host.refresh(identifier)
        seen = require(bed.seen(identifier), "seen")
        expect(sorted(seen.images) == sorted((first.path, second.path)), f"after {reason}: {seen.images}")
        expect(seen.state is DomainState.RUNNING, f"after {reason}: {seen.state}")
    for call in (bed.host.freeze, bed.host.thaw):
        await refused(call(identifier), Refused, "AgentNotConnected")
    await bed.host.destroy(identifier)
    await refused(snapshot(identifier, {ROOT: good.path, DATA: other.path}), Refused, "NotRunning")
    await refused(snapshot(str(uuid.uuid4()), {ROOT: good.path}), NotFound)


async def layers_are_merged_while_a_guest_writes(bed: Bed) -> None:
    """Layers below the leaf and the leaf itself are committed while the guest writes, and nothing is lost; each call
    may be repeated at any time.
    """
    guest = await Counting.begin(bed)
    first, _ = await guest.snapshot()
    second, _ = await guest.snapshot()
    third, data = await guest.snapshot()
    await guest.has(ROOT, third, second, first, guest.root)

    for _ in range(2):
        await bed.host.commit(guest.uuid, ROOT, second.path, first.path)
    await guest.idle(ROOT)
    await bed.host.commit(guest.uuid, ROOT, second.path, first.path)
    await guest.has(ROOT, third, first, guest.root)
    expect(require(await bed.host.volume(bed.directory, third.name), "top").backing == first.path, "its header")
    await bed.host.delete_volume(bed.directory, second.name)

    await refused(bed.host.pivot(guest.uuid, ROOT, guest.root.path), Refused, "NoBlockJob")
    for _ in range(2):
        await bed.host.commit(guest.uuid, ROOT, third.path, guest.root.path)
    await guest.ready(ROOT)
    mirror = require(guest.drive(ROOT).mirror, "a mirror")
    expect((mirror.path, mirror.kind) == (guest.root.path, JobKind.ACTIVE_COMMIT), f"{mirror}")
    await refused(bed.host.pivot(guest.uuid, ROOT, first.path), Refused, "ChainDiffers")
    await refused(bed.host.commit(guest.uuid, ROOT, third.path, first.path), Refused, "BlockJobActive")
    for _ in range(2):
        await bed.host.pivot(guest.uuid, ROOT, guest.root.path)
        expect(await bed.host.block_job(guest.uuid, ROOT) is None, "no job any more")
        await bed.host.commit(guest.uuid, ROOT, third.path, guest.root.path)
        await guest.has(ROOT, guest.root)
    for volume in (first, third):
        await bed.host.delete_volume(bed.directory, volume.name)
    await refused(bed.host.commit(guest.uuid, ROOT, guest.root.path, first.path), Refused, "ChainDiffers")
    await asyncio.sleep(TICKS_SECONDS)
    await guest.end()
    numbers = [await last_number(bed, layer) for layer in (guest.root, data)]
    expect(numbers[0] - numbers[1] in {0, 1}, f"both disks to the end: {numbers}")
    await bed.sound(guest.root)


async def a_job_is_limited_and_cancelled(bed: Bed) -> None:
    """A block job keeps to its limit, which can be changed, shows how it stands, keeps others away, and is cancelled:
    the drive is then as it was.
    """
    guest = await Counting.begin(bed)
    root, data = await guest.snapshot()
    copy = await bed.volume(capacity=documents.COUNTED_BYTES)

    async def commit(limit: int) -> None:
        await bed.host.commit(guest.uuid, ROOT, root.path, guest.root.path, bandwidth=limit)

    async def move(limit: int) -> None:
        await bed.host.copy_block(guest.uuid, ROOT, copy.path, "qcow2", bandwidth=limit)

    for call, other, kind, leaf in (
        (commit, move, JobKind.ACTIVE_COMMIT, guest.root),
        (move, commit, JobKind.COPY, copy),
    ):
        await call(SLOW)
        for limit in (SLOW, SLOW, 2 * SLOW):
            await call(limit)
            job = require(await bed.host.block_job(guest.uuid, ROOT), "a job")
            expect((job.kind, job.bandwidth, job.ready) == (kind, limit, False), f"{job}")
            expect(0 <= job.done <= job.total, f"{job}")
        mirror = require(guest.drive(ROOT).mirror, "a mirror")
        expect((mirror.path, mirror.kind, mirror.ready) == (leaf.path, kind, False), f"{mirror}")
        await refused(bed.host.pivot(guest.uuid, ROOT, leaf.path), Refused, "JobNotReady")
        more = await bed.overlay(root)
        await refused(bed.host.snapshot(guest.uuid, {ROOT: more.path}), Refused, "BlockJobActive")
        await refused(other(0), Refused, "BlockJobActive")
        for _ in range(2):
            await bed.host.cancel_job(guest.uuid, ROOT)
            expect(await bed.host.block_job(guest.uuid, ROOT) is None, "cancelled")
        await guest.has(ROOT, root, guest.root)
        await call(0)
        await guest.ready(ROOT)
        job = require(await bed.host.block_job(guest.uuid, ROOT), "a job")
        expect(job.ready and job.total > 0, f"{job}")
        await bed.host.cancel_job(guest.uuid, ROOT)
        await guest.has(ROOT, root, guest.root)
    await guest.end()
    await bed.host.cancel_job(guest.uuid, ROOT)
    await refused(bed.host.block_job(guest.uuid, ROOT), Refused, "NotRunning")
    numbers = [await last_number(bed, layer) for layer in (root, data)]
    expect(numbers[0] - numbers[1] in {0, 1}, f"both disks to the end: {numbers}")
    await bed.sound(root, guest.root)


async def a_drive_moves_to_another_file(bed: Bed) -> None:
    """A drive is copied to another file while the guest writes, as a whole or its leaf alone, and goes on there."""
    guest = await Counting.begin(bed)
    root, _ = await guest.snapshot()
    absent, larger = f"{bed.directory}/{PREFIX}none.raw", await bed.volume("raw", 2 * documents.COUNTED_BYTES)
    await refused(bed.host.copy_block(guest.uuid, ROOT, absent, "raw"), Refused, "VolumeMissing")
    await refused(bed.host.copy_block(guest.uuid, ROOT, larger.path, "raw"), Refused, "ChainDiffers")
    twin = await bed.overlay(guest.root)
    await refused(bed.host.copy_block(guest.uuid, ROOT, twin.path, "qcow2"), Refused, "ChainDiffers")
    for shallow, target, layers in (
        (True, twin, (twin, guest.root)),
        (False, alone := await bed.volume("raw", documents.COUNTED_BYTES), (alone,)),
    ):
        for _ in range(2):
            await bed.host.copy_block(guest.uuid, ROOT, target.path, target.format, shallow=shallow)
        await guest.ready(ROOT)
        expect(target.path in require(bed.seen(guest.uuid), "seen").opened, "the copy is in use")
        for _ in range(2):
            await bed.host.pivot(guest.uuid, ROOT, target.path)
            await bed.host.copy_block(guest.uuid, ROOT, target.path, target.format, shallow=shallow)
            await guest.has(ROOT, *layers)
        await asyncio.sleep(TICKS_SECONDS)
    for left in (root, twin, guest.root):
        await bed.host.delete_volume(bed.directory, left.name)
    data = await guest.leaf(DATA)
    await guest.end()
    numbers = [await last_number(bed, layer) for layer in (alone, data)]
    expect(numbers[0] - numbers[1] in {0, 1}, f"both disks to the end: {numbers}")


async def layers_of_a_domain_that_is_off_are_merged_in_a_job_domain(bed: Bed) -> None:
    """A paused domain that is stamped as one for work, and no VM, runs block jobs on images that nobody else has."""
    guest = await Counting.begin(bed)
    first, _ = await guest.snapshot()
    second, data = await guest.snapshot()
    await guest.end()
    before = await last_number(bed, second)
    worker, name = str(uuid.uuid4()), f"{PREFIX}job-{uuid.uuid4().hex[:8]}"
    drive = documents.disk(second.path, "qcow2")
    await bed.host.define(documents.job_domain(name, worker, bed.facts, "operation-1", drive))
    await bed.host.start(worker, paused=True)
    seen = require(bed.seen(worker), "seen")
    expect((seen.identity, seen.work) == (None, Work("contract", "operation-1")), f"{seen.identity}, {seen.work}")
    inventory = require(bed.host.view().inventory, "a list")
    for layer in (second, first, guest.root):
        users = {domain.uuid for domain in inventory.having(layer.path)}
        expect(worker in users, f"{layer.name} is in use by it")
    await refused(bed.host.start(guest.uuid), Refused, "VolumeInUse")

    job = Counting(bed, worker, guest.root, data)
    await bed.host.commit(worker, ROOT, first.path, guest.root.path)
    await job.idle(ROOT)
    await job.has(ROOT, second, guest.root)
    await bed.host.commit(worker, ROOT, second.path, guest.root.path)
    await job.ready(ROOT)
    await bed.host.pivot(worker, ROOT, guest.root.path)
    await job.has(ROOT, guest.root)
    expect(require(bed.seen(worker), "seen").state is DomainState.PAUSED, "it never ran")
    await bed.host.resume(worker)
    await asyncio.sleep(TICKS_SECONDS)
    await bed.host.destroy(worker)
    await bed.host.undefine(worker)
    expect(await last_number(bed, guest.root) == before, "nothing is lost, and nothing boots though it was resumed")
    await bed.sound(guest.root)
    for left in (first, second):
        await bed.host.delete_volume(bed.directory, left.name)


CHECKS = (
    an_overlay_shows_what_is_below_it,
    a_snapshot_is_of_one_instant,
    a_snapshot_that_cannot_be_made_changes_nothing,
    layers_are_merged_while_a_guest_writes,
    a_job_is_limited_and_cancelled,
    a_drive_moves_to_another_file,
    layers_of_a_domain_that_is_off_are_merged_in_a_job_domain,
)
