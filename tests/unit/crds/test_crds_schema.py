"""The generated schemas are structural, documented and bounded, and the committed files are what the models say."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from crds import KINDS
from crds.base import Kind, LocalRef, Model
from crds.generate import ROOT, files, main
from crds.reference import rules_of
from crds.schema import STATUS_DEFAULT, object_schema, structural_schema
from tests.unit.crds.rule_cases import CASES
from tests.unit.crds.strategies import without_indices

ALLOWED = {
    "type", "description", "properties", "required", "items", "additionalProperties", "enum", "format", "pattern",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
    "x-kubernetes-int-or-string",
}  # fmt: skip
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def nodes(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from nodes(schema[inner], f"{path}[]")


def parts(kind: Kind) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from nodes(structural_schema(kind.spec_model), "spec")
    yield from nodes(structural_schema(kind.status_model), "status")


@EVERY_KIND
def test_only_keywords_that_a_structural_schema_may_have(kind: Kind) -> None:
    for path, schema in parts(kind):
        assert set(schema) <= ALLOWED, path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        assert schema.get("properties") != {}, path


@EVERY_KIND
def test_every_field_says_what_it_means(kind: Kind) -> None:
    for path, schema in parts(kind):
        if path.endswith("[]"):
            continue
        description = schema.get("description", "")
        assert description.endswith((".", "…", ")")), f"{path}: {description!r}"
        assert "\n" not in description.replace("\n\n", ""), path


@EVERY_KIND
def test_whatever_a_user_writes_is_bounded(kind: Kind) -> None:
    """Else the API server's estimate of the rules' cost would refuse the definition, or one object fill the store."""
    for path, schema in nodes(structural_schema(kind.spec_model), "spec"):
        if schema.get("type") == "string" and "enum" not in schema:
            assert "maxLength" in schema, path
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
            assert schema.get("x-kubernetes-list-type") in ("map", "set", "atomic"), path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path
        if schema.get("type") == "integer" and "enum" not in schema:
            assert {"minimum", "maximum"} <= set(schema), path


@EVERY_KIND
def test_lists_that_are_maps_have_required_keys(kind: Kind) -> None:
    for path, schema in parts(kind):
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            assert key in schema["items"]["required"], f"{path}: {key}"


@EVERY_KIND
def test_nothing_is_defaulted_but_the_status(kind: Kind) -> None:
    assert "default" not in str(structural_schema(kind.spec_model).keys())
    assert object_schema(kind)["properties"]["status"]["default"] == STATUS_DEFAULT == {"observedGeneration": -1}


@EVERY_KIND
def test_a_default_that_the_model_has_is_told(kind: Kind) -> None:
    def walk(model: type[Model], path: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            if isinstance(field.default, str | int | float) and field.description is not None:
                spoken = re.sub(r"\s+", " ", field.description)
                if f"Default: {field.default}" not in spoken:
                    yield f"{path}.{name}: {field.default!r} is not in {spoken!r}"
            for inner in _models_in(field.annotation):
                yield from walk(inner, f"{path}.{name}")

    assert list(walk(kind.spec_model, "spec")) == []


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


@EVERY_KIND
def test_conditions_are_those_of_kubernetes(kind: Kind) -> None:
    conditions = structural_schema(kind.status_model)["properties"]["conditions"]
    condition = conditions["items"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert condition["required"] == ["lastTransitionTime", "message", "reason", "status", "type"]
    assert condition["properties"]["status"]["enum"] == ["True", "False", "Unknown"]
    assert condition["properties"]["lastTransitionTime"]["format"] == "date-time"
    assert condition["properties"]["reason"]["pattern"] == "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
    assert condition["properties"]["message"]["maxLength"] == 32768


@EVERY_KIND
def test_columns_point_at_fields_that_exist(kind: Kind) -> None:
    schema = object_schema(kind)["properties"]
    paths = [c.json_path for c in kind.columns] + list(kind.selectable_fields)
    for path in paths:
        if path.startswith((".metadata", ".status.conditions[")):
            continue
        here: Mapping[str, Any] = {"properties": schema}
        for name in path.lstrip(".").removesuffix("[*]").split("."):
            assert name in here["properties"], path
            here = here["properties"][name]


def test_names_do_not_collide() -> None:
    names = [n for kind in KINDS for n in {*kind.short_names, kind.plural, kind.kind.lower()}]
    assert len(names) == len(set(names))


def test_a_reference_is_replaced_as_a_whole() -> None:
    assert structural_schema(LocalRef)["x-kubernetes-map-type"] == "atomic"


def test_a_model_within_itself_is_refused() -> None:
    class Knot(Model):
        inner: "Knot | None" = None

    with pytest.raises(ValueError, match="refers to itself"):
        structural_schema(Knot)


def test_the_committed_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_check_names_the_stale_file(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], root=tmp_path) == 0
    assert main(["--check"], root=tmp_path) == 0
    stale = tmp_path / "manifests/crds/disks.hostler.dev.yaml"
    stale.write_text(stale.read_text() + "# touched\n")
    capsys.readouterr()
    assert main(["--check"], root=tmp_path) == 1
    assert capsys.readouterr().err.startswith("manifests/crds/disks.hostler.dev.yaml is stale")
    assert "touched" in stale.read_text(), "--check writes nothing"


def test_generated_yaml_is_plain() -> None:
    for path, text in files().items():
        if path.suffix == ".yaml":
            assert text.startswith("# Generated by `python -m crds.generate`")
            assert "&id" not in text
            assert yaml.safe_load(text)["spec"]["names"]["categories"] == ["hostler"]


def test_kustomization_lists_every_definition() -> None:
    listed = yaml.safe_load((ROOT / "manifests/kustomization.yaml").read_text())["resources"]
    assert {r for r in listed if r.startswith("crds/")} == {f"crds/{k.plural}.hostler.dev.yaml" for k in KINDS}


def test_every_rule_has_a_case() -> None:
    """The table is asked of a real API server in the integration tests; here only that it misses no rule."""
    for kind in KINDS:
        cases = [(without_indices(c.path), c.message) for c in CASES if c.kind == kind.kind]
        for path, message in rules_of(object_schema(kind)):
            if path.startswith("status"):
                continue
            assert any(path == at and message.startswith(said) for at, said in cases), f"{kind.kind} {path}: {message}"
