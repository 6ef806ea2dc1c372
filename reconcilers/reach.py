"""Which host to use for work on a storage domain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain, islice
from zlib import crc32

from crds.host import Host, Management
from crds.storage_domain import StorageDomain
from drivers.errors import NotConnected, Refused
from drivers.hypervisor import Hypervisor
from reconcilers.context import Context
from reconcilers.storage_domain.marker import owes_answer, verify

PATIENCE_SECONDS = 0.25
"""How long a host is the only one asked. Most answer in a tenth of that, and one that hangs never does."""

SHARED_BY = 4
"""Hosts that share the work on one storage domain: each of them looks at the whole directory from time to time."""


def reaching_hosts(ctx: Context, domain: StorageDomain, name: str | None = None) -> Iterator[Hypervisor]:
    """The connected hosts (or the one named) that reach the domain and may be acted on, in the order of their names."""
    for candidate in sorted(h.name for h in domain.status.hosts if h.reachable and name in (None, h.name)):
        host, declared = ctx.host(candidate), ctx.objects.get(Host, candidate)
        if declared is None or declared.spec.management is Management.OBSERVE:
            continue
        if host is not None and host.fresh:
            yield host


async def working_host(
    ctx: Context, domain: StorageDomain, name: str | None = None, *, work: str = "", max_age: float = 5.0
) -> Hypervisor | None:
    """A host (or the one named) on which the domain's marker was read, at most max_age seconds ago; None without one.

    A daemon that has just begun to hang still counts as connected. So when the first host is slow the next one is asked
    beside it, and the first that answers is taken; a host that owes an answer comes last in the row. `work`: what it is
    for; other work goes to another one of the first few hosts. Raises what `verify` raised for the first one, when it
    succeeds on none.
    """
    waiting = _in_turn(ctx, domain, reaching_hosts(ctx, domain, name), work)
    problems = dict[Hypervisor, BaseException]()
    asked: dict[asyncio.Task[None], Hypervisor] = {}
    first = host = next(waiting, None)
    try:
        while host is not None or asked:
            if host is not None:
                asked[asyncio.create_task(verify(ctx, domain, host, max_age=max_age))] = host
            host = next(waiting, None)
            patience = PATIENCE_SECONDS if host is not None else None
            done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            answers = {asked.pop(task): task.exception() for task in list(asked) if task in done}
            reached = [host for host, problem in answers.items() if problem is None]
            if reached:
                return reached[0]
            problems.update({host: problem for host, problem in answers.items() if problem is not None})
    finally:
        for task in asked:
            task.cancel()
    if first is not None:
        raise problems[first]
    return None


def _in_turn(ctx: Context, domain: StorageDomain, hosts: Iterator[Hypervisor], work: str) -> Iterator[Hypervisor]:
    """The hosts, the first few of them in an order of this work's own, those that owe an answer last.

    As a rule nobody asks for more than the first.
    """
    few = list(islice(hosts, SHARED_BY))
    first = crc32(work.encode()) % len(few) if few else 0
    owing = []
    for host in chain(few[first:], few[:first], hosts):
        if owes_answer(ctx, domain, host, PATIENCE_SECONDS):
            owing.append(host)
        else:
            yield host
    yield from owing


def acting_host(ctx: Context, name: str) -> Hypervisor:
    """The host, to act on it. Raises NotConnected, and Refused(HostObserved) where `management` is Observe."""
    declared, host = ctx.objects.get(Host, name), ctx.host(name)
    if declared is not None and declared.spec.management is Management.OBSERVE:
        raise Refused(f"host {name} is only observed: set its management to Full", reason="HostObserved")
    if host is None:
        raise NotConnected(f"host {name} is not connected")
    return host
