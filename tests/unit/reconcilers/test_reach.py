"""Which host works on shared storage: one that answers, whatever the others do."""

from __future__ import annotations

import asyncio

import pytest

from crds.storage_domain import StorageDomain
from reconcilers.reach import PATIENCE_SECONDS, working_host
from reconcilers.storage_domain import reconcile
from reconcilers.storage_domain.marker import DomainNotReachable
from tests.unit.reconcilers.fakes import Directory, FakeHypervisor, World
from tests.virtual_time import virtual_time

PATH = "/srv/vms"


class Shared(World):
    """Two hosts with one directory."""

    async def begin(self) -> Shared:
        self.pool()
        directory = Directory()
        for name in ("kvm1", "kvm2"):
            self.host(name).directories[PATH] = directory
        spec = {"type": "directory", "directory": {"path": PATH}, "pools": ["default"]}
        await reconcile(self.context, self.add("StorageDomain", "fast", spec))
        return self

    @property
    def kvm1(self) -> FakeHypervisor:
        return self.hosts.hosts["kvm1"]

    @property
    def kvm2(self) -> FakeHypervisor:
        return self.hosts.hosts["kvm2"]

    @property
    def domain(self) -> StorageDomain:
        found = self.context.objects.get(StorageDomain, "fast")
        assert found is not None
        return found

    async def chosen(self) -> str | None:
        self.clock.move(60)
        host = await working_host(self.context, self.domain, max_age=0.0)
        return host.name if host is not None else None


def hang(host: FakeHypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(xml: str) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(host, "ensure_pool", never)


@virtual_time
async def test_a_host_that_hangs_costs_a_moment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    w = await Shared().begin()
    hang(w.kvm1, monkeypatch)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await w.chosen() == "kvm2"
    assert loop.time() - began == PATIENCE_SECONDS
    assert await w.chosen() == "kvm2"
    assert loop.time() - began == PATIENCE_SECONDS, "one that owes an answer is asked last"


async def test_a_host_that_answers_at_once_is_the_only_one_asked() -> None:
    w = await Shared().begin()
    w.kvm2.calls.clear()
    assert await w.chosen() == "kvm1"
    assert w.kvm2.calls == []


async def test_a_host_that_has_lost_the_share_is_passed_over() -> None:
    w = await Shared().begin()
    w.kvm1.directories[PATH] = Directory()
    assert await w.chosen() == "kvm2"
    w.kvm2.directories[PATH] = Directory()
    with pytest.raises(DomainNotReachable, match="MarkerMissing"):
        await w.chosen()


async def test_without_a_connected_host_there_is_none() -> None:
    w = await Shared().begin()
    w.kvm1.disconnect()
    w.kvm2.disconnect()
    assert await w.chosen() is None
