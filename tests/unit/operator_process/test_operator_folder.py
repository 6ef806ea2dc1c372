"""operator/ is a folder of scripts: as a package it would shadow the standard library's module everywhere."""

import operator
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.unit.operator_process.scripts import FOLDER, ROOT


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("folder", [FOLDER, ROOT / "tests" / "operator", ROOT / "tests" / "unit" / "operator"])
def test_there_is_no_package_of_that_name(folder):
    assert not (folder / "__init__.py").exists()


def test_the_module_is_the_standard_library_s():
    home = Path(sysconfig.get_path("stdlib"))
    assert Path(operator.__file__).is_relative_to(home)
    done = run("-c", "import operator, enum, collections; print(operator.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(home), done.stderr


def test_every_script_has_a_name_that_shadows_nothing():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names >= {"__main__", "main"}
    assert all(name.startswith("operator_") for name in names - {"__main__", "main"})
    assert not names.intersection(sys.stdlib_module_names - {"__main__"})


def test_it_runs_as_the_manifests_run_it():
    done = run("operator", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python operator ")
    assert "--kubeconfig" in done.stdout
    assert done.stderr == ""


def test_it_runs_from_anywhere_and_refuses_bad_input_with_words(tmp_path):
    done = run(str(FOLDER), "--workers", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "must be at least 1" in done.stderr


def test_a_kubeconfig_that_is_not_there_is_said(tmp_path):
    done = run("operator", "--log-format", "text", "--kubeconfig", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "cannot start" in done.stderr
    assert "--kubeconfig FILE" in done.stderr
    assert "Traceback" not in done.stderr
