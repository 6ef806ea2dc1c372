"""The oracle on real guests: what it reads is what they wrote, and planted faults are seen."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from lab import selfcheck
from lab.api import Lab
from lab.hosts import Host
from lab.oracle import Expectation, Kind, Oracle, Volume, main
from lab.processes import run, wait_until

DOMAIN = """<domain type="qemu"><name>counter</name><uuid>{uuid}</uuid>
<memory unit="MiB">128</memory><vcpu>1</vcpu><os><type arch="x86_64" machine="q35">hvm</type></os>
<features><acpi/></features><devices>
<disk type="file"><driver name="qemu" type="qcow2" cache="none"/><source file="/srv/shared/counter-system.qcow2"/>
<target dev="vda" bus="virtio"/><boot order="1"/></disk>
<disk type="file"><driver name="qemu" type="qcow2" cache="none"/><source file="/srv/shared/counter-data.qcow2"/>
<target dev="vdb" bus="virtio"/></disk>
<serial type="pty"/></devices></domain>"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("oracle") / "lab")
    try:
        lab.up(2, control_plane=False)
        yield lab
    finally:
        lab.down()


def _counter(oracle: Oracle) -> Volume:
    return next(volume for volume in oracle.volumes() if volume.label.endswith("counter-data.qcow2"))


def _start(host: Host, uuid: str) -> None:
    (host.layout.path("run") / "counter.xml").write_text(DOMAIN.format(uuid=uuid))
    host.virsh("create", "/run/counter.xml")


def test_it_reads_what_a_guest_writes(lab: Lab) -> None:
    kvm1, kvm2 = lab.hosts
    oracle, uuid = Oracle(lab.state), str(uuid4())
    template, system = lab.state.images / "guest.qcow2", lab.shared / "counter-system.qcow2"
    run(["qemu-img", "convert", "-O", "qcow2", str(template), str(system)])
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(lab.shared / "counter-data.qcow2"), "8M"])
    _start(kvm1, uuid)
    first = wait_until("the guest's first number", lambda: _counter(oracle).sequence, 120)
    later = wait_until("a higher number", lambda: _above(oracle, first), 10)
    assert _counter(oracle).writers == ("kvm1",)
    assert oracle.domains() == {uuid: ["kvm1"]}
    files = {volume.label for volume in oracle.volumes()}
    assert oracle.check(Expectation({uuid}, files)) == []
    assert {found.subject for found in oracle.check(Expectation())} == {uuid, *files}

    kvm1.power_off()
    assert oracle.domains() == {}
    kept = _counter(oracle).sequence
    assert kept is not None
    assert kept >= later
    _start(kvm2, uuid)
    assert wait_until("the guest to count on", lambda: _above(oracle, kept), 120)
    assert oracle.check() == []

    kvm1.power_on()
    _start(kvm1, uuid)
    kinds = {(found.kind, found.subject) for found in oracle.watch(0.5)}
    assert (Kind.DOUBLE_RUN, uuid) in kinds
    assert {subject for kind, subject in kinds if kind == Kind.DOUBLE_RUN} == {
        uuid,
        "/srv/shared/counter-system.qcow2",
        "/srv/shared/counter-data.qcow2",
    }
    assert main(lab.state, []) == 1
    for host in (kvm1, kvm2):
        host.qemu_kill("counter")


def _above(oracle: Oracle, number: int) -> int | None:
    now = _counter(oracle).sequence
    return now if now is not None and now > number else None


def test_every_planted_fault_is_seen(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert selfcheck.main(lab.state) == 0
    said = capsys.readouterr().out
    assert f"{len(selfcheck.PLANTS)} of {len(selfcheck.PLANTS)} plants were seen" in said
    assert [host.name for host in lab.hosts] == ["kvm1", "kvm2"]
    assert not list(lab.shared.glob("selfcheck*"))


def test_a_judge_that_sees_nothing_fails_the_self_check(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Oracle, "_double_runs", lambda _: set())
    monkeypatch.setattr(selfcheck, "PLANTS", {"one image on two hosts": selfcheck.double_start})
    assert selfcheck.main(lab.state) == 1
    assert "does not see that two guests write one image" in capsys.readouterr().out
