"""Which host to use for work on a storage domain."""

from __future__ import annotations

from crds.host import Host, Management
from crds.storage_domain import StorageDomain
from drivers.errors import NotConnected, Refused
from drivers.hypervisor import Hypervisor
from reconcilers.context import Context


def reaching_host(ctx: Context, domain: StorageDomain, name: str | None = None) -> Hypervisor | None:
    """A connected host that reaches the domain and may be acted on: the one named, or the first; None without one."""
    for candidate in sorted(h.name for h in domain.status.hosts if h.reachable and name in (None, h.name)):
        host, declared = ctx.host(candidate), ctx.objects.get(Host, candidate)
        if declared is None or declared.spec.management is Management.OBSERVE:
            continue
        if host is not None and host.view().fresh:
            return host
    return None


def reaching_hosts(ctx: Context, domain: StorageDomain) -> list[Hypervisor]:
    """All such hosts."""
    found = (reaching_host(ctx, domain, h.name) for h in domain.status.hosts)
    return [host for host in found if host is not None]


def acting_host(ctx: Context, name: str) -> Hypervisor:
    """The host, to act on it. Raises NotConnected, and Refused(HostObserved) where `management` is Observe."""
    declared, host = ctx.objects.get(Host, name), ctx.host(name)
    if declared is not None and declared.spec.management is Management.OBSERVE:
        raise Refused(f"host {name} is only observed: set its management to Full", reason="HostObserved")
    if host is None:
        raise NotConnected(f"host {name} is not connected")
    return host
