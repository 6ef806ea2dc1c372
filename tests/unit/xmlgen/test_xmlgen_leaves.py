"""Every field of a VM's spec does something: changed, it changes the document or is known to be used elsewhere."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from crds.virtual_machine import VirtualMachineSpec
from tests.unit.xmlgen.cases import LINUX, disk, domain, nic, spec
from xmlgen.domain import DomainInput, generate, render
from xmlgen.sections import compare

ELSEWHERE = {
    "runPolicy", "powerRequest.id", "powerRequest.action", "pool", "placement.host",
    "placement.hostSelector.matchLabels", "placement.hostSelector.matchExpressions.key",
    "placement.hostSelector.matchExpressions.operator", "placement.hostSelector.matchExpressions.values",
    "lifecycle.shutdownTimeoutSeconds", "lifecycle.deletionPolicy",
    "cloudInit.userData", "cloudInit.userDataSecretRef.name", "cloudInit.networkData",
    "disks.diskRef.name",
}  # fmt: skip
"""Used by reconcilers, or turned by them into what a domain is generated from: paths of images and seeds."""
TEMPLATE = "disks.template."

UEFI = {"firmware": {"type": "UEFI"}}
PLAIN: dict[str, Any] = {"disks": [disk("root"), disk("b")], "nics": [nic("lan")]}
VARIANTS: dict[str, dict[str, Any]] = {
    "cpu.sockets": {"cpu": {"sockets": 2}},
    "cpu.cores": {"cpu": {"cores": 2}},
    "cpu.threads": {"cpu": {"threads": 2}},
    "cpu.model": {"cpu": {"model": "Nehalem"}},
    "memory.size": {"memory": {"size": "2Gi"}},
    "firmware.type": UEFI,
    "machine": {"machine": "pc"},
    "guestOS": {"guestOS": "Windows"},
    "disks.name": {"disks": [disk("other"), disk("b")]},
    "disks.type": {"disks": [disk("root"), disk("b", type="cdrom")]},
    "disks.bus": {"disks": [disk("root", bus="sata"), disk("b")]},
    "disks.bootOrder": {"disks": [disk("root"), disk("b", bootOrder=1)]},
    "nics.name": {"nics": [nic("other")]},
    "nics.network": {"nics": [nic("lan", network="dmz")]},
    "nics.model": {"nics": [nic("lan", model="e1000e")]},
    "nics.bootOrder": {"nics": [nic("lan", bootOrder=1)]},
    "nics.mac": {"nics": [nic("lan", mac="52:54:00:00:00:01")]},
    "devices.rng": {"devices": {"rng": "Disabled"}},
    "devices.watchdog.action": {"devices": {"watchdog": {"action": "pause"}}},
    "devices.graphics.type": {"devices": {"graphics": [{"type": "vnc"}]}},
    "devices.serialConsole": {"devices": {"serialConsole": "Disabled"}},
    "devices.guestAgent": {"devices": {"guestAgent": "Disabled"}},
    "devices.balloon": {"devices": {"balloon": "Disabled"}},
    "devices.video": {"devices": {"video": "virtio"}},
}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Paths of all fields that hold no model, as they are called in a manifest."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        models = [kind for kind in _types(field.annotation) if issubclass(kind, BaseModel)]
        for inner in models:
            yield from leaves(inner, f"{path}.")
        if not models:
            yield path


def _types(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _types(argument)


def source(fields: dict[str, Any]) -> DomainInput:
    return domain(spec(**(PLAIN | fields)), nvram="/srv/shared/x.nvram.fd")


def test_every_leaf_is_accounted_for() -> None:
    found = {leaf for leaf in leaves(VirtualMachineSpec) if not leaf.startswith(TEMPLATE)}
    assert found == ELSEWHERE | set(VARIANTS)


@pytest.mark.parametrize("leaf", VARIANTS)
def test_a_changed_leaf_changes_the_document(leaf: str) -> None:
    before, after = generate(source({})), generate(source(VARIANTS[leaf]))
    assert not compare(before.sections, after.sections).empty
    unstamped = [render(made, LINUX).partition("</metadata>")[2] for made in (before, after)]
    assert unstamped[0] != unstamped[1]
