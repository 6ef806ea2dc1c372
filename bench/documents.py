"""The domain document: how long its making takes, and its check against libvirt's schema."""

from __future__ import annotations

import time
from pathlib import Path

from lxml import etree

from bench.figures import Figure
from crds.host_pool import PoolBaseline
from crds.virtual_machine import VirtualMachineSpec
from xmlgen.domain import DomainInput, Drive, HostPlaceholders, Identity, Image, Nic, generate, render

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
ROUNDS = 5
DOCUMENTS = 200

DRIVES = ("root", "data")
_BASELINE = PoolBaseline.model_validate(
    {
        "architecture": "x86_64",
        "virtualization": "kvm",
        "cpu": {"model": "EPYC-Rome", "features": ["+x2apic"]},
        "machines": [{"family": "q35", "type": "pc-q35-7.2"}],
    }
)
_SPEC = VirtualMachineSpec.model_validate(
    {
        "runPolicy": "Always",
        "pool": "default",
        "cpu": {"cores": 2},
        "memory": {"size": "2Gi"},
        "disks": [{"name": name, "diskRef": {"name": name}} for name in DRIVES],
        "nics": [{"name": "lan", "network": "lan"}],
    }
)
HOST = HostPlaceholders("kvm")


def image(number: int, drive: str) -> str:
    """File name of a drive of `usual(number)`, in /srv/shared."""
    return f"default.web-{number}-{drive}-0a1b2c3d.qcow2"


def usual(number: int) -> DomainInput:
    """A usual VM."""
    name = f"web-{number}"
    return DomainInput(
        identity=Identity("bench", "default", name, f"00000000-0000-4000-8000-{number:012}", 1),
        uuid=f"00000000-0000-4000-9000-{number:012}",
        spec=_SPEC,
        baseline=_BASELINE,
        drives=tuple(
            Drive.of(drive, _SPEC.guest_os, Image(f"/srv/shared/{image(number, drive.name)}", "qcow2"))
            for drive in _SPEC.disks
        ),
        nics=tuple(Nic.of(nic, nic.network) for nic in _SPEC.nics),
        seed=None,
        nvram=None,
        kept={},
    )


def run() -> list[Figure]:
    """Milliseconds a document of a usual VM (two disks, one network card); the schema is compiled beforehand.

    Each round has VMs that no round had before: what is remembered of one VM must be of use to others.
    """
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    making, both = [], []
    for first in range(0, ROUNDS * DOCUMENTS, DOCUMENTS):
        inputs = [usual(number) for number in range(first, first + DOCUMENTS)]
        begun = time.process_time()
        texts = [render(generate(source), HOST) for source in inputs]
        made = time.process_time()
        valid = all(schema.validate(etree.fromstring(text)) for text in texts)
        ended = time.process_time()
        if not valid:
            raise RuntimeError(f"libvirt's schema refuses the document: {schema.error_log.last_error}")
        making.append((made - begun) / DOCUMENTS * 1000)
        both.append((ended - begun) / DOCUMENTS * 1000)
    return [
        Figure("domain document, made and read back", "ms", tuple(making), must=0.5, aim=0.3),
        Figure("domain document, checked against libvirt's schema as well", "ms", tuple(both)),
    ]
