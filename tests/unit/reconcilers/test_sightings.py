"""Where something was seen: always what the inventories say now, however they change."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from drivers.hypervisor import HostDirectory
from drivers.model import Inventory
from reconcilers.sightings import Sightings
from tests.unit.reconcilers.fakes import INSTALLATION, domain

UUIDS = ("u1", "u2", "u3", "u4")
FILES = ("/srv/a.raw", "/srv/b.raw", "/other/a.raw")


class Host:
    def __init__(self) -> None:
        self.known: Inventory | None = None

    def inventory(self) -> Inventory | None:
        return self.known


class Hosts:
    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.hosts))

    def get(self, name: str) -> Host | None:
        return self.hosts.get(name)


def inventory(*domains: Any) -> Inventory:
    return Inventory(tuple(domains), 1, 0.0)


def drawn(rng: random.Random) -> Inventory:
    uuids = rng.sample(UUIDS, rng.randint(0, len(UUIDS)))
    images = {uuid: tuple(rng.sample(FILES, rng.randint(0, 2))) for uuid in uuids}
    return inventory(*(domain(f"default.{rng.choice('abc')}", uid=uuid, images=images[uuid]) for uuid in uuids))


@pytest.mark.parametrize("seed", range(20))
def test_it_says_what_all_inventories_say(seed: int) -> None:
    rng, hosts = random.Random(seed), Hosts()
    sightings = Sightings(cast("HostDirectory", hosts))
    for _ in range(60):
        name = rng.choice(("kvm1", "kvm2", "kvm3"))
        match rng.randint(0, 5):
            case 0:
                hosts.hosts.pop(name, None)
            case 1:
                hosts.hosts[name] = Host()
            case _:
                hosts.hosts.setdefault(name, Host()).known = drawn(rng)
        known = {name: host.known for name, host in hosts.hosts.items() if host.known is not None}
        for uuid in UUIDS:
            assert sightings.of_domain(uuid) == {name for name, i in known.items() if i.get(uuid)}
        for vm in "abc":
            stamp = (INSTALLATION, "default", vm)
            assert sightings.of_object(*stamp) == {name for name, i in known.items() if i.stamped(*stamp)}
        for path in FILES:
            assert sightings.of_file(path) == {name for name, i in known.items() if i.having(path)}
        used = {file for i in known.values() for d in i.domains for file in d.opened}
        assert sightings.files_in("/srv") == {file.removeprefix("/srv/") for file in used if file.startswith("/srv/")}


def test_two_domains_of_a_host_have_a_file_until_both_have_left_it() -> None:
    hosts = Hosts()
    hosts.hosts["kvm1"] = host = Host()
    sightings = Sightings(cast("HostDirectory", hosts))
    one, two = (domain(uid=uid, images=(FILES[0],)) for uid in ("u1", "u2"))
    host.known = inventory(one, two)
    assert sightings.of_file(FILES[0]) == {"kvm1"}
    host.known = inventory(two)
    assert sightings.of_file(FILES[0]) == {"kvm1"}
    host.known = inventory()
    assert not sightings.of_file(FILES[0])
