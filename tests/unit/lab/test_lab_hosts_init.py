"""A host's first process: what it tells about its boot."""

from __future__ import annotations

import struct

from lab.hosts.init import boot_record, parse_counters, stat_text

MACHINE = (
    "cpu  70 0 30 900 5 0 0 1 0 0\ncpu0 40 0 10 450 5 0 0 0 0 0\ncpu1 30 0 20 450 0 0 0 1 0 0\nintr 99 1 2\nbtime 5\n"
)


def test_counters_are_read_and_written_alike() -> None:
    counters = parse_counters(MACHINE)
    assert counters["cpu1"] == [30, 0, 20, 450, 0, 0, 0, 1, 0, 0]
    text = stat_text(counters, booted=123)
    assert parse_counters(text) == counters
    assert "btime 123\n" in text
    assert "intr 99" not in text


def test_the_record_of_a_boot_is_one_entry_of_utmp() -> None:
    record = boot_record(1_700_000_000)
    assert len(record) == 384
    kind, line = struct.unpack_from("<h6x32s", record)
    assert (kind, line.rstrip(b"\0")) == (2, b"~")
    assert struct.unpack_from("<i", record, 340) == (1_700_000_000,)
