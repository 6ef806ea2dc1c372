import json
import shutil
import subprocess
from pathlib import Path

import pytest

from lab import guest

SCRIPTS = Path(guest.__file__).parent / "root"


def stored(cache: Path, content: bytes = b"image", size: int = 5) -> Path:
    folder = cache / "guest" / guest.recipe_hash()
    folder.mkdir(parents=True)
    (folder / "guest.qcow2").write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps({"sha256": "abc", "size": size, "packages": {}}))
    return folder


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building fails at once, because no program is found."""
    monkeypatch.setattr(shutil, "which", lambda *_arguments, **_options: None)


@pytest.mark.usefixtures("no_programs")
def test_a_stored_image_needs_no_program(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    assert guest.build(tmp_path, progress=pytest.fail) == guest.GuestImage(folder / "guest.qcow2", "abc", 5)


@pytest.mark.usefixtures("no_programs")
def test_an_image_that_is_not_what_was_stored_is_built_again(tmp_path: Path) -> None:
    stored(tmp_path, content=b"half")
    with pytest.raises(guest.GuestError, match="is not installed"):
        guest.build(tmp_path, progress=lambda _text: None)


@pytest.mark.usefixtures("no_programs")
def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(guest.GuestError):
        guest.build(tmp_path, progress=lambda _text: None)
    assert [path.name for path in (tmp_path / "guest").iterdir()] == [".lock"]


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = stored(tmp_path / "hostler-lab")
    assert guest.build(progress=pytest.fail).path == folder / "guest.qcow2"


def test_every_change_of_the_recipe_names_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "guest"
    shutil.copytree(SCRIPTS.parent, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(guest, "_RECIPE", copy)
    hashes = [guest.recipe_hash()]
    (copy / "root/init").write_text("#!/bin/sh\n")
    hashes.append(guest.recipe_hash())
    (copy / "root/init").chmod(0o644)
    hashes.append(guest.recipe_hash())
    (copy / "disk.py").write_text("")
    hashes.append(guest.recipe_hash())
    (copy / "README.md").write_text("words decide nothing")
    assert len({*hashes, guest.recipe_hash()}) == 4


def test_the_scripts_of_the_guest_are_shell() -> None:
    scripts = [path for path in SCRIPTS.rglob("*") if path.is_file() and path.read_text().startswith("#!/bin/sh\n")]
    assert len(scripts) > 8
    for script in scripts:
        subprocess.run(["sh", "-n", str(script)], check=True)
        assert script.stat().st_mode & 0o111, f"{script} must be executable"
