"""The command line, the set-up of the machine, and the small pure parts around them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import setup
from lab.__main__ import COMMANDS, main, parser, without_separator
from lab.leftovers import parse_mount_points
from lab.network import CONTROL_MGMT_ADDRESS, Fabric, host_address, hosts_file
from lab.progress import Progress
from lab.state import State
from lab.status import table

DEBIAN_12 = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
ROOT = Path(setup.__file__).parent.parent


def test_every_command_of_the_help_can_be_run_and_the_other_way_round():
    choices = next(action.choices for action in parser()._actions if action.dest == "command")
    assert set(choices) == set(COMMANDS)


def test_commands_pass_options_of_the_inner_command_on():
    options = parser().parse_args(["--state", "x", "exec", "--", "ls", "--all", "-h"])
    assert without_separator(options.arguments) == ["ls", "--all", "-h"]
    options = parser().parse_args(["host", "kvm1", "power", "--help"])
    assert options.arguments == ["kvm1", "power", "--help"]


def test_failure_is_told_in_a_line(tmp_path, capsys):
    assert main(["--state", str(tmp_path / "none"), "exec", "--", "true"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("lab: ")
    assert "lab up" in told


def test_all_names_resolve_by_file():
    lines = [line.split() for line in hosts_file().splitlines()]
    names = {name: address for address, *aliases in lines for name in aliases}
    assert names["localhost"] == "127.0.0.1"
    assert names["control.lab"] == names["images.lab"] == CONTROL_MGMT_ADDRESS
    assert names["kvm3.lab"] == names["kvm3"] == host_address(3) == "10.77.0.13"
    assert len(set(names.values())) == len(lines)


@pytest.mark.parametrize(("name", "bridge"), [("a-very-long-name", "mgmt"), ("kvm1", "elsewhere")])
def test_cable_that_the_kernel_would_refuse_is_refused_early(tmp_path, name, bridge):
    with pytest.raises(ValueError, match="no cable"):
        Fabric(State(tmp_path)).link(1, name, bridge, "eth0")


def test_mount_points_are_unescaped():
    line = r"36 35 98:0 / /mnt/a\040b/\134c rw,noatime master:1 - ext3 /dev/root rw"
    assert parse_mount_points(line + "\n") == ["/mnt/a b/\\c"]


def test_table_lines_columns_up():
    text = table([{"host": "kvm1", "power": "on"}, {"host": "kvm10", "power": "off"}])
    assert text.splitlines() == ["HOST   POWER", "kvm1   on", "kvm10  off"]


def test_progress_tells_begin_end_and_failure(capsys):
    progress = Progress()
    with progress.step("first"):
        pass
    with pytest.raises(ZeroDivisionError), progress.step("second"):
        raise ZeroDivisionError
    told = capsys.readouterr().err
    assert "first ..." in told
    assert "first: done in 0.0 s" in told
    assert "second: failed after" in told


def test_progress_tells_that_a_long_step_still_runs(capsys, monkeypatch):
    monkeypatch.setattr("lab.progress.HEARTBEAT_SECONDS", 0.02)
    with Progress().step("slow"):
        time.sleep(0.1)
    assert "slow: 0 s so far" in capsys.readouterr().err


def test_debian_is_accepted_from_12_on_and_without_a_number():
    setup.check_system(DEBIAN_12)
    setup.check_system(DEBIAN_12.replace("12", "13"))
    setup.check_system("ID=debian\nPRETTY_NAME=sid\n")


@pytest.mark.parametrize("content", [DEBIAN_12.replace("12", "11"), 'ID=fedora\nVERSION_ID=42\nPRETTY_NAME="Fedora"\n'])
def test_other_systems_are_refused_by_name(content):
    name = content.rpartition("PRETTY_NAME=")[2].strip().strip('"')
    with pytest.raises(setup.SetupError, match=name[:6]):
        setup.check_system(content)


def test_only_wholly_installed_packages_count():
    said = "gcc installed\nbindfs config-files\nqemu-utils half-configured\n"
    assert setup.installed(said) == ["gcc"]


def test_a_package_that_does_not_exist_is_missing():
    assert setup.missing(["dpkg", "no-such-package-at-all"]) == ["no-such-package-at-all"]


def test_setup_looks_around_before_any_virtual_environment_and_fast():
    script = "import runpy, sys; setup = runpy.run_path(sys.argv[1]); print(setup['missing'](list(setup['wanted']())))"
    program = [sys.executable, "-I", "-S", "-c", script, str(ROOT / "lab" / "setup.py")]
    began = time.monotonic()
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
    assert time.monotonic() - began < 3
