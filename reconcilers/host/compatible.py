"""Whether a host can give guests what its pool promises them."""

from __future__ import annotations

from crds.host_pool import PoolBaseline
from drivers.model import HostFacts


def incompatible(facts: HostFacts, baseline: PoolBaseline) -> str | None:
    """Why the pool's VMs cannot run on the host, for a message; None when nothing speaks against it.

    A CPU model that libvirt calls unusable as it stands may do once features are disabled, so that counts only when the
    baseline disables none.
    """
    if facts.architecture != baseline.architecture:
        return f"its CPUs are {facts.architecture} and the pool's are {baseline.architecture}"
    if baseline.virtualization == "kvm" and facts.virtualization != "kvm":
        return "it cannot run guests with KVM as the pool's other hosts do: turn on virtualization in its firmware"
    unknown = sorted(m.type for m in baseline.machines if m.type not in facts.machines.get(m.family, ()))
    if unknown:
        return f"its QEMU {facts.hypervisor_version} does not know machine type {', '.join(unknown)}: upgrade it"
    model = baseline.cpu.model
    disables = any(feature.startswith("-") for feature in baseline.cpu.features)
    if model not in {*facts.cpu_models, facts.cpu_model} and not disables:
        return f"it cannot give guests the pool's CPU model {model}"
    return None
