"""Start-up: everything that can be wrong before the first reconcile, said in words that help."""

from __future__ import annotations

import logging
import uuid

from kubernetes.aio.config import ConfigException
from operator_settings import Settings

from engine import errors
from engine.kube import KubeClient, Resource
from reconcilers.runtime import CannotList, Runtime

log = logging.getLogger(__name__)

CONFIG_MAP = Resource(group="", version="v1", kind="ConfigMap", plural="configmaps", namespaced=True)
INSTALLATION = "hostler-installation"


class StartFailed(Exception):
    """The operator cannot start; the message says why and what to do."""


async def connect(settings: Settings) -> KubeClient:
    """A client that the API server answers. Raises StartFailed."""
    try:
        client = await _client(settings)
    except (ConfigException, OSError) as error:
        raise StartFailed(
            f"there is no usable kubeconfig ({error}): pass --kubeconfig FILE, set KUBECONFIG, or run in a pod"
        ) from error
    try:
        log.info("API server answers", extra={"version": await client.version()})
    except errors.ApiError as error:
        await client.close()
        raise StartFailed(f"the API server does not answer: {error}") from error
    return client


async def session_client(settings: Settings) -> KubeClient:
    """Another client, for the thread that keeps the session. An ApiError when the credentials cannot be read now."""
    try:
        return await _client(settings, connections=2)
    except (ConfigException, OSError) as error:
        raise errors.Unauthorized(0, "NoCredentials", f"there is no usable kubeconfig ({error})") from error


async def _client(settings: Settings, *, connections: int = 32) -> KubeClient:
    if settings.kubeconfig is not None:
        return await KubeClient.from_kubeconfig(settings.kubeconfig, connections=connections)
    try:
        return KubeClient.in_cluster(connections=connections)
    except ConfigException:
        return await KubeClient.from_kubeconfig(connections=connections)


async def installation_id(client: KubeClient, namespace: str) -> str:
    """The identity of this installation: kept in a ConfigMap, made when it is not there. Raises StartFailed.

    It is stamped into domains and storage. Put the ConfigMap into your backup (or your Git): an installation with
    another id leaves everything alone that this one has made.
    """
    for _ in range(2):
        try:
            found = await client.get(CONFIG_MAP, namespace, INSTALLATION)
            identity = (found.get("data") or {}).get("id")
            if not identity:
                raise StartFailed(
                    f"ConfigMap {namespace}/{INSTALLATION} has no key 'id': restore it, or delete the ConfigMap"
                )
            return str(identity)
        except errors.NotFound:
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": INSTALLATION, "namespace": namespace},
                "data": {"id": str(uuid.uuid4())},
            }
            try:
                await client.create(CONFIG_MAP, body)
            except errors.AlreadyExists:
                continue
            except errors.NotFound as error:
                raise StartFailed(f"there is no namespace {namespace}: apply the manifests first") from error
        except errors.Forbidden as error:
            raise StartFailed(f"no rights in namespace {namespace}: {error}. Apply manifests/rbac.yaml") from error
    raise StartFailed(f"ConfigMap {namespace}/{INSTALLATION} cannot be read")


async def load(runtime: Runtime) -> None:
    """List everything, before the first worker starts. Raises StartFailed."""
    try:
        await runtime.load()
    except CannotList as problem:
        plural = problem.resource.plural
        if isinstance(problem.__cause__, errors.NotFound):
            raise StartFailed(
                f"the API server knows no {plural}.{problem.resource.group}: install the CRDs with "
                "`kubectl apply --server-side -k manifests`"
            ) from problem
        if isinstance(problem.__cause__, errors.Forbidden):
            raise StartFailed(
                f"no rights to list {plural}: {problem.__cause__}. Apply manifests/rbac.yaml"
            ) from problem
        raise StartFailed(f"{problem}: the API server said {problem.__cause__}") from problem
