"""Every file in examples/ applies as it stands, is what the models read, and leaves nothing to diff."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crds import KINDS
from lab.errors import CommandFailedError
from tests.integration.api.conftest import ROOT, Api

EXAMPLES = ROOT / "examples"
QUICKSTART = EXAMPLES / "quickstart"
FILES = sorted(p for p in EXAMPLES.glob("*/*.yaml") if p.parent != QUICKSTART)
OVERLAY = """
resources: [{base}]
patches:
  - target: {{kind: VirtualMachine}}
    patch: |-
      - op: replace
        path: /spec/disks/0/template/source/http/checksum
        value: sha256:{checksum}
"""


@pytest.fixture(scope="module", autouse=True)
def quickstart(api: Api) -> Iterator[None]:
    api.lab.kubectl("apply", "--server-side", "-k", str(QUICKSTART))
    yield
    api.lab.kubectl("delete", "--wait=false", "-k", str(QUICKSTART))


def assert_no_diff(api: Api, *arguments: str) -> None:
    """kubectl diff ends with 1 where there is one."""
    try:
        assert not api.lab.kubectl("diff", "--server-side", *arguments).strip()
    except CommandFailedError as error:
        pytest.fail(f"kubectl diff is not empty: {error}")


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def test_there_are_examples() -> None:
    assert len(FILES) >= 18


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(EXAMPLES)))
def test_applies_and_leaves_nothing_to_diff(api: Api, path: Path) -> None:
    assert path.read_text().startswith("# "), "an example says what it shows"
    assert str(path.relative_to(EXAMPLES)) in _readme_links()
    api.lab.kubectl("apply", "--server-side", "-f", str(path))
    try:
        assert_no_diff(api, "-f", str(path))
        _apply_like_most_people(api, path)
        for stored in _stored(api, path):
            _assert_read_by_the_model(stored)
    finally:
        api.lab.kubectl("delete", "--wait=false", "-f", str(path))


def _apply_like_most_people(api: Api, path: Path) -> None:
    """Client-side apply, as long as people type `kubectl apply -f` without more."""
    api.lab.kubectl("delete", "-f", str(path))
    api.lab.kubectl("apply", "-f", str(path))
    try:
        assert not api.lab.kubectl("diff", "-f", str(path)).strip()
    except CommandFailedError as error:
        pytest.fail(f"kubectl diff is not empty: {error}")


def test_quickstart_leaves_nothing_to_diff(api: Api) -> None:
    assert_no_diff(api, "-k", str(QUICKSTART))
    vms = [d for d in documents(QUICKSTART / "virtual-machines.yaml") if d["kind"] == "VirtualMachine"]
    assert [vm["metadata"]["name"] for vm in vms] == ["web-1", "web-2", "web-3"]


def test_quickstart_takes_its_checksum_from_an_overlay(api: Api, tmp_path: Path) -> None:
    base = Path(*[".."] * (len(tmp_path.parts) - 1)) / QUICKSTART.relative_to("/")
    (tmp_path / "kustomization.yaml").write_text(OVERLAY.format(base=base, checksum="a" * 64))
    built = list(yaml.safe_load_all(api.lab.kubectl("kustomize", str(tmp_path))))
    sums = [
        vm["spec"]["disks"][0]["template"]["source"]["http"]["checksum"]
        for vm in built
        if vm["kind"] == "VirtualMachine"
    ]
    assert sums == ["sha256:" + "a" * 64] * 3


def test_every_example_is_in_the_readme() -> None:
    files = {str(p.relative_to(EXAMPLES)) for p in FILES} | {"quickstart"}
    assert {link for link in _readme_links() if "://" not in link} == files


def _readme_links() -> set[str]:
    return {part.split(")")[0] for part in (EXAMPLES / "README.md").read_text().split("](")[1:]}


def _stored(api: Api, path: Path) -> list[dict[str, Any]]:
    text = api.lab.kubectl("get", "-f", str(path), "-o", "yaml")
    found = yaml.safe_load(text)
    return found["items"] if found["kind"] == "List" else [found]


def _assert_read_by_the_model(stored: dict[str, Any]) -> None:
    for kind in KINDS:
        if stored["kind"] == kind.kind:
            parsed = kind.model.parse(stored)
            assert parsed.metadata.name == stored["metadata"]["name"]
            assert parsed.status.observed_generation == -1
