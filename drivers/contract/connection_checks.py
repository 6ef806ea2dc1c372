"""Connections, views and lists."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from drivers.contract.bed import Bed, eventually, expect, refused, require, within
from drivers.errors import NotConnected
from drivers.model import ConnectionState, DomainState


async def a_connected_host_says_what_it_is(bed: Bed) -> None:
    """A connected host has facts: who it is, what it runs, and which machines and CPU it can give to a guest."""
    facts = bed.facts
    expect(facts.uuid and facts.hostname and facts.architecture, f"identity: {facts}")
    expect(facts.virtualization in {"kvm", "qemu"}, f"virtualization: {facts.virtualization}")
    expect(facts.cpus > 0 and facts.memory > 2**28, f"size: {facts.cpus} CPUs, {facts.memory} bytes")
    expect(any(facts.machines.values()), "machine types")
    expect(facts.cpu_model and facts.cpu_model in facts.cpu_xml, f"host CPU: {facts.cpu_model!r}")
    expect(facts.cpu_models, "usable CPU models")
    # Memory can be plugged into a host that runs (virtual ones grow and shrink so).
    again = replace(await bed.host.refresh_facts(), memory=facts.memory)
    expect(again == facts, f"facts stay the same when asked again: {again}, not {facts}")


async def the_baseline_of_one_cpu_is_a_model(bed: Bed) -> None:
    """The baseline of the host's own CPU, once or twice, is one and the same named model."""
    once = await bed.host.baseline_cpu([bed.facts.cpu_xml])
    twice = await bed.host.baseline_cpu([bed.facts.cpu_xml, bed.facts.cpu_xml])
    expect(once.model, "a model")
    expect(once == twice, f"{once} is not {twice}")


async def a_heartbeat_goes_on(bed: Bed) -> None:
    """The time of the last heartbeat advances while nothing else is asked."""
    before = require(bed.host.view().last_seen, "a connected host was seen")
    await eventually("a heartbeat", lambda: (bed.host.view().last_seen or 0) > before, 15)


async def a_view_costs_nothing(bed: Bed) -> None:
    """A view is a snapshot: a thousand of them ask the host nothing and take no time."""
    with within(1.0, "1000 views"):
        for _ in range(1000):
            bed.host.view()
        for _ in range(1000):
            bed.unreachable.view()


async def a_refresh_is_complete_and_newer(bed: Bed) -> None:
    """A refresh returns a complete list that was asked for after the refresh was."""
    identifier = await bed.defined()
    asked = asyncio.get_running_loop().time()
    view = await bed.host.refresh()
    inventory = require(view.inventory, "a list")
    expect(inventory.listed_at >= asked, "asked for later than the refresh")
    expect(identifier in {domain.uuid for domain in inventory.domains}, "the domain is in the list")
    expect(view.fresh, "a list just made is fresh")


async def a_refresh_of_one_domain_sees_it_go(bed: Bed) -> None:
    """A refresh of one domain shows it, and shows it gone once it is."""
    identifier = await bed.defined()
    await bed.host.refresh(identifier)
    expect(bed.seen(identifier), "there")
    await bed.other.undefine(identifier)
    await bed.host.refresh(identifier)
    expect(bed.seen(identifier) is None, "gone")


async def a_host_that_is_not_there_says_so_at_once(bed: Bed) -> None:
    """Without a connection every call raises NotConnected at once, and the view says what the last try met."""
    host = bed.unreachable
    await eventually("the error of a try to connect", lambda: host.view().error is not None, 60)
    view = host.view()
    expect(view.state is ConnectionState.CONNECTING and view.inventory is None and not view.fresh, f"{view}")
    with within(0.5, "refusing"):
        await refused(host.refresh(), NotConnected)
        await refused(host.start("0b54ca39-9bca-4fa5-8c31-c3ce5a2a79b2"), NotConnected)
        await refused(host.define("<domain/>"), NotConnected)
        await refused(host.volume_names(bed.directory), NotConnected)
        await refused(host.query_guest("0b54ca39-9bca-4fa5-8c31-c3ce5a2a79b2"), NotConnected)


async def what_others_do_is_seen(bed: Bed) -> None:
    """What somebody else does to a domain is seen, and told to listeners, without asking."""
    identifier, document = bed.domain()
    bed.heard.clear()
    await bed.other.define(document)
    await bed.comes_to(identifier, DomainState.SHUT_OFF)
    expect((bed.host.name, identifier) in bed.heard, "the listener heard of the definition")
    await bed.other.start(identifier)
    await bed.comes_to(identifier, DomainState.RUNNING)
    bed.heard.clear()
    await bed.other.suspend(identifier)
    paused = await bed.comes_to(identifier, DomainState.PAUSED)
    expect(paused.paused_reason == "user", f"paused because of {paused.paused_reason!r}")
    expect((bed.host.name, identifier) in bed.heard, "the listener heard of the pause")
    await bed.other.destroy(identifier)
    await bed.comes_to(identifier, DomainState.SHUT_OFF)
    await bed.other.undefine(identifier)
    await eventually("the domain is seen gone", lambda: bed.seen(identifier) is None)


async def older_never_overwrites_newer(bed: Bed) -> None:
    """Under a storm of changes and of complete lists, sequences only rise and the last state is the true one."""
    identifier = await bed.running()
    sequences: list[int] = []
    storm = True

    async def keep_listing() -> None:
        while storm:
            sequences.append(require((await bed.host.refresh()).inventory, "a list").sequence)

    listing = asyncio.gather(keep_listing(), keep_listing())
    try:
        for _ in range(8):
            await bed.other.suspend(identifier)
            await bed.other.resume(identifier)
        await bed.other.suspend(identifier)
    finally:
        storm = False
        await listing
    await bed.comes_to(identifier, DomainState.PAUSED, 10)
    await asyncio.sleep(0.5)
    expect(require(bed.seen(identifier), "known").state is DomainState.PAUSED, "the last state stays")
    expect(sequences == sorted(sequences), f"sequences rise: {sequences}")


CHECKS = (
    a_connected_host_says_what_it_is,
    the_baseline_of_one_cpu_is_a_model,
    a_heartbeat_goes_on,
    a_view_costs_nothing,
    a_refresh_is_complete_and_newer,
    a_refresh_of_one_domain_sees_it_go,
    a_host_that_is_not_there_says_so_at_once,
    what_others_do_is_seen,
    older_never_overwrites_newer,
)
