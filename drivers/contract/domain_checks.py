"""The life of a domain."""

from __future__ import annotations

import asyncio
import uuid

from drivers.contract import documents
from drivers.contract.bed import PREFIX, Bed, expect, refused, require, within
from drivers.errors import AlreadyExists, NotFound, Refused
from drivers.model import DomainState, Identity, StopReason


async def a_definition_is_seen_and_may_be_repeated(bed: Bed) -> None:
    """A defined domain is seen with its identity, sections and size; defining it again changes nothing."""
    identifier, document = bed.domain(epoch=7)
    await bed.host.define(document)
    first = require(bed.seen(identifier), "seen right after the call")
    await bed.host.define(document)
    expect(bed.seen(identifier) == first, "the same after a second time")
    name = first.name
    expect(first.identity == Identity("contract", "contract", name, identifier, 7), f"identity: {first.identity}")
    expect(first.sections == (("cpu", "sha-7"),), f"sections: {first.sections}")
    expect((first.cpus, first.memory) == (1, 16 * 2**20), f"size: {first.cpus}, {first.memory}")
    expect(first.persistent and first.state is DomainState.SHUT_OFF, f"state: {first.state}")
    expect(first.stop_reason is StopReason.UNKNOWN, f"never ran, but stopped by {first.stop_reason}")


async def a_name_belongs_to_one_domain(bed: Bed) -> None:
    """A name that another UUID has is refused as AlreadyExists, and the other domain stays as it was."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    first, document = bed.domain(name=name)
    await bed.host.define(document)
    second, twin = bed.domain(name=name)
    await refused(bed.host.define(twin), AlreadyExists)
    await bed.host.refresh()
    expect(bed.seen(first) and bed.seen(second) is None, "only the first is there")


async def a_bad_document_is_refused(bed: Bed) -> None:
    """A document that the host does not take is Refused(InvalidDomain)."""
    _, document = bed.domain()
    await refused(bed.host.define(document[:-20]), Refused, "InvalidDomain")
    await refused(bed.host.define(document.replace("machine=", "machine='nope-1' x=")), Refused, "InvalidDomain")


async def starting_twice_is_starting_once(bed: Bed) -> None:
    """A running domain that is started again, or twice at once, is left as it is."""
    identifier = await bed.defined()
    await asyncio.gather(*(bed.host.start(identifier) for _ in range(3)))
    running = require(bed.seen(identifier), "seen")
    expect(running.state is DomainState.RUNNING and running.stop_reason is None, f"{running.state}")
    await bed.host.start(identifier)
    expect(require(bed.seen(identifier), "seen").state is DomainState.RUNNING, "still running")


async def a_domain_can_be_paused_and_go_on(bed: Bed) -> None:
    """Start paused, resume, suspend: each may be repeated, and each is seen with its reason."""
    identifier = await bed.defined()
    await bed.host.start(identifier, paused=True)
    expect(require(bed.seen(identifier), "seen").state is DomainState.PAUSED, "started paused")
    for _ in range(2):
        await bed.host.resume(identifier)
        running = require(bed.seen(identifier), "seen")
        expect(running.state is DomainState.RUNNING and not running.paused_reason, f"{running.state}")
    for _ in range(2):
        await bed.host.suspend(identifier)
        paused = require(bed.seen(identifier), "seen")
        expect((paused.state, paused.paused_reason) == (DomainState.PAUSED, "user"), f"{paused.paused_reason!r}")
    await bed.host.destroy(identifier)
    await refused(bed.host.suspend(identifier), Refused, "NotRunning")
    await refused(bed.host.resume(identifier), Refused, "NotRunning")


async def destroying_may_be_repeated(bed: Bed) -> None:
    """A destroyed domain is off with the reason Destroyed; off or absent is done."""
    identifier = await bed.running()
    await bed.host.destroy(identifier)
    stopped = require(bed.seen(identifier), "seen")
    expect(stopped.state is DomainState.SHUT_OFF, f"{stopped.state}")
    expect(stopped.stop_reason is StopReason.DESTROYED, f"stopped by {stopped.stop_reason}")
    await bed.host.destroy(identifier)
    await bed.host.destroy(str(uuid.uuid4()))


async def a_running_domain_keeps_its_definition(bed: Bed) -> None:
    """Undefining a running domain is refused and changes nothing; off or absent is done."""
    identifier = await bed.running()
    await refused(bed.host.undefine(identifier), Refused, "AlreadyRunning")
    await bed.host.refresh(identifier)
    still = require(bed.seen(identifier), "still there")
    expect(still.state is DomainState.RUNNING and still.persistent, "running and persistent")
    await bed.host.destroy(identifier)
    for _ in range(2):
        await bed.host.undefine(identifier)
        expect(bed.seen(identifier) is None, "gone")


async def metadata_is_replaced_everywhere(bed: Bed) -> None:
    """A new stamp is in the running domain and in its definition, and is seen."""
    identifier = await bed.running()
    name = require(bed.seen(identifier), "seen").name
    for _ in range(2):
        await bed.host.set_metadata(identifier, documents.metadata(name, identifier, 9))
        seen = require(bed.seen(identifier), "seen")
        expect(seen.identity is not None and seen.identity.epoch == 9, f"identity: {seen.identity}")
        expect(seen.sections == (("cpu", "sha-9"),), f"sections: {seen.sections}")
    for inactive in (False, True):
        expect('sha="sha-9"' in (await bed.host.domain_xml(identifier, inactive=inactive)), f"inactive={inactive}")
    await bed.host.destroy(identifier)
    expect(require(require(bed.seen(identifier), "seen").identity, "a stamp").epoch == 9, "it stays when off")


async def an_unknown_domain_is_not_found(bed: Bed) -> None:
    """What cannot be done to an absent domain raises NotFound."""
    absent = str(uuid.uuid4())
    await refused(bed.host.domain_xml(absent), NotFound)
    await refused(bed.host.start(absent), NotFound)
    await refused(bed.host.shutdown(absent), NotFound)
    await refused(bed.host.reboot(absent), NotFound)
    await refused(bed.host.set_metadata(absent, documents.metadata("x", absent, 1)), NotFound)


async def a_guest_that_powers_off_is_told_from_a_destroyed_one(bed: Bed) -> None:
    """A guest that powers itself off is seen shut off with the reason GuestShutdown, without asking."""
    volume = await bed.volume("raw", 2**20)
    await bed.upload(volume.name, documents.BOOT_SECTOR)
    identifier = await bed.running(documents.disk(volume.path, "raw"))
    stopped = await bed.comes_to(identifier, DomainState.SHUT_OFF, 120)
    expect(stopped.stop_reason is StopReason.GUEST_SHUTDOWN, f"stopped by {stopped.stop_reason}")
    await bed.host.shutdown(identifier)


async def asking_a_guest_without_a_system_returns(bed: Bed) -> None:
    """Shutdown and reboot only ask: they return at once, whatever the guest does about it; reset may be repeated."""
    identifier = await bed.running()
    with within(20.0, "asking"):
        await bed.host.shutdown(identifier)
        await bed.host.reset(identifier)
        await bed.host.reset(identifier)
    expect(require(bed.seen(identifier), "seen").state is DomainState.RUNNING, "firmware does not obey")
    await bed.host.destroy(identifier)
    await refused(bed.host.reset(identifier), Refused, "NotRunning")


async def a_start_that_fails_says_why(bed: Bed) -> None:
    """A missing image, a missing bridge and an image that another domain writes are each named, and nothing runs."""
    missing = await bed.defined(documents.disk(f"{bed.directory}/{PREFIX}none.qcow2", "qcow2"))
    await refused(bed.host.start(missing), Refused, "VolumeMissing")
    unbridged = await bed.defined(documents.network_card("nobridge0"))
    await refused(bed.host.start(unbridged), Refused, "NoSuchBridge")
    volume = await bed.volume()
    await bed.running(documents.disk(volume.path, "qcow2"))
    second = await bed.defined(documents.disk(volume.path, "qcow2"))
    await refused(bed.host.start(second), Refused, "VolumeInUse")
    for identifier in (missing, unbridged, second):
        seen = require(bed.seen(identifier), "seen")
        expect(seen.state is DomainState.SHUT_OFF, f"{seen.state}")
        expect(seen.stop_reason is StopReason.FAILED, f"stopped by {seen.stop_reason}")


async def a_guest_without_an_agent_says_nothing(bed: Bed) -> None:
    """Asking a guest that has no agent, or is off, gives None."""
    identifier = await bed.running()
    expect(await bed.host.query_guest(identifier) is None, "no agent")
    await bed.host.destroy(identifier)
    expect(await bed.host.query_guest(identifier) is None, "off")


CHECKS = (
    a_definition_is_seen_and_may_be_repeated,
    a_name_belongs_to_one_domain,
    a_bad_document_is_refused,
    starting_twice_is_starting_once,
    a_domain_can_be_paused_and_go_on,
    destroying_may_be_repeated,
    a_running_domain_keeps_its_definition,
    metadata_is_replaced_everywhere,
    an_unknown_domain_is_not_found,
    a_guest_that_powers_off_is_told_from_a_destroyed_one,
    asking_a_guest_without_a_system_returns,
    a_start_that_fails_says_why,
    a_guest_without_an_agent_says_nothing,
)
