"""A control plane of its own with everything in `manifests/` applied, and no operator: the API as users meet it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from crds import KINDS
from crds.base import GROUP, VERSION
from lab import Lab

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Api:
    """Objects of our kinds by HTTP, as plain dicts. Refusals are `client.ApiException`."""

    lab: Lab
    custom: client.CustomObjectsApi

    def create(self, obj: dict[str, Any], *, dry_run: bool = True) -> dict[str, Any]:
        return self._call("create", obj, dry_run=dry_run)

    def replace(self, obj: dict[str, Any], *, dry_run: bool = True) -> dict[str, Any]:
        return self._call("replace", obj, obj["metadata"]["name"], dry_run=dry_run)

    def replace_status(self, obj: dict[str, Any], *, dry_run: bool = True) -> dict[str, Any]:
        return self._call("replace", obj, obj["metadata"]["name"], subresource="_status", dry_run=dry_run)

    def delete(self, obj: dict[str, Any]) -> None:
        kind = next(k for k in KINDS if k.kind == obj["kind"])
        where = [obj["metadata"]["namespace"]] if kind.namespaced else []
        scope = "namespaced" if kind.namespaced else "cluster"
        delete = getattr(self.custom, f"delete_{scope}_custom_object")
        delete(GROUP, VERSION, *where, kind.plural, obj["metadata"]["name"])

    def _call(self, verb: str, obj: dict[str, Any], *name: str, subresource: str = "", dry_run: bool) -> dict[str, Any]:
        kind = next(k for k in KINDS if k.kind == obj["kind"])
        where = [obj["metadata"]["namespace"]] if kind.namespaced else []
        scope = "namespaced" if kind.namespaced else "cluster"
        method = getattr(self.custom, f"{verb}_{scope}_custom_object{subresource}")
        options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        answer: dict[str, Any] = method(
            GROUP, VERSION, *where, kind.plural, *name, body=obj, field_validation="Strict", **options
        )
        return answer


def causes(error: client.ApiException) -> list[tuple[str, str]]:
    """The fields that a refusal names, each with what it says of it."""
    assert error.status == 422, error.body
    return [(c["field"], c["message"]) for c in json.loads(error.body)["details"]["causes"]]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    lab = Lab(tmp_path_factory.mktemp("api") / "lab")
    try:
        lab.up(host_count=0)
        lab.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests"))
        names = [f"crd/{kind.plural}.{GROUP}" for kind in KINDS]
        lab.kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")
        api_client = config.new_client_from_config(config_file=str(lab.kubeconfig))
        with api_client:
            yield Api(lab, client.CustomObjectsApi(api_client))
    finally:
        lab.down()
