"""Our finalizer on an object, changed by JSON patch so that nobody else's is touched.

kopf's own finalizer must have another name: it removes its own from objects where it sees no need for one.
"""

import jsonpatch

from engine import errors
from engine.cache import Cache
from engine.keys import Key, Object
from engine.kube import KubeClient, Resource


async def ensure(
    client: KubeClient, cache: Cache, resource: Resource, obj: Object, name: str, *, manager: str = "hostler"
) -> Object:
    """The object with the finalizer `name`, added if it lacks it; nothing is done to one that is being deleted.

    Conflict when the object changed since `obj` was read; NotFound when it is gone.
    """
    held = obj["metadata"].get("finalizers") or []
    if name in held or obj["metadata"].get("deletionTimestamp"):
        return obj
    answer = await _patch(client, resource, obj, [*held, name], manager)
    cache.upsert(answer)
    return cache.get(Key.of(obj)) or answer


async def remove(
    client: KubeClient, cache: Cache, resource: Resource, obj: Object, name: str, *, manager: str = "hostler"
) -> Object | None:
    """The object without the finalizer `name`; None when it is gone, now or before.

    Conflict when the object changed since `obj` was read.
    """
    held = obj["metadata"].get("finalizers") or []
    if name not in held:
        return obj
    key, uid = Key.of(obj), obj["metadata"]["uid"]
    left = [other for other in held if other != name]
    try:
        answer = await _patch(client, resource, obj, left, manager)
    except errors.NotFound:
        cache.delete(key, uid)
        return None
    if obj["metadata"].get("deletionTimestamp") and not left:
        cache.delete(key, uid)
        return None
    cache.upsert(answer)
    return cache.get(key) or answer


async def _patch(client: KubeClient, resource: Resource, obj: Object, wanted: list[str], manager: str) -> Object:
    before = {"metadata": {name: value for name, value in obj["metadata"].items() if name == "finalizers"}}
    patch = jsonpatch.make_patch(before, {"metadata": {"finalizers": wanted}})
    version = obj["metadata"]["resourceVersion"]
    return await client.patch_metadata(resource, Key.of(obj), patch.patch, resource_version=version, manager=manager)
