"""The machine itself: CPU, memory, firmware features, clock, and what becomes of it when the guest ends."""

from __future__ import annotations

from crds.host_pool import PoolBaseline
from crds.quantity import to_bytes
from crds.virtual_machine import CPU, POOL_BASELINE, GuestOS, Machine
from xmlgen.parts import Part, remembered, whole_part
from xmlgen.xml import Element, element

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


@remembered
def memory_parts(size: str) -> tuple[Part, ...]:
    """Guest memory of that size (a quantity), in KiB, rounded up."""
    kib = str(-(-to_bytes(size) // 1024))
    return (
        whole_part("memory", element("memory", {"unit": "KiB"}, kib)),
        Part(element("currentMemory", {"unit": "KiB"}, kib)),
    )


@remembered
def vcpu_parts(count: int) -> tuple[Part, ...]:
    """The number of virtual CPUs (their topology is the CPU's), and the thread that serves virtio drives."""
    return Part(element("vcpu", {"placement": "static"}, str(count))), Part(element("iothreads", {}, "1"))


def cpu_part(cpu: CPU, baseline: PoolBaseline) -> Part:
    """The CPU that the guest sees: the pool's, or the named model as it is."""
    from_pool = cpu.model == POOL_BASELINE
    return _cpu(
        baseline.cpu.model if from_pool else cpu.model,
        tuple(baseline.cpu.features) if from_pool else (),
        (cpu.sockets, cpu.cores, cpu.threads),
    )


@remembered
def _cpu(model: str, features: tuple[str, ...], topology: tuple[int, int, int]) -> Part:
    numbers = zip(("sockets", "cores", "threads"), topology, strict=True)
    return whole_part(
        "cpu",
        element(
            "cpu",
            {"mode": "custom", "match": "exact", "check": "partial"},
            element("model", {"fallback": "forbid"}, model),
            element("topology", {name: str(number) for name, number in numbers}),
            *(_feature(feature) for feature in features),
        ),
    )


def features_part(guest_os: GuestOS, baseline: PoolBaseline) -> Part:
    """ACPI and APIC; for Windows, the Hyper-V interfaces that spare it timers and spinning."""
    return _features(hyperv=_has_hyperv(guest_os, baseline))


@remembered
def _features(*, hyperv: bool) -> Part:
    interfaces = _hyperv() if hyperv else None
    return whole_part("features", element("features", {}, element("acpi"), element("apic"), interfaces))


def clock_part(guest_os: GuestOS, baseline: PoolBaseline) -> Part:
    """Windows takes the hardware clock for local time, the others for UTC."""
    offset = "localtime" if guest_os is GuestOS.WINDOWS else "utc"
    return _clock(offset, hyperv=_has_hyperv(guest_os, baseline))


@remembered
def _clock(offset: str, *, hyperv: bool) -> Part:
    return whole_part(
        "clock",
        element(
            "clock",
            {"offset": offset},
            element("timer", {"name": "rtc", "tickpolicy": "catchup"}),
            element("timer", {"name": "pit", "tickpolicy": "delay"}),
            element("timer", {"name": "hpet", "present": "no"}),
            element("timer", {"name": "hypervclock", "present": "yes"}) if hyperv else None,
        ),
    )


@remembered
def end_parts() -> tuple[Part, ...]:
    """A guest that ends, ends its domain: what comes next is the controller's to decide. Sleeping is not offered."""
    sleep = (element("suspend-to-mem", {"enabled": "no"}), element("suspend-to-disk", {"enabled": "no"}))
    ends = (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy"))
    return (*(Part(element(tag, {}, what)) for tag, what in ends), Part(element("pm", {}, *sleep)))


def _hyperv() -> Element:
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
