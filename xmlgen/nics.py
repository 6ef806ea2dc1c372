"""Network cards."""

from __future__ import annotations

from xmlgen.addresses import PCIAddresses
from xmlgen.inputs import Nic
from xmlgen.parts import Part
from xmlgen.sections import BRIDGE
from xmlgen.xml import element, fingerprint


def nic_part(nic: Nic, mac: str, addresses: PCIAddresses, boot: int | None) -> Part:
    """The card's part. boot: its place in the boot order, counted from 1."""
    address = element("mac", {"address": mac})
    model = element("model", {"type": nic.model.value})
    alias = element("alias", {"name": nic.alias})
    sections = (
        (nic.alias, fingerprint(address, model, alias)),
        (f"{nic.alias}:{BRIDGE}", fingerprint(nic.bridge)),
    )
    bridge = element("source", {"bridge": nic.bridge})
    place = addresses.take(nic.alias)
    live = element("interface", {"type": "bridge"}, address, bridge, model, alias, place)
    order = element("boot", {"order": str(boot)}) if boot is not None else None
    return Part(live.with_children(order), sections, nic.alias, live, ports=1)
