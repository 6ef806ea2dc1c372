"""Network: what a VM's network card is plugged into."""

from __future__ import annotations

from pydantic import Field

from crds.base import (
    AGE_COLUMN,
    LIST_SET,
    READY_COLUMN,
    Column,
    Consumers,
    Kind,
    Model,
    ObjectName,
    Resource,
    Rule,
    Status,
    list_map,
    reason_column,
    rules,
)


class BridgeNetwork(Model):
    """A Linux bridge that exists on every host of the pools."""

    name: str = Field(
        min_length=1,
        max_length=15,
        json_schema_extra=rules(
            Rule(r"self.matches('^[A-Za-z0-9_.:-]+$')", "must be the name of a bridge device, for example br0")
        ),
    )
    """Name of the bridge device on the hosts."""


class NetworkSpec(Model):
    """What the network is on the hosts."""

    type: str = Field(json_schema_extra={"enum": ["bridge"]})
    """Kind of network; bridge is an existing Linux bridge on the hosts."""
    bridge: BridgeNetwork
    """The bridge, for type bridge."""
    pools: list[ObjectName] = Field(min_length=1, max_length=64, json_schema_extra=LIST_SET)
    """The HostPools whose hosts have this network."""
    consumers: Consumers | None = None
    """Which namespaces may plug VMs in here. Default: all."""


class HostNetwork(Model):
    """Whether one host has the network."""

    name: str
    """Name of the Host."""
    available: bool
    """Whether the bridge is there."""
    message: str = ""
    """What is missing."""


class NetworkStatus(Status):
    """What is observed of the network."""

    hosts: list[HostNetwork] = Field(default_factory=list, max_length=1024, json_schema_extra=list_map("name"))
    """Each host of the pools, and whether it has the network."""


class Network(Resource[NetworkSpec, NetworkStatus]):
    """What a VM's network card is plugged into."""


NETWORK = Kind(
    kind="Network",
    plural="networks",
    model=Network,
    namespaced=False,
    short_names=("vmnet",),
    columns=(
        READY_COLUMN,
        Column("Type", ".spec.type"),
        Column("Bridge", ".spec.bridge.name", priority=1),
        reason_column(),
        AGE_COLUMN,
    ),
    description="A network that VMs are plugged into: a bridge that exists on the hosts.",
    rules=(
        Rule(
            "self.spec.bridge.name == oldSelf.spec.bridge.name",
            "cannot be changed under the VMs that are plugged in: make another Network and change the VMs' nics to it",
            field_path=".spec.bridge.name",
            reason="FieldValueForbidden",
        ),
    ),
)
