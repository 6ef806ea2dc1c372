"""What every kind is made of: the model base, references, conditions, and the description of a kind.

The pydantic models are the only place where the API is written down: the CRD YAML (`crds.generate`), the API
reference and the parsing of objects all come from them. A field's docstring is what `kubectl explain` prints.
Nothing is defaulted into a stored spec: Python defaults are documented ("Default: …") but never written to the schema,
so a manifest in Git and the object in the cluster stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "hostler.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "hostler"
FINALIZER = f"{GROUP}/cleanup"
PAUSED_ANNOTATION = f"{GROUP}/paused"


class Model(BaseModel):
    """Base of all API models: camelCase on the wire, immutable, unknown fields of newer CRDs ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """The model as the API carries it: camelCase, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True)
class Rule:
    """One CEL rule: what must hold, and what to tell the person who broke it."""

    KEYWORD: ClassVar[str] = "x-kubernetes-validations"

    rule: str
    """The expression, over `self` (and `oldSelf`: then it is only looked at when the object changes)."""
    message: str
    """Reads on from the path of the field: "spec.size: Invalid value: …: cannot shrink: …"."""
    field_path: str | None = None
    """The field to blame, below the one that the rule is written on."""
    reason: str = "FieldValueInvalid"
    """Or FieldValueForbidden. (The API server leaves the message away with FieldValueDuplicate.)"""

    def to_dict(self) -> dict[str, Any]:
        """The rule as an entry of `x-kubernetes-validations`."""
        out: dict[str, Any] = {"rule": self.rule, "message": self.message, "reason": self.reason}
        if self.field_path:
            out["fieldPath"] = self.field_path
        return out


def rules(*items: Rule) -> dict[str, Any]:
    """CEL rules as pydantic's `json_schema_extra`, for a field or a model's config."""
    return {Rule.KEYWORD: [r.to_dict() for r in items]}


def list_map(*keys: str) -> dict[str, Any]:
    """A list that server-side apply merges by these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


LIST_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
LIST_ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
MAP_ATOMIC: dict[str, Any] = {"x-kubernetes-map-type": "atomic"}

MAX_OBJECT_NAME = 253

ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_OBJECT_NAME,
        json_schema_extra=rules(
            Rule(
                "!format.dns1123Subdomain().validate(self).hasValue()",
                "must be the name of an object: lower-case letters, digits, '-' and '.', for example web-1",
            )
        ),
    ),
]
"""The name of another object."""


CPUModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        json_schema_extra=rules(
            Rule(
                "self.matches('^[A-Za-z0-9][A-Za-z0-9_.+-]*$')",
                "must be the name of a CPU model, as `virsh cpu-models` lists them, for example EPYC-Rome",
            )
        ),
    ),
]
"""The name of a CPU model; it goes into documents for libvirt, which take no control characters."""


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


_CONDITION_TYPE = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
)


class Condition(Model):
    """One observed aspect of an object, in the shape of `metav1.Condition`."""

    # All but observedGeneration are always written, as in metav1.Condition.
    model_config = ConfigDict(
        json_schema_extra={"required": ["lastTransitionTime", "message", "reason", "status", "type"]}
    )

    type: str = Field(max_length=316, json_schema_extra={"pattern": _CONDITION_TYPE})
    """What is observed, in CamelCase."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: str = Field(
        min_length=1,
        max_length=1024,
        json_schema_extra={"pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    )
    """Why, as one CamelCase word that programs may compare."""
    message: str = Field(default="", max_length=32768)
    """Why, for a person, and what to do about it."""
    last_transition_time: datetime
    """When the status of this condition last changed."""
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation of the spec that this condition speaks of."""


class LocalRef(Model):
    """A reference to an object of the same namespace."""

    model_config = ConfigDict(json_schema_extra=MAP_ATOMIC)

    name: ObjectName
    """Name of the object."""


LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=rules(
            Rule(
                "!format.labelValue().validate(self).hasValue()",
                "must be the value of a label: letters, digits, '-', '_' and '.', at most 63 of them",
            )
        ),
    ),
]
"""The value of a label; empty is one too."""


class LabelSelectorOperator(StrEnum):
    """How a label requirement compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelSelectorRequirement(Model):
    """One requirement on a label."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                "must hold at least one value for In and NotIn, and none for Exists and DoesNotExist",
                field_path=".values",
            )
        )
    )

    key: str = Field(
        min_length=1,
        max_length=317,
        json_schema_extra=rules(
            Rule("!format.qualifiedName().validate(self).hasValue()", "must be the key of a label, for example rack")
        ),
    )
    """The label's key."""
    operator: LabelSelectorOperator
    """In, NotIn, Exists or DoesNotExist."""
    values: list[LabelValue] = Field(default_factory=list, max_length=64, json_schema_extra=LIST_ATOMIC)
    """The values for In and NotIn."""


class LabelSelector(Model):
    """Kubernetes' label selector; an empty one selects everything."""

    model_config = ConfigDict(json_schema_extra=MAP_ATOMIC)

    match_labels: dict[str, LabelValue] = Field(
        default_factory=dict,
        max_length=64,
        json_schema_extra=rules(
            Rule(
                "self.all(key, !format.qualifiedName().validate(key).hasValue())",
                "must hold keys of labels, for example rack or example.com/rack",
            )
        ),
    )
    """Labels that must all be there with these values."""
    match_expressions: list[LabelSelectorRequirement] = Field(
        default_factory=list, max_length=64, json_schema_extra=LIST_ATOMIC
    )
    """Requirements that must all hold."""

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(k) == v for k, v in self.match_labels.items()) and all(
            _requirement_holds(r, labels) for r in self.match_expressions
        )


def _requirement_holds(requirement: LabelSelectorRequirement, labels: dict[str, str]) -> bool:
    match requirement.operator:
        case LabelSelectorOperator.IN:
            return labels.get(requirement.key) in requirement.values
        case LabelSelectorOperator.NOT_IN:
            return labels.get(requirement.key) not in requirement.values
        case LabelSelectorOperator.EXISTS:
            return requirement.key in labels
        case LabelSelectorOperator.DOES_NOT_EXIST:
            return requirement.key not in labels


class Consumers(Model):
    """Which namespaces may use an object."""

    namespace_selector: LabelSelector = Field(default_factory=LabelSelector)
    """Selects namespaces by their labels; `{}` means all of them."""


class OwnerReference(Model):
    """The part of an ownerReference that we read."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Metadata(Model):
    """The part of ObjectMeta that reconcilers read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: list[OwnerReference] = Field(default_factory=list)

    @property
    def deleting(self) -> bool:
        """Whether someone asked for this object to be deleted."""
        return self.deletion_timestamp is not None

    @property
    def paused_by(self) -> str | None:
        """Who set the pause annotation, or None."""
        return self.annotations.get(PAUSED_ANNOTATION)


class Status(Model):
    """What every status carries."""

    observed_generation: int = -1
    """The generation of the spec that this status speaks of; -1 when nobody has looked at the object yet."""
    conditions: list[Condition] = Field(default_factory=list, max_length=64, json_schema_extra=list_map("type"))
    """Ready, Reconciling and Stalled (read by kstatus and Argo CD), and what else is known about the object."""

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, or None."""
        # No generator: it is asked for every host by each placement.
        for condition in self.conditions:
            if condition.type == type_:
                return condition
        return None


SpecT = TypeVar("SpecT", bound=Model)
StatusT = TypeVar("StatusT", bound=Status)


class Resource(Model, Generic[SpecT, StatusT]):
    """An object of one of our kinds, as the API server hands it out."""

    api_version: Literal["hostler.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: str
    metadata: Metadata
    spec: SpecT
    status: StatusT

    @classmethod
    def parse(cls, obj: dict[str, Any]) -> Any:
        """The object as a model; a missing status reads as one that nobody has written yet.

        Raises pydantic.ValidationError for an object that the schema would not accept.
        """
        return cls.model_validate({**obj, "status": obj.get("status") or {}})


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`; priority 1 columns only show with `-o wide`."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Kind:
    """How a kind is registered with the API server, and which model reads it."""

    kind: str
    plural: str
    model: type[Resource[Any, Any]]
    namespaced: bool
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    description: str
    rules: tuple[Rule, ...] = field(default=())
    """CEL rules on the whole object, for what needs spec and status together."""
    selectable_fields: tuple[str, ...] = field(default=())
    """JSON paths that `--field-selector` and watches can select by."""

    @property
    def spec_model(self) -> type[Model]:
        """The model of `.spec`."""
        annotation = self.model.model_fields["spec"].annotation
        assert isinstance(annotation, type)
        return annotation

    @property
    def status_model(self) -> type[Status]:
        """The model of `.status`."""
        annotation = self.model.model_fields["status"].annotation
        assert isinstance(annotation, type)
        return annotation


READY_COLUMN = Column("Ready", '.status.conditions[?(@.type=="Ready")].status')
AGE_COLUMN = Column("Age", ".metadata.creationTimestamp", type="date")


def reason_column(priority: int = 1) -> Column:
    """The message of the Ready condition, for `-o wide`."""
    return Column("Message", '.status.conditions[?(@.type=="Ready")].message', priority=priority)
