"""What a placement is decided from: the hosts as they stand, and what a VM asks for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from crds.base import LabelSelector

MIB = 2**20

_FIXED_OVERHEAD = 96 * MIB
_OVERHEAD_PER_CPU = 8 * MIB
_PAGE_TABLE_SHARE = 512


def memory_overhead(memory: int, cpus: int) -> int:
    """Bytes that QEMU takes on its host beyond the guest's memory of `memory` bytes, estimated from above.

    The process itself with its devices, the stacks and buffers of each virtual CPU, and page tables of the guest's
    memory (8 bytes for each page of 4096).
    """
    return _FIXED_OVERHEAD + _OVERHEAD_PER_CPU * cpus + memory // _PAGE_TABLE_SHARE


@dataclass(frozen=True)
class Candidate:
    """One host of the pool, as it stands now."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    schedulable: bool = True
    why_not: str = ""
    """Why nothing may be placed here, as a verb phrase ("is cordoned"); empty when something may."""
    cpus: int = 0
    """Logical CPUs, before overcommit."""
    memory: int = 0
    """Bytes that VMs may use, before overcommit."""
    used_cpus: int = 0
    used_memory: int = 0
    """Bytes that are given away: active domains with their overhead, foreign ones too, and VMs in flight."""
    storage_domains: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    cpu_models: Collection[str] = ()
    """Named CPU models that guests can be given here."""
    uefi: bool = False


@dataclass(frozen=True)
class Request:
    """What a VM asks of its host."""

    cpus: int
    memory: int
    """Bytes, with the overhead."""
    host: str | None = None
    """The only host that the user allows."""
    host_selector: LabelSelector | None = None
    storage_domains: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = None
    """Hosts that hold the VM's host-local disks; None when it has none."""
    only: frozenset[str] | None = None
    """Hosts that alone may take it, since it may run there still; None for any."""
    cpu_model: str | None = None
    """A named CPU model; None for the pool's baseline, which every host of the pool can give."""
    uefi: bool = False
