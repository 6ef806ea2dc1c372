"""The oracle's rules, on worlds small enough to see through, and on folders without any host."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from lab.hosts import Host, Qemu
from lab.hosts.openfiles import OpenFile
from lab.oracle import Expectation, Holder, Kind, Oracle, double_runs, machine_path
from lab.state import State

_pids = count(100)


def _holder(host: str, domain: str, *files: OpenFile) -> Holder:
    return Holder(host, Qemu(next(_pids), domain, f"uuid-of-{domain}", ()), files)


def _file(inode: int, *, writable: bool = True) -> OpenFile:
    return OpenFile(f"/srv/shared/{inode}", (8, inode), writable)


def _subjects(*holders: Holder) -> set[str]:
    assert all(found.kind == Kind.DOUBLE_RUN for found in double_runs(holders))
    return {found.subject for found in double_runs(holders)}


def test_guests_that_share_nothing_are_fine() -> None:
    assert not _subjects(_holder("kvm1", "a", _file(1)), _holder("kvm2", "b", _file(2)))


def test_a_template_that_all_only_read_is_fine() -> None:
    template = _file(9, writable=False)
    assert not _subjects(_holder("kvm1", "a", _file(1), template), _holder("kvm2", "b", _file(2), template))


@pytest.mark.parametrize("other", ["kvm1", "kvm2"])
def test_one_domain_twice(other: str) -> None:
    assert _subjects(_holder("kvm1", "a", _file(1)), _holder(other, "a", _file(2))) == {"uuid-of-a"}


@pytest.mark.parametrize("other", ["kvm1", "kvm2"])
def test_one_image_written_twice(other: str) -> None:
    assert _subjects(_holder("kvm1", "a", _file(1)), _holder(other, "b", _file(1))) == {"/srv/shared/1"}


def test_my_leaf_in_your_chain() -> None:
    below = _file(1, writable=False)
    assert _subjects(_holder("kvm1", "a", _file(1)), _holder("kvm2", "b", _file(2), below)) == {"/srv/shared/1"}


def test_a_qemu_may_have_its_own_image_open_twice() -> None:
    assert not _subjects(_holder("kvm1", "a", _file(1), _file(1, writable=False)))
    reader_too = _holder("kvm1", "a", _file(1), _file(1, writable=False))
    assert _subjects(reader_too, _holder("kvm2", "b", _file(1, writable=False))) == {"/srv/shared/1"}


def test_the_detail_names_both_and_what_they_do() -> None:
    (found,) = double_runs([_holder("kvm1", "a", _file(1)), _holder("kvm2", "b", _file(1, writable=False))])
    assert "a on kvm1" in found.detail
    assert "writes" in found.detail
    assert "b on kvm2" in found.detail
    assert "reads" in found.detail


# Disks, logs and leftovers, from folders


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "lab")
    state.create()
    for number in (1, 2):
        Host.of(state, number).local.mkdir(parents=True)
    return state


def _write(file: Path, number: int) -> None:
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(f"{number:016d}".encode())


def test_numbers_may_rise_but_never_fall(state: State) -> None:
    oracle, disk = Oracle(state), state.shared / "disk"
    for number in (1, 5, 5):
        _write(disk, number)
        assert oracle.check() == []
    _write(disk, 4)
    (found,) = oracle.check()
    assert (found.kind, found.subject) == (Kind.SEQUENCE_WENT_BACK, "/srv/shared/disk")
    assert "5" in found.detail
    assert "4" in found.detail


def test_a_new_disk_of_the_same_name_begins_anew(state: State) -> None:
    oracle, disk = Oracle(state), Host.of(state, 1).local / "disk"
    _write(disk, 5)
    assert oracle.check() == []
    for _ in range(20):
        disk.unlink()
        _write(disk, 1)
        assert oracle.check() == []


def test_volumes_are_named_as_their_hosts_see_them(state: State) -> None:
    (state.shared / "pool").mkdir()
    _write(state.shared / "pool" / "disk", 7)
    (Host.of(state, 2).local / "note").write_text("not a disk")
    found = {volume.label: volume.sequence for volume in Oracle(state).volumes()}
    assert found == {"/srv/shared/pool/disk": 7, "kvm2:/srv/local/note": None}


def test_a_refused_lock_in_a_log_is_seen_unless_forgiven(state: State) -> None:
    log = Host.of(state, 2).layout.path("log") / "qemu" / "web.log"
    log.parent.mkdir(parents=True)
    log.write_text('char device redirected\nqemu: -blockdev x: Failed to get "write" lock\n')
    (found,) = Oracle(state).check()
    assert (found.kind, found.subject) == (Kind.REFUSED_WRITE_LOCK, "kvm2 web")
    assert ":2: " in found.detail
    later = Oracle(state, from_now=True)
    assert later.check() == []
    with log.open("a") as opened:
        opened.write('qemu: -blockdev x: Failed to get "write" lock\n')
    assert len(later.check()) == 1


def test_what_nobody_declared_is_an_orphan(state: State) -> None:
    host = Host.of(state, 1)
    definition = host.layout.path("etc") / "qemu" / "web.xml"
    variables = host.layout.path("lib") / "qemu" / "nvram" / "web.fd"
    for file in (definition, variables, state.shared / "a.qcow2", host.local / "b.qcow2"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    uuid = "6e7f6d83-3c50-4b8b-8e4a-0a9c1d2e3f40"
    definition.write_text(f"<domain><uuid>{uuid}</uuid></domain>")
    labels = {"/srv/shared/a.qcow2", "kvm1:/srv/local/b.qcow2", "kvm1:/var/lib/libvirt/qemu/nvram/web.fd"}
    oracle = Oracle(state)
    assert oracle.check() == []
    found = oracle.check(Expectation())
    assert {violation.subject for violation in found} == {uuid, *labels}
    assert {violation.kind for violation in found} == {Kind.ORPHAN}
    assert oracle.check(Expectation({uuid.upper()}, labels)) == []
    assert oracle.check(Expectation({uuid}, ["/srv/shared/*.qcow2", "kvm1:*"])) == []


def test_paths_of_hosts_lie_in_their_folders(state: State) -> None:
    host = Host.of(state, 1)
    assert machine_path(state, host, "/srv/shared/a") == state.shared / "a"
    assert machine_path(state, None, "/srv/shared/a") == state.shared / "a"
    assert machine_path(state, host, "/srv/local/a") == host.local / "a"
    assert machine_path(state, host, "/var/lib/libvirt/images/a") == host.layout.path("lib") / "images" / "a"
    assert machine_path(state, host, "/usr/share/OVMF/OVMF_CODE.fd") == Path("/usr/share/OVMF/OVMF_CODE.fd")
