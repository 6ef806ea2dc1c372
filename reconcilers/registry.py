"""All kinds in one place: which function reconciles each, and which of its status fields are critical."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from engine.keys import Key
from engine.operations import FIELDS
from engine.result import Result
from reconcilers import disk, host, host_pool, network, operation, storage_domain, virtual_machine
from reconcilers.context import Context

RECONCILERS: Mapping[str, Callable[[Context, Key], Awaitable[Result]]] = {
    "Host": host.reconcile,
    "HostPool": host_pool.reconcile,
    "StorageDomain": storage_domain.reconcile,
    "Network": network.reconcile,
    "Disk": disk.reconcile,
    "VirtualMachine": virtual_machine.reconcile,
    "Operation": operation.reconcile,
}

CRITICAL: Mapping[str, frozenset[str]] = {
    "HostPool": frozenset({"baseline"}),
    "StorageDomain": frozenset({"id", "purging", "takingBack"}),
    "Disk": frozenset({"volume"}),
    "VirtualMachine": frozenset({"uuid", "power", "placement", "powerRequest", "startFailure", "files"}),
    "Operation": FIELDS,
}
"""Written by compare-and-set only: what a decision about who may run or make what rests on."""
