"""Whole manifests, some of them spoiled: what the API server takes the models read, what it refuses names its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from crds import KINDS
from crds.base import Kind
from tests.faults.fuzz.campaign import campaign, tried
from tests.integration.api.conftest import Api
from tests.integration.api.conftest import api as api
from tests.unit.crds.strategies import objects

JUNK = st.one_of(
    st.text(max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(
        ["", "../x", "n" * 300, "-1Gi", "1e3", "0x10", "]]>", "\0", "\ufffe", "٣Gi", "NaN", {}, [{}], {"name": "x"}]
    ),
)


def leaves(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values within a spec."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [w for key, item in inner for w in ((*way, key), *leaves(item, (*way, key)))]


def spoil(spec: Any, way: tuple[Any, ...], junk: Any) -> None:
    for key in way[:-1]:
        spec = spec[key]
    spec[way[-1]] = junk


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
@campaign(150)
@given(data=st.data())
def test_the_server_and_the_models_agree(api: Api, kind: Kind, data: st.DataObject) -> None:
    made = kind.model.parse(data.draw(objects(kind))).to_dict()
    sent = {**made, "metadata": {"name": "fuzz", **({"namespace": "default"} if kind.namespaced else {})}}
    sent = json.loads(json.dumps(sent))
    ways = leaves(sent["spec"])
    if ways and data.draw(st.booleans()):
        spoil(sent["spec"], data.draw(st.sampled_from(ways)), data.draw(JUNK))
    stored, refusal = _created(api, sent)
    if refusal is not None:
        answer = json.loads(str(refusal.body))
        tried(f"specs of {kind.kind}", f"refused ({refusal.status})")
        if refusal.status == 422:
            named = [cause["field"] for cause in answer["details"]["causes"]]
            assert all(field.startswith("spec") or field == "<nil>" for field in named), named
            assert any(field.startswith("spec") for field in named)
        else:
            assert refusal.status == 400, answer
            assert "spec" in answer["message"]
        return
    tried(f"specs of {kind.kind}", "taken")
    assert kind.model.parse(stored).spec == kind.model.parse(sent).spec


def _created(api: Api, sent: dict[str, Any]) -> tuple[dict[str, Any], client.ApiException | None]:
    try:
        return api.create(sent), None
    except client.ApiException as refusal:
        return {}, refusal
