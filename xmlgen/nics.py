"""Network cards."""

from __future__ import annotations

from crds.virtual_machine import NicModel
from xmlgen.addresses import PCIAddresses, address_of
from xmlgen.inputs import Nic
from xmlgen.parts import Part, alias_of, boot_of, remembered
from xmlgen.sections import BRIDGE, Sections
from xmlgen.xml import Element, element, fingerprint


def nic_part(nic: Nic, mac: str, addresses: PCIAddresses, boot: int | None) -> Part:
    """The card's part. boot: its place in the boot order, counted from 1."""
    alias = nic.alias
    address = element("mac", {"address": mac})
    model = _model(nic.model)
    name = alias_of(alias)
    bridge, section = _bridge(alias, nic.bridge)
    place = address_of(addresses.take(alias))
    live = element("interface", {"type": "bridge"}, address, bridge, model, name, place)
    sections = ((alias, fingerprint(address, model, name)), *section)
    return Part(live.with_children(boot_of(boot)), sections, alias, live, ports=1)


@remembered
def _model(model: NicModel) -> Element:
    return element("model", {"type": model.value})


@remembered
def _bridge(alias: str, bridge: str) -> tuple[Element, Sections]:
    """What the card is plugged into: changed in place, so a section of its own."""
    return element("source", {"bridge": bridge}), ((f"{alias}:{BRIDGE}", fingerprint(bridge)),)
