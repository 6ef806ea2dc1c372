"""The Kubernetes API as the engine uses it: plain dicts in, plain dicts out, typed errors.

Built on the official client's connection and credentials only. Its generated models refuse fields newer than
themselves, and custom resources have no models at all.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException
from yaml import YAMLError

from engine import errors
from engine.keys import Key, Object, Objects
from engine.transport import HttpChannel, Transport

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_LIST_RESTARTS = 5


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives in the API; `group` "" is the core."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection (of one namespace or, for None, of all), an object, or a part of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}{inside}/{self.plural}{tail}"

    def path_of(self, key: Key, subresource: str | None = None) -> str:
        return self.path(key.namespace, key.name, subresource)


SECRETS = Resource("", "v1", "Secret", "secrets", namespaced=True)
EVENTS = Resource("events.k8s.io", "v1", "Event", "events", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", namespaced=True)


class KubeClient:
    """Every call has a deadline, is measured, and raises an `errors.ApiError`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    async def from_kubeconfig(
        cls, path: Path | str | None = None, *, deadline: float = 30.0, connections: int = 32
    ) -> "KubeClient":
        """From a kubeconfig file: the one named, or those of KUBECONFIG, or ~/.kube/config.

        `deadline`: seconds per call. `connections`: size of the connection pool. Raises
        kubernetes.aio.config.ConfigException for a file that cannot be used.
        """
        configuration = _configuration(connections)
        place = str(path) if path is not None else None

        async def load() -> None:
            try:
                await config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=place, client_configuration=configuration, persist_config=False
                )
            except (YAMLError, TypeError, ValueError, LookupError, AttributeError) as error:
                # The loader looks into whatever it is given: what is no kubeconfig fails in many ways.
                raise ConfigException(f"{place or 'it'} is no kubeconfig: {' '.join(str(error).split())}") from error

        _require(path)
        await load()
        return cls(Transport(HttpChannel(ApiClient(configuration)), timeout=deadline, reload_credentials=load))

    @classmethod
    def in_cluster(cls, *, deadline: float = 30.0, connections: int = 32) -> "KubeClient":
        """From the service account of the pod that this runs in; its token is read again as it rotates."""
        configuration = _configuration(connections)
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(Transport(HttpChannel(ApiClient(configuration)), timeout=deadline))

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> "KubeClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- reading

    async def version(self) -> str:
        """The server's version, for example "v1.36.3"; the cheapest proof that it answers and knows us."""
        answer = await self._transport.request("GET", "/version", kind="", verb="version")
        return str(answer["gitVersion"])

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, from the server, not from the cache. NotFound when it is not there."""
        return await self._transport.request("GET", resource.path(namespace, name), kind=resource.kind, verb="get")

    async def list(
        self, resource: Resource, namespace: str | None = None, *, limit: int = 500, metadata_only: bool = False
    ) -> tuple[Objects, str]:
        """Every object (of one namespace, or of all) and the list's resourceVersion: one consistent moment.

        Read in pages of `limit`, from the beginning again when the server forgot where we were. Each item carries
        `apiVersion` and `kind`; with `metadata_only` nothing but these and `metadata`.
        """
        for _ in range(_LIST_RESTARTS):
            try:
                return await self._pages(resource, namespace, limit, metadata_only)
            except errors.Expired:
                continue
        raise errors.ServerUnavailable(0, "Expired", f"the list of {resource.plural} expired again and again")

    async def _pages(
        self, resource: Resource, namespace: str | None, limit: int, metadata_only: bool
    ) -> tuple[Objects, str]:
        accept = _METADATA_ONLY if metadata_only else "application/json"
        query = {"limit": str(limit)}
        items: Objects = []
        while True:
            page = await self._transport.request(
                "GET", resource.path(namespace), kind=resource.kind, verb="list", query=query, accept=accept
            )
            kind = {"apiVersion": resource.api_version, "kind": resource.kind}
            items.extend({**item, **kind} for item in page.get("items") or ())
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return items, metadata["resourceVersion"]
            query["continue"] = metadata["continue"]

    async def get_secret(self, namespace: str, name: str) -> dict[str, bytes]:
        """A Secret's data, decoded."""
        secret = await self.get(SECRETS, namespace, name)
        return {entry: base64.b64decode(value) for entry, value in (secret.get("data") or {}).items()}

    # -- writing

    async def create(self, resource: Resource, obj: Object, *, manager: str | None = None) -> Object:
        """Creates an object and returns it. AlreadyExists, Invalid; an unknown field is a BadRequest."""
        namespace = obj["metadata"].get("namespace")
        query = {"fieldValidation": "Strict"} | ({"fieldManager": manager} if manager else {})
        return await self._transport.request(
            "POST", resource.path(namespace), kind=resource.kind, verb="create", query=query, body=obj
        )

    async def replace(self, resource: Resource, obj: Object) -> Object:
        """Puts the object in the place of the one with its uid and resourceVersion, as compare-and-set.

        Conflict when that is no longer so, also because it is gone (for some kinds NotFound then).
        """
        key = Key.of(obj)
        assert obj["metadata"]["uid"] and obj["metadata"]["resourceVersion"], "without them nothing is compared"
        return await self._transport.request(
            "PUT",
            resource.path_of(key),
            kind=resource.kind,
            verb="replace",
            query={"fieldValidation": "Strict"},
            body=obj,
        )

    async def apply_status(self, resource: Resource, obj: Object, *, manager: str, force: bool = True) -> Object:
        """Server-side apply of `obj["status"]`; what `manager` applied before and leaves out now is removed.

        `obj` needs only `metadata.name`, `namespace` and `status`. A `resourceVersion` in it must match, else Conflict
        (a `uid` is not looked at by the server). Without `force`, fields of another manager are a Conflict. The newest
        object comes back.
        """
        sent = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        key = Key.of(sent)
        return await self._transport.request(
            "PATCH",
            resource.path_of(key, "status"),
            kind=resource.kind,
            verb="apply-status",
            query={"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"},
            body=sent,
            content_type=_APPLY,
        )

    async def patch_status(
        self, resource: Resource, key: Key, patch: Object, *, resource_version: str, manager: str
    ) -> Object:
        """Merge patch of the status, as compare-and-set: Conflict unless the object still has `resource_version`.

        `patch` is the content of `status`; a key with None removes that field.
        """
        body = {"metadata": {"resourceVersion": resource_version}, "status": patch}
        return await self._transport.request(
            "PATCH",
            resource.path_of(key, "status"),
            kind=resource.kind,
            verb="patch-status",
            query={"fieldManager": manager, "fieldValidation": "Strict"},
            body=body,
            content_type=_MERGE,
        )

    async def patch_metadata(
        self, resource: Resource, key: Key, ops: Sequence[Object], *, resource_version: str, manager: str
    ) -> Object:
        """JSON patch of the object, led by a `test` on its resourceVersion: Conflict when that no longer holds."""
        test = {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version}
        try:
            return await self._transport.request(
                "PATCH",
                resource.path_of(key),
                kind=resource.kind,
                verb="patch",
                query={"fieldManager": manager, "fieldValidation": "Strict"},
                body=[test, *ops],
                content_type=_JSON_PATCH,
            )
        except errors.Invalid as error:
            if any(cause.field for cause in error.causes):
                raise
            # A failed test has no type of its own in the API: 422 without the name of any field.
            raise errors.Conflict(409, "Conflict", f"{key} is no longer at {resource_version}") from error

    async def delete(
        self,
        resource: Resource,
        key: Key,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
    ) -> None:
        """Asks for deletion; the object stays while it has finalizers. NotFound; Conflict if it is another by now.

        `propagation`: Foreground | Background | Orphan, for what it owns.
        """
        wanted = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if any(wanted.values()):
            options["preconditions"] = {name: value for name, value in wanted.items() if value}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        await self._transport.request("DELETE", resource.path_of(key), kind=resource.kind, verb="delete", body=options)

    async def create_event(self, event: Object) -> Object:
        """Posts an events.k8s.io/v1 Event; not counted as a write of an object."""
        path = EVENTS.path(event["metadata"]["namespace"])
        return await self._transport.request("POST", path, kind="Event", verb="create", body=event, counted=False)

    async def patch_event(self, key: Key, patch: Object) -> Object:
        """Merge patch of an Event that was posted before; not counted as a write of an object."""
        return await self._transport.request(
            "PATCH",
            EVENTS.path_of(key),
            kind="Event",
            verb="patch",
            body=patch,
            content_type=_MERGE,
            counted=False,
        )


def _configuration(connections: int) -> Configuration:
    """Nothing is taken from the environment: ~/.netrc and proxies would be looked up anew by each request, in a thread.

    A proxy can be named in the kubeconfig (`proxy-url`); the watches know no other one either.
    """
    configuration = Configuration(connection_pool_maxsize=connections)
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


def _require(path: Path | str | None) -> None:
    """The loader takes a file that is not there for an empty one."""
    if path is not None and not Path(path).is_file():
        raise ConfigException(f"there is no file {path}")
