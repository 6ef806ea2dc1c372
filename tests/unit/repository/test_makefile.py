import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()


def run(*arguments: str) -> str:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_help_explains_the_targets() -> None:
    explained = re.findall(r"^  make ([a-z-]+) +\S", run("help"), re.MULTILINE)
    assert {"help", "setup", "demo", "demo-down", "check", "format", "test", "bench", "generate", "clean"} <= set(
        explained
    )


def test_every_target_without_a_file_is_phony() -> None:
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    targets = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
    assert set(phony[1].replace("\\\n", " ").split()) == targets


def test_a_python_that_is_too_old_is_refused() -> None:
    done = subprocess.run(["make", "packages", "PYTHON="], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.11 to 3.14 is needed" in done.stderr


@pytest.mark.parametrize("script", ["tools/test.sh", "tools/bench.sh", "tools/faults_real.sh", ".ci/run"])
def test_the_scripts_are_executable_shell(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", str(path)], check=True)
