"""Models and their wire form are the same thing in two shapes."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crds import DISK, KINDS
from crds.base import Kind, LabelSelector
from crds.disk import DiskSource, DiskSpec
from tests.unit.crds.rule_cases import OPERATION
from tests.unit.crds.strategies import objects

EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


@EVERY_KIND
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_model_survives_the_wire(kind: Kind, data: st.DataObject) -> None:
    model = kind.model.parse(data.draw(objects(kind)))
    assert kind.model.parse(model.to_dict()) == model


@EVERY_KIND
def test_an_object_that_nobody_looked_at(kind: Kind) -> None:
    specs: dict[str, Any] = {
        "Host": {"pool": "p", "uri": "qemu+unix:///system"},
        "HostPool": {},
        "StorageDomain": {"type": "directory", "directory": {"path": "/srv"}, "pools": ["p"]},
        "Network": {"type": "bridge", "bridge": {"name": "br0"}, "pools": ["p"]},
        "Disk": {"size": "1Gi", "storageDomain": "s"},
        "Operation": OPERATION,
        "VirtualMachine": {"runPolicy": "Always", "pool": "p", "memory": {"size": "1Gi"}},
    }
    bare = {
        "apiVersion": "hostler.dev/v1alpha1",
        "kind": kind.kind,
        "metadata": {"name": "x"},
        "spec": specs[kind.kind],
    }
    assert kind.model.parse(bare).status.observed_generation == -1
    assert kind.model.parse({**bare, "fieldOfANewerVersion": 1}) == kind.model.parse(bare)


def test_retain_is_the_default_of_what_lay_there_before() -> None:
    existing = DiskSource.model_validate({"existing": {"path": "a.img"}})
    blank = {"size": "1Gi", "storage_domain": "s"}
    assert DiskSpec(**blank).deletes_volume
    assert not DiskSpec(**blank, source=existing).deletes_volume
    assert DiskSpec(**blank, source=existing, deletion_policy="Delete").deletes_volume
    assert not DiskSpec(**blank, deletion_policy="Retain").deletes_volume


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, {"a": "1"}, False),
    ],
)
def test_selectors(selector: dict[str, Any], labels: dict[str, str], expected: bool) -> None:
    assert LabelSelector.model_validate(selector).matches(labels) is expected


def test_kinds_know_their_parts() -> None:
    assert DISK.spec_model is DiskSpec
    assert DISK.status_model.__name__ == "DiskStatus"
