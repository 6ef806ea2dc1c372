"""The machine itself: CPU, memory, firmware features, clock, and what becomes of it when the guest ends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from crds.host_pool import PoolBaseline
from crds.quantity import to_bytes
from crds.virtual_machine import CPU, POOL_BASELINE, GuestOS, Machine, Memory
from xmlgen.parts import Part
from xmlgen.xml import Element, element, fingerprint

_HYPERV = (
    "relaxed",
    "vapic",
    "spinlocks",
    "vpindex",
    "runtime",
    "synic",
    "stimer",
    "reset",
    "frequencies",
    "tlbflush",
    "ipi",
)


def machine_type(machine: Machine, baseline: PoolBaseline) -> str:
    """The versioned machine type behind a family's name. Raises ValueError where the pool has none."""
    for candidate in baseline.machines:
        if candidate.family == machine.value:
            return candidate.type
    raise ValueError(f"the pool's hosts have no machine type of family {machine.value!r}")


def memory_parts(memory: Memory) -> Iterator[Part]:
    """Guest memory, in KiB, rounded up."""
    size = str(-(-to_bytes(memory.size) // 1024))
    yield _part("memory", element("memory", {"unit": "KiB"}, size))
    yield Part(element("currentMemory", {"unit": "KiB"}, size))


def vcpu_parts(cpu: CPU) -> Iterator[Part]:
    """The number of virtual CPUs (their topology is the CPU's), and the thread that serves virtio drives."""
    yield Part(element("vcpu", {"placement": "static"}, str(cpu.count)))
    yield Part(element("iothreads", {}, "1"))


def cpu_part(cpu: CPU, baseline: PoolBaseline) -> Part:
    """The CPU that the guest sees: the pool's, or the named model as it is."""
    from_pool = cpu.model == POOL_BASELINE
    model = baseline.cpu.model if from_pool else cpu.model
    features = baseline.cpu.features if from_pool else []
    topology = {"sockets": str(cpu.sockets), "cores": str(cpu.cores), "threads": str(cpu.threads)}
    return _part(
        "cpu",
        element(
            "cpu",
            {"mode": "custom", "match": "exact", "check": "partial"},
            element("model", {"fallback": "forbid"}, model),
            element("topology", topology),
            *(_feature(feature) for feature in features),
        ),
    )


def features_part(guest_os: GuestOS, baseline: PoolBaseline) -> Part:
    """ACPI and APIC; for Windows, the Hyper-V interfaces that spare it timers and spinning."""
    return _part("features", element("features", {}, element("acpi"), element("apic"), _hyperv(guest_os, baseline)))


def clock_part(guest_os: GuestOS, baseline: PoolBaseline) -> Part:
    """Windows takes the hardware clock for local time, the others for UTC."""
    windows = guest_os is GuestOS.WINDOWS
    hyperv = _has_hyperv(guest_os, baseline)
    return _part(
        "clock",
        element(
            "clock",
            {"offset": "localtime" if windows else "utc"},
            element("timer", {"name": "rtc", "tickpolicy": "catchup"}),
            element("timer", {"name": "pit", "tickpolicy": "delay"}),
            element("timer", {"name": "hpet", "present": "no"}),
            element("timer", {"name": "hypervclock", "present": "yes"}) if hyperv else None,
        ),
    )


@cache
def end_parts() -> tuple[Part, ...]:
    """A guest that ends, ends its domain: what comes next is the controller's to decide. Sleeping is not offered."""
    sleep = (element("suspend-to-mem", {"enabled": "no"}), element("suspend-to-disk", {"enabled": "no"}))
    ends = (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy"))
    return (*(Part(element(tag, {}, what)) for tag, what in ends), Part(element("pm", {}, *sleep)))


def _hyperv(guest_os: GuestOS, baseline: PoolBaseline) -> Element | None:
    if not _has_hyperv(guest_os, baseline):
        return None
    retries = {"spinlocks": {"retries": "8191"}}
    return element(
        "hyperv", {"mode": "custom"}, *(element(name, {"state": "on"} | retries.get(name, {})) for name in _HYPERV)
    )


def _has_hyperv(guest_os: GuestOS, baseline: PoolBaseline) -> bool:
    """They are KVM's: without it, QEMU refuses to start ("kernel doesn't allow setting HyperV VP_INDEX")."""
    return guest_os is GuestOS.WINDOWS and baseline.virtualization == "kvm"


def _feature(feature: str) -> Element:
    """A feature of the baseline: `+name` or `-name`."""
    policy = {"+": "require", "-": "disable"}[feature[:1]]
    return element("feature", {"policy": policy, "name": feature[1:]})


def _part(section: str, root: Element) -> Part:
    return Part(root, ((section, fingerprint(root)),))
