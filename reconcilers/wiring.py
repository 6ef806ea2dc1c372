"""Who is looked at when what changes: indexes of the cache, and the objects that depend on one another.

A change wakes whoever might decide differently because of it, and nobody else: a status that we wrote ourselves does
not wake its own object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from engine.cache import Cache
from engine.keys import Key
from reconcilers.projections import DEMAND, STORED

Object = Mapping[str, Any]
Maybe = Object | None


# Indexes -------------------------------------------------------------------------------------------------------------


def install_indexes(cache: Cache) -> None:
    """Everything that reconcilers look up other than by name or count with. Before the first object is stored."""
    cache.add_index("VirtualMachine", "uuid", lambda vm: [_status(vm).get("uuid") or vm["metadata"].get("uid", "")])
    cache.add_index("VirtualMachine", "disk", lambda vm: [f"{_namespace(vm)}/{name}" for name in vm_disks(vm)])
    cache.add_index("VirtualMachine", "mac", vm_macs)
    cache.add_index("VirtualMachine", "pool", lambda vm: [vm["spec"]["pool"]])
    cache.add_index("VirtualMachine", "host", vm_hosts, counted=True)
    cache.add_index("VirtualMachine", "network", lambda vm: [nic["network"] for nic in vm["spec"].get("nics") or []])
    cache.add_index(
        "VirtualMachine", "storageDomain", lambda vm: [f["storageDomain"] for f in _status(vm).get("files") or []]
    )
    cache.add_index("VirtualMachine", "namespace", lambda vm: [_namespace(vm)])
    cache.add_index("VirtualMachine", "unscheduled", _unscheduled)
    cache.add_index("Disk", "storageDomain", lambda disk: [disk["spec"]["storageDomain"]])
    cache.add_index("Disk", "namespace", lambda disk: [_namespace(disk)])
    cache.add_index("Disk", "unsettled", _unsettled)
    cache.add_index("Disk", "volume", _volume)
    cache.add_index("Host", "pool", lambda host: [host["spec"]["pool"]])
    cache.add_index("Host", "uuid", lambda host: [uuid for uuid in [_status(host).get("uuid")] if uuid])
    cache.add_index("Host", "secret", lambda host: [s for s in [host["spec"].get("credentialsSecret")] if s])
    for kind in ("StorageDomain", "Network"):
        cache.add_index(kind, "pool", lambda obj: obj["spec"].get("pools") or [])
    for projection in (DEMAND, STORED):
        cache.add_projection(projection)


def vm_disks(vm: Object) -> list[str]:
    """Names of the Disks that a VM refers to."""
    found = []
    for drive in vm["spec"].get("disks") or []:
        if drive.get("diskRef"):
            found.append(drive["diskRef"]["name"])
        elif drive.get("template"):
            found.append(f"{vm['metadata']['name']}-{drive['name']}")
    return found


def vm_macs(vm: Object) -> list[str]:
    """MAC addresses that a VM declares or has been given."""
    declared = [nic["mac"] for nic in vm["spec"].get("nics") or [] if nic.get("mac")]
    given = [device["mac"] for device in _status(vm).get("devices") or [] if device.get("mac")]
    return list(dict.fromkeys([*declared, *given]))


def vm_hosts(vm: Object) -> list[str]:
    """Hosts that may hold a VM."""
    placement = _status(vm).get("placement") or {}
    found = [*(placement.get("candidates") or []), *([placement["host"]] if placement.get("host") else [])]
    return list(dict.fromkeys(found))


def _unscheduled(vm: Object) -> list[str]:
    return [vm["spec"]["pool"]] if _status(vm).get("phase") in ("Scheduling", "Pending") else []


def _volume(disk: Object) -> list[str]:
    """The file that it has, in the directories of its domain."""
    volume = _status(disk).get("volume")
    return [f"{disk['spec']['storageDomain']}/{volume['name']}"] if volume else []


def _unsettled(disk: Object) -> list[str]:
    conditions = _status(disk).get("conditions") or []
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return [] if ready and not disk["metadata"].get("deletionTimestamp") else [disk["spec"]["storageDomain"]]


# Dependants ----------------------------------------------------------------------------------------------------------


def woken_by(cache: Cache, key: Key, old: Maybe, new: Maybe) -> set[Key]:
    """The objects to look at after `key` went from `old` to `new` (None: not there)."""
    keys = {key} if key.kind in _DEPENDANTS and _declared(old) != _declared(new) else set()
    find = _DEPENDANTS.get(key.kind) or _OTHERS.get(key.kind)
    if find is None:
        return keys
    return keys | (set(find(cache, key, old, new)) - {key})


def counted_by(key: Key, old: Maybe, new: Maybe) -> set[Key]:
    """The objects that count `key`, after it came or went; a look soon after is enough for many at once."""
    if key.kind != "Disk" or (old is not None and new is not None):
        return set()
    return {Key("StorageDomain", "", disk["spec"]["storageDomain"]) for disk in _both(old, new)}


def woken_by_host(cache: Cache, host: str, uuid: str | None, held: Iterable[str] = ()) -> set[Key]:
    """The objects to look at after something was newly observed of a host, or of one of its domains.

    `held`: UUIDs of all domains that the host has. One that is left of a VM which has no place there any more is
    known to nobody else.
    """
    if uuid is not None:
        return {*cache.keys_by_index("VirtualMachine", "uuid", uuid)}
    return {
        Key("Host", "", host),
        *cache.keys_by_index("VirtualMachine", "host", host),
        *_disks_waiting_for(cache, Key("Host", "", host)),
        *(key for domain in held for key in cache.keys_by_index("VirtualMachine", "uuid", domain)),
    }


def _disks_waiting_for(cache: Cache, host: Key) -> Iterator[Key]:
    """Disks with something left to do, on the storage of the host's pool: any host that is connected can do it."""
    declared = cache.get(host)
    pool = declared["spec"]["pool"] if declared is not None else ""
    for domain in cache.keys_by_index("StorageDomain", "pool", pool):
        yield from cache.keys_by_index("Disk", "unsettled", domain.name)


def _declared(obj: Maybe) -> Any:
    """The part of an object that other people write."""
    if obj is None:
        return None
    meta = obj["metadata"]
    names = ("uid", "generation", "deletionTimestamp", "annotations", "labels", "ownerReferences", "finalizers")
    return [meta.get(name) or None for name in names]


def _differs(old: Maybe, new: Maybe, *paths: str) -> bool:
    """Whether any of these fields (dotted paths) differs, or the object came or went."""
    if old is None or new is None:
        return True
    return any(_at(old, path) != _at(new, path) for path in paths)


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _both(old: Maybe, new: Maybe) -> Iterator[Object]:
    yield from (obj for obj in (old, new) if obj is not None)


def _of_vm(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    moved = _differs(old, new, "status.placement", "metadata.deletionTimestamp", "metadata.finalizers")
    for vm in _both(old, new):
        if moved or _differs(old, new, "spec.disks"):
            for name in vm_disks(vm):
                yield Key("Disk", key.namespace, name)
                yield from cache.keys_by_index("VirtualMachine", "disk", f"{key.namespace}/{name}")
        if moved:
            yield from (Key("Host", "", host) for host in vm_hosts(vm))
        if _differs(old, new, "spec.pool", "spec.nics"):
            yield from _infrastructure_of(vm)
            for mac in vm_macs(vm):
                yield from cache.keys_by_index("VirtualMachine", "mac", mac)
    if old is not None and (new is None or set(vm_hosts(old)) - set(vm_hosts(new))):
        # It has left room for those that found none.
        yield from cache.keys_by_index("VirtualMachine", "unscheduled", old["spec"]["pool"])


def _infrastructure_of(vm: Object) -> Iterator[Key]:
    """What waits with its own deletion until no VM refers to it."""
    yield Key("HostPool", "", vm["spec"]["pool"])
    yield from (Key("Network", "", nic["network"]) for nic in vm["spec"].get("nics") or [])


def _of_disk(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    own = ("spec", "metadata.deletionTimestamp", "metadata.ownerReferences")
    if _differs(old, new, *own, "status.phase", "status.path", "status.volume", "status.conditions"):
        yield from cache.keys_by_index("VirtualMachine", "disk", f"{key.namespace}/{key.name}")


def _of_storage_domain(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    if not _differs(old, new, "spec", "status.hosts", "status.phase", "status.id", "status.conditions"):
        return
    yield from cache.keys_by_index("Disk", "storageDomain", key.name)
    yield from _pool_members(cache, old, new)


def _of_network(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    if not _differs(old, new, "spec", "status.hosts"):
        return
    yield from cache.keys_by_index("VirtualMachine", "network", key.name)
    yield from _pool_members(cache, old, new)


def _pool_members(cache: Cache, old: Maybe, new: Maybe) -> Iterator[Key]:
    for obj in _both(old, new):
        for pool in obj["spec"].get("pools") or []:
            yield from cache.keys_by_index("Host", "pool", pool)
            yield from cache.keys_by_index("VirtualMachine", "unscheduled", pool)


def _of_pool(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    if _differs(old, new, "spec", "status.baseline"):
        yield from cache.keys_by_index("Host", "pool", key.name)
        yield from cache.keys_by_index("VirtualMachine", "pool", key.name)


def _of_host(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    if not _differs(
        old, new, "spec", "metadata.labels", "status.phase", "status.conditions", "metadata.deletionTimestamp"
    ):
        return
    yield from cache.keys_by_index("VirtualMachine", "host", key.name)
    for host in _both(old, new):
        pool = host["spec"]["pool"]
        yield Key("HostPool", "", pool)
        yield from cache.keys_by_index("StorageDomain", "pool", pool)
        yield from cache.keys_by_index("Network", "pool", pool)
        yield from cache.keys_by_index("VirtualMachine", "unscheduled", pool)


def _of_namespace(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    if _differs(old, new, "metadata.labels"):
        yield from cache.keys_by_index("VirtualMachine", "namespace", key.name)
        yield from cache.keys_by_index("Disk", "namespace", key.name)


def _of_secret(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    if _differs(old, new, "data"):
        yield from cache.keys_by_index("Host", "secret", key.name)


def _of_operation(cache: Cache, key: Key, old: Maybe, new: Maybe) -> Iterable[Key]:
    if not _differs(old, new, "status.phase"):
        return
    for operation in _both(old, new):
        target = operation["spec"]["target"]
        if target["kind"] in _DEPENDANTS:
            yield Key(target["kind"], target.get("namespace", ""), target["name"])


_Find = Callable[[Cache, Key, Maybe, Maybe], Iterable[Key]]

_DEPENDANTS: Mapping[str, _Find] = {
    "VirtualMachine": _of_vm,
    "Disk": _of_disk,
    "StorageDomain": _of_storage_domain,
    "Network": _of_network,
    "HostPool": _of_pool,
    "Host": _of_host,
}
_OTHERS: Mapping[str, _Find] = {"Namespace": _of_namespace, "Secret": _of_secret, "Operation": _of_operation}
"""Operations look after themselves (`engine/operations/known.py`); here is who else looks."""


def _status(obj: Object) -> Mapping[str, Any]:
    return obj.get("status") or {}


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))
