"""Filling the cache and keeping it honest, beside the watch.

A watch says neither when its first list is complete nor what was deleted while it was away. So every kind is listed
here once before the first worker starts, and audited from time to time by a list of metadata only.
"""

from engine import errors
from engine.cache import Cache
from engine.keys import Key
from engine.kube import KubeClient, Resource

_RELOAD_FROM = 50


async def load(
    client: KubeClient, cache: Cache, resource: Resource, namespace: str | None = None, *, rewound: bool = False
) -> set[Key]:
    """Lists a kind (in one namespace, or all) into the cache and marks it synced; the keys that changed or vanished.

    `rewound`: the store is known to have gone back in time.
    """
    mark = cache.mark(resource.kind)
    objects, version = await client.list(resource, namespace)
    changed = cache.replace(resource.kind, objects, version, namespace=namespace, mark=mark, rewound=rewound)
    cache.mark_synced(resource.kind)
    return changed


async def audit(client: KubeClient, cache: Cache, resource: Resource, namespace: str | None = None) -> set[Key]:
    """Repairs what the watch lost, reading metadata only while nothing is amiss; the keys that were repaired."""
    mark = cache.mark(resource.kind)
    listed, version = await client.list(resource, namespace, metadata_only=True)
    found = cache.compare(resource.kind, listed, version, namespace=namespace)
    if int(version) < mark or found.rewound or len(found.outdated) >= _RELOAD_FROM:
        return await load(client, cache, resource, namespace, rewound=int(version) < mark or found.rewound)
    repaired = {key for key in found.vanished if cache.delete(key)}
    for key in found.outdated:
        try:
            fresh = await client.get(resource, key.namespace, key.name)
        except errors.NotFound:
            continue  # deleted since the list; the watch, or the next audit, says so
        if cache.upsert(fresh):
            repaired.add(key)
    return repaired
