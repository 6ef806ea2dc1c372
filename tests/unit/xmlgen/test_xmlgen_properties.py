"""Whatever spec the API takes: a valid document, the same one each time, with nothing in it but what was declared."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from crds.virtual_machine import VirtualMachineSpec
from tests.unit.xmlgen.cases import LINUX, UUID, domain
from xmlgen.domain import DomainInput, Identity, Image, generate, render
from xmlgen.sections import applied, compare

NAME = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)
HOSTILE = st.sampled_from(
    ["<x/>", "a&b", "\"'", "]]>", "<!--", "&#0;", "ä€", "host-passthrough", "../..", "$(id)", " "]
)
PATH = HOSTILE.map(lambda part: f"/srv/{part}")
ORDER = st.none() | st.integers(1, 64)
PRESENCE = st.sampled_from(["Enabled", "Disabled"])
MAC = st.none() | st.integers(0, 2**24 - 1).map(lambda n: "52:54:00:" + n.to_bytes(3, "big").hex(":"))


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def named(fields: st.SearchStrategy[dict[str, Any]], most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    def pair(names: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
        return st.tuples(*(fields.map(lambda f, name=name: {"name": name} | f) for name in names)).map(list)

    return st.lists(NAME, unique=True, max_size=most).flatmap(pair)


REFERENCE = {"diskRef": {"name": "d"}}
DISK = optional(bus=st.sampled_from(["virtio", "scsi", "sata"]), bootOrder=ORDER).map(lambda fields: fields | REFERENCE)
CDROM = optional(bus=st.sampled_from(["scsi", "sata"]), bootOrder=ORDER, diskRef=st.just({"name": "d"})).map(
    lambda fields: {"type": "cdrom"} | fields
)
NIC = st.fixed_dictionaries(
    {"network": st.sampled_from(["lan", "br0.12", "a-b_c"])},
    optional={"model": st.sampled_from(["virtio", "e1000e"]), "bootOrder": ORDER, "mac": MAC},
)
DEVICES = optional(
    rng=PRESENCE, serialConsole=PRESENCE, guestAgent=PRESENCE, balloon=PRESENCE,
    watchdog=optional(action=st.sampled_from(["reset", "poweroff", "pause"])),
    graphics=st.sampled_from([[], [{"type": "vnc"}]]),
    video=st.sampled_from(["virtio", "vga", "none"]),
)  # fmt: skip
SPEC = st.fixed_dictionaries(
    {"runPolicy": st.just("Always"), "pool": st.just("default"), "memory": st.fixed_dictionaries({
        "size": st.integers(1, 2**44) | st.integers(1, 999).map(lambda n: f"{n}Mi")})},
    optional={
        "cpu": optional(sockets=st.integers(1, 8), cores=st.integers(1, 256), threads=st.integers(1, 8), model=HOSTILE),
        "firmware": optional(type=st.sampled_from(["BIOS", "UEFI"])),
        "machine": st.sampled_from(["q35", "pc"]),
        "guestOS": st.sampled_from(["Linux", "Windows", "Other"]),
        "disks": named(DISK | CDROM, 8),
        "nics": named(NIC, 4),
        "devices": DEVICES,
    },
).map(VirtualMachineSpec.model_validate)  # fmt: skip
IMAGE = st.builds(
    Image, PATH, st.sampled_from(["raw", "qcow2"]), st.booleans(), st.booleans(), st.sampled_from(["unmap", "ignore"]),
    st.sampled_from([512, 4096]),
)  # fmt: skip
INPUT = st.builds(
    lambda spec, image, seed, nvram: domain(spec, images=lambda _: image, seed=seed, nvram=nvram),
    SPEC, IMAGE, st.none() | PATH, PATH,
)  # fmt: skip
EXAMPLES = settings(deadline=None, max_examples=40)


@EXAMPLES
@given(INPUT)
def test_the_document_is_valid_and_says_what_was_declared(domain_schema: etree.RelaxNG, source: DomainInput) -> None:
    root = etree.fromstring(render(generate(source), LINUX))
    domain_schema.assertValid(root)
    paths = sorted(drive.image.path for drive in source.drives if drive.image) + ([source.seed] if source.seed else [])
    assert sorted(source.get("file") for source in root.iterfind("devices/disk/source")) == sorted(paths)
    assert root.findtext("vcpu") == str(source.spec.cpu.count)
    assert [nic.get("bridge") for nic in root.iterfind("devices/interface/source")] == [
        nic.network for nic in source.spec.nics
    ]
    model = source.spec.cpu.model
    assert root.findtext("cpu/model") == (source.baseline.cpu.model if model == "PoolBaseline" else model)
    for kind in ("devices/disk/target[@dev]", "devices/*/alias[@name]"):
        values = [found.get("dev") or found.get("name") for found in root.iterfind(kind)]
        assert len(values) == len(set(values))


@EXAMPLES
@given(INPUT)
def test_the_same_input_gives_the_same_bytes(source: DomainInput) -> None:
    twin = dataclasses.replace(source, spec=VirtualMachineSpec.model_validate(source.spec.to_dict()))
    assert render(generate(source), LINUX) == render(generate(twin), LINUX)
    assert compare(generate(source).sections, generate(twin).sections).empty


@EXAMPLES
@given(INPUT, INPUT)
def test_every_difference_is_named_and_applying_it_leaves_only_what_waits(one: DomainInput, other: DomainInput) -> None:
    running, desired = generate(one).sections, generate(other).sections
    plan = compare(running, desired)
    touched = [*plan.attach, *plan.detach, *plan.update]
    assert len(touched) == len(set(touched))
    assert not {*touched} & {*plan.restart}
    after = compare(applied(running, desired, touched), desired)
    # What found no free port may find one now: a device was unplugged.
    assert not (after.detach or after.update)
    assert {*after.attach, *after.restart} == {*plan.restart}


@EXAMPLES
@given(HOSTILE, HOSTILE)
def test_an_identity_cannot_break_out(namespace: str, name: str) -> None:
    source = dataclasses.replace(domain(VirtualMachineSpec.model_validate({
        "runPolicy": "Always", "pool": "default", "memory": {"size": "64Mi"}})),
        identity=Identity(name, namespace, name, namespace, 1), uuid=UUID)  # fmt: skip
    root = etree.fromstring(render(generate(source), LINUX))
    (vm,) = root.find("metadata")
    assert (vm.get("namespace"), vm.get("name"), vm.get("uid")) == (namespace, name, namespace)
