"""The container image's recipe agrees with the tree. (That it builds takes a container engine.)"""

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

Instruction = tuple[str, list[str]]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage: name and words."""
    found: list[list[Instruction]] = []
    joined = DOCKERFILE.replace("\\\n", " ")
    for line in joined.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, shlex.split(rest)))
    return found


def copied(stage: list[Instruction]) -> list[str]:
    """What is copied from the tree."""
    copies = [words for name, words in stage if name == "COPY" and not words[0].startswith("--")]
    return [source for words in copies for source in words[:-1]]


def installed(stage: list[Instruction]) -> set[str]:
    text = " ".join(" ".join(words) for name, words in stage if name == "RUN")
    found = re.search(r"apt-get install ((?:--\S+ )*)([a-z0-9 .+-]+?) +&&", text)
    assert found is not None
    return set(found[2].split())


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for stage in stages():
        for source in copied(stage):
            assert (ROOT / source).exists(), source
            assert f"!{source}" in allowed


def test_every_room_of_the_operator_is_copied() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench", "lab", "simulator", "tests", "tools"}
    assert {*rooms, "operator"} <= set(copied(stages()[-1]))


def test_it_runs_the_operator_as_nobody_special() -> None:
    last = dict(stages()[-1])
    assert last["ENTRYPOINT"] == ["[python,", "/app/operator]"]
    assert last["USER"] == ["65532:65532"]
    assert last["WORKDIR"] == ["/app"]
    assert "PYTHONPATH=/app" in last["ENV"]


def test_the_tool_versions_are_those_of_the_makefile() -> None:
    version = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f"uv=={version[1]}" in DOCKERFILE


def test_both_stages_are_of_one_base() -> None:
    bases = {dict(stage)["FROM"][0] for stage in stages()}
    assert len(bases) == 1, "what the first stage links against must be in the last one"


def owners(library: Path) -> set[str]:
    """The packages that hold a library; a merged /usr is known to dpkg by either name."""
    names = {str(library), str(library.resolve())}
    names |= {name.removeprefix("/usr") for name in names}
    done = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True, check=False)
    return {line.split(":")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("name", ["libvirtmod", "libvirtmod_qemu"])
def test_what_libvirt_python_links_against_is_installed(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    headers = subprocess.run(["readelf", "-d", spec.origin], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", headers)
    listing = subprocess.run(["ldd", spec.origin], capture_output=True, text=True, check=True).stdout
    paths = {library: Path(path) for library, path in re.findall(r"(\S+) => (/\S+)", listing)}
    assert any(library.startswith("libvirt") for library in needed)
    runtime = {*installed(stages()[-1]), "libc6"}
    for library in needed:
        assert owners(paths[library]) & runtime, library
