"""A QEMU is known by its command line."""

from __future__ import annotations

import pytest

from lab.hosts.qemus import parse

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("guest=web,debug-threads=on", "web"),
        ("guest=a,,b,debug-threads=on", "a,b"),
        ("debug-threads=on,guest=default.web", "default.web"),
        ("plain", "plain"),
    ],
)
def test_name_and_uuid_are_read(option: str, name: str) -> None:
    argv = [b"/usr/bin/qemu-system-x86_64", b"-name", option.encode(), b"-S", b"-uuid", UUID.encode()]
    qemu = parse(7, argv)
    assert qemu is not None
    assert (qemu.pid, qemu.name, qemu.uuid) == (7, name, UUID)
    assert qemu.argv[0] == "/usr/bin/qemu-system-x86_64"


def test_a_qemu_that_only_tells_its_capabilities_runs_no_domain() -> None:
    assert parse(7, [b"/usr/bin/qemu-system-x86_64", b"-S", b"-machine", b"none"]) is None
    assert parse(7, [b"/usr/bin/qemu-system-x86_64", b"-name", b"guest=x", b"-uuid"]) is None
