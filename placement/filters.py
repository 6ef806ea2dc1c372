"""Which hosts cannot take a VM: each filter answers with a verb phrase ("has 1.2Gi of 2Gi memory free") or None."""

from __future__ import annotations

from collections.abc import Callable

from crds.host_pool import Overcommit
from placement.facts import Candidate, Request
from placement.words import size

Filter = Callable[[Request, Candidate, Overcommit], str | None]


def share(amount: int, percent: str) -> int:
    """So many percent ("150%") of an amount, rounded down."""
    return amount * int(percent.removesuffix("%")) // 100


def free_memory(host: Candidate, overcommit: Overcommit) -> int:
    """Bytes that can still be given away; never below zero."""
    return max(0, share(host.memory, overcommit.memory) - host.used_memory)


def free_cpus(host: Candidate, overcommit: Overcommit) -> int:
    """Virtual CPUs that can still be given away; never below zero."""
    return max(0, share(host.cpus, overcommit.cpu) - host.used_cpus)


def is_schedulable(_: Request, host: Candidate, __: Overcommit) -> str | None:
    return None if host.schedulable else host.why_not or "is not schedulable"


def is_the_named_host(request: Request, host: Candidate, _: Overcommit) -> str | None:
    return None if request.host in (None, host.name) else f"is not {request.host}, the only host allowed"


def has_the_labels(request: Request, host: Candidate, _: Overcommit) -> str | None:
    selector = request.host_selector
    return None if selector is None or selector.matches(host.labels) else "does not match the hostSelector"


def holds_the_disks(request: Request, host: Candidate, _: Overcommit) -> str | None:
    return None if request.hosts is None or host.name in request.hosts else "does not hold the VM's local disks"


def may_take_it(request: Request, host: Candidate, _: Overcommit) -> str | None:
    if request.only is None or host.name in request.only:
        return None
    return f"may not take the VM before it is known how it ended on {', '.join(sorted(request.only))}"


def reaches_the_storage(request: Request, host: Candidate, _: Overcommit) -> str | None:
    return _missing("does not reach storage domain", request.storage_domains - host.storage_domains)


def has_the_networks(request: Request, host: Candidate, _: Overcommit) -> str | None:
    return _missing("does not have network", request.networks - host.networks)


def gives_the_cpu_model(request: Request, host: Candidate, _: Overcommit) -> str | None:
    known = request.cpu_model is None or request.cpu_model in host.cpu_models
    return None if known else f"does not have CPU model {request.cpu_model}"


def has_uefi(request: Request, host: Candidate, _: Overcommit) -> str | None:
    return "does not have UEFI firmware" if request.uefi and not host.uefi else None


def has_the_cpus(request: Request, host: Candidate, overcommit: Overcommit) -> str | None:
    free = free_cpus(host, overcommit)
    return None if request.cpus <= free else f"has {free} of {request.cpus} CPUs free"


def has_the_memory(request: Request, host: Candidate, overcommit: Overcommit) -> str | None:
    free = free_memory(host, overcommit)
    return None if request.memory <= free else f"has {size(free)} of {size(request.memory)} memory free"


FILTERS: tuple[Filter, ...] = (
    is_the_named_host,
    has_the_labels,
    holds_the_disks,
    may_take_it,
    is_schedulable,
    reaches_the_storage,
    has_the_networks,
    gives_the_cpu_model,
    has_uefi,
    has_the_cpus,
    has_the_memory,
)
"""In the order in which a person wants to hear of them: what the VM demands, then the host's state, then room."""


def _missing(phrase: str, names: frozenset[str]) -> str | None:
    return f"{phrase} {', '.join(sorted(names))}" if names else None
