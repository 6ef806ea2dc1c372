"""Where something was seen: which hosts' inventories name a domain, an object or a file.

A pass over one VM asks this of all hosts, and nearly all of them have nothing to say. So what their inventories name is
kept by name; an inventory that is another one than before is taken in when somebody asks, never later.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from typing import TypeVar

from drivers.hypervisor import HostDirectory
from drivers.model import Inventory

K = TypeVar("K", bound=Hashable)

_NOWHERE: frozenset[str] = frozenset()
_EMPTY = Inventory((), 0, 0.0)


class _Index(dict[K, set[str]]):
    """By key: the hosts whose inventory has it."""

    def change(self, host: str, before: Mapping[K, object], now: Mapping[K, object]) -> None:
        for key in before.keys() - now.keys():
            self[key].discard(host)
            if not self[key]:
                del self[key]
        for key in now.keys() - before.keys():
            self.setdefault(key, set()).add(host)


class Sightings:
    """The newest inventories of all hosts, by what they name."""

    def __init__(self, hosts: HostDirectory) -> None:
        self._hosts = hosts
        self._known: dict[str, Inventory | None] = {}
        self._names: tuple[str, ...] = ()
        self._domains: _Index[str] = _Index()
        self._stamps: _Index[tuple[str, str, str]] = _Index()
        self._files: _Index[str] = _Index()

    def of_domain(self, uuid: str) -> Set[str]:
        """The hosts that list a domain with this UUID, running or not. Not to be kept: the set changes."""
        self._renew()
        return self._domains.get(uuid, _NOWHERE)

    def of_object(self, installation: str, namespace: str, name: str) -> Set[str]:
        """The hosts that list a domain whose metadata name this object. Not to be kept."""
        self._renew()
        return self._stamps.get((installation, namespace, name), _NOWHERE)

    def of_file(self, path: str) -> Set[str]:
        """The hosts that list a domain with the file at this path, to write or to read. Not to be kept."""
        self._renew()
        return self._files.get(path, _NOWHERE)

    def files_in(self, directory: str) -> frozenset[str]:
        """The names of the files in that directory that a domain on any host has."""
        self._renew()
        split = (path.rpartition("/") for path in self._files)
        return frozenset(name for parent, _, name in split if parent == directory)

    def _renew(self) -> None:
        names = self._hosts.names()
        if names != self._names:
            for gone in self._known.keys() - set(names):
                self._take_in(gone, None)
                del self._known[gone]
            self._names = names
        for name in names:
            host = self._hosts.get(name)
            inventory = host.inventory() if host is not None else None
            if inventory is not self._known.get(name):
                self._take_in(name, inventory)

    def _take_in(self, host: str, inventory: Inventory | None) -> None:
        before, now = self._known.get(host) or _EMPTY, inventory or _EMPTY
        self._domains.change(host, before.by_uuid, now.by_uuid)
        self._stamps.change(host, before.by_stamp, now.by_stamp)
        self._files.change(host, before.by_file, now.by_file)
        self._known[host] = inventory
