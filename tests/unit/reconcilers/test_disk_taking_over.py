"""Whose a volume is that lies there already: taken by one Disk at a time, and never from another namespace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crds.disk import Disk
from drivers.model import Volume
from reconcilers.disk.decide import Observed, Step, decide
from reconcilers.disk.record import Record

MINE = Record("here", "shop", "data", "uid-data", "old.raw", "raw")
VOLUME = Volume(name="old.raw", path="/srv/old.raw", capacity=2**20, allocation=0, format="raw")


def disk() -> Disk:
    return Disk.model_validate(
        {
            "apiVersion": "hostler.dev/v1alpha1",
            "kind": "Disk",
            "metadata": {"name": "data", "namespace": "shop", "uid": "uid-data"},
            "spec": {
                "size": "1Mi",
                "storageDomain": "fast",
                "format": "raw",
                "source": {"existing": {"path": "old.raw"}},
            },
            "status": {"volume": {"name": "old.raw", "path": "/srv/old.raw", "takenOver": True}},
        }
    )


@pytest.mark.parametrize(
    ("beside", "trashed"),
    [
        (None, False),
        (replace(MINE, uid="dead"), False),
        (replace(MINE, name="gone", uid="dead"), False),
        (replace(MINE, name="gone", uid="dead"), True),
    ],
)
def test_volume_that_no_disk_has_is_taken(beside: Record | None, *, trashed: bool) -> None:
    assert decide(disk(), Observed(VOLUME, beside, MINE, trashed=trashed)).step is Step.TAKE_OVER


def test_volume_of_another_disk_is_not_taken() -> None:
    plan = decide(disk(), Observed(VOLUME, None, MINE, trashed=False, rival="shop/other"))
    assert (plan.step, plan.verdict.reason) == (Step.NOTHING, "OwnedByOther")
    assert "shop/other: delete that Disk first" in plan.verdict.message


@pytest.mark.parametrize("foreign", [{"namespace": "bank"}, {"installation": "elsewhere"}])
def test_volume_of_another_namespace_or_installation_is_not_taken(foreign: dict[str, str]) -> None:
    plan = decide(disk(), Observed(VOLUME, replace(MINE, **foreign), MINE, trashed=True))
    assert (plan.step, plan.verdict.reason) == (Step.NOTHING, "OwnedByOther")
    assert "old.raw.json" in plan.verdict.message


def test_volume_that_was_taken_is_finished() -> None:
    assert decide(disk(), Observed(VOLUME, MINE, MINE, trashed=False)).step is Step.FINISH
