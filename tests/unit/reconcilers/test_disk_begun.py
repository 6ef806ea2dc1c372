"""Volumes that are not whole: whose work they are, when several controllers and hosts may have a hand in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivers.errors import HostTimeout
from engine.keys import Key
from reconcilers.context import Begun
from reconcilers.disk import begun, provision, reconcile
from reconcilers.jobs import Job
from tests.unit.reconcilers.fakes import FakeHypervisor, World
from tests.unit.reconcilers.test_disk_schedules import PATH, blank, world
from xmlgen.names import import_name, record_name

WEB = {"source": {"http": {"url": "https://example.org/a", "checksum": "sha256:" + "0" * 64}}}


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the volumes that imports were begun for; each lasts until it is ended."""
    names: list[str] = []

    async def endless(_: Any, job: Job, **known: Any) -> None:
        names.append(known["seen"].mine.volume)
        await asyncio.sleep(3600)

    monkeypatch.setattr(provision, "_import", endless)
    return names


def name_of(w: World, key: Key) -> str:
    return str(w.status(key)["volume"]["name"])


def restarted(w: World, key: Key) -> None:
    """Another process, which remembers nothing."""
    w.context.making.clear()


async def look(w: World, key: Key) -> None:
    await reconcile(w.context, key)
    await asyncio.sleep(0)


async def test_a_blank_volume_that_lies_there_half_made_is_left_and_another_made() -> None:
    w, host, directory = await world()
    key = blank(w)
    host.fail["upload"] = HostTimeout("no answer")
    await reconcile(w.context, key)
    half = name_of(w, key)
    restarted(w, key)
    del host.fail["upload"]
    deleted = record_deletions(host)
    directory.files[record_name(half)] = b"torn"
    await reconcile(w.context, key)
    assert w.standing(key)[3] == "Ready"
    assert name_of(w, key) != half
    assert half in directory.files
    assert any(name.startswith(f"{half}.trash-") for name in directory.files)
    assert half not in deleted
    assert w.status(key)["volume"].get("earlier", []) == []


def record_deletions(host: FakeHypervisor) -> list[str]:
    deleted, delete = [], host.delete_volume

    async def noted(pool: str, name: str) -> None:
        deleted.append(name)
        await delete(pool, name)

    host.delete_volume = noted  # type: ignore[method-assign]
    return deleted


async def test_a_blank_volume_that_was_only_named_keeps_its_name() -> None:
    w, _, _ = await world()
    key = blank(w)
    w.context.hosts.get("kvm1").fail["create_volume"] = HostTimeout("no answer")  # type: ignore[union-attr]
    await reconcile(w.context, key)
    named = name_of(w, key)
    restarted(w, key)
    del w.context.hosts.get("kvm1").fail["create_volume"]  # type: ignore[union-attr]
    await reconcile(w.context, key)
    assert (name_of(w, key), w.standing(key)[3]) == (named, "Ready")


async def test_an_import_of_another_controller_is_begun_anew_under_another_name(imports: list[str]) -> None:
    w, _, _ = await world()
    key = blank(w, **WEB)
    await look(w, key)
    first = name_of(w, key)
    await look(w, key)
    assert (name_of(w, key), imports) == (first, [first])
    await w.context.jobs.close()
    restarted(w, key)
    await look(w, key)
    assert w.status(key)["volume"]["earlier"] == [first]
    assert imports == [first, name_of(w, key)]
    await w.context.jobs.close()


async def taken_over(w: World, key: Key) -> None:
    """Another controller has begun it anew."""
    obj = w.cache.get(key)
    assert obj is not None
    volume = {**obj["status"]["volume"], "name": "theirs.raw", "earlier": [obj["status"]["volume"]["name"]]}
    w.client.put({**obj, "status": {**obj["status"], "volume": volume}})


async def test_who_has_lost_an_import_ends_it_and_leaves_it_to_the_other(imports: list[str]) -> None:
    w, _, directory = await world()
    key = blank(w, **WEB)
    await look(w, key)
    mine = name_of(w, key)
    directory.files[import_name(mine)] = b"some of it"
    await taken_over(w, key)
    writes = len(w.client.writes)
    await look(w, key)
    assert w.context.jobs.get(key, provision.IMPORT) is None
    assert import_name(mine) not in directory.files
    assert any(name.startswith(f"{mine}.trash-") for name in directory.files)
    assert name_of(w, key) == "theirs.raw"
    assert len(w.client.writes) == writes
    w.clock.move(begun.PATIENCE_SECONDS + 1)
    await look(w, key)
    assert name_of(w, key) != "theirs.raw"
    assert imports == [mine, name_of(w, key)]
    await w.context.jobs.close()


@pytest.mark.parametrize("whole", [True, False])
async def test_what_was_begun_for_a_disk_that_is_gone_is_removed_unless_it_is_whole(whole: bool) -> None:
    w, _, directory = await world()
    key = blank(w)
    w.context.making[key] = Begun("uid", "kvm1", PATH, "a.raw")
    directory.files["a.raw"] = b"data"
    if whole:
        owner = {"installation": "i", "namespace": "n", "name": "a", "uid": "u", "volume": "a.raw", "format": "raw"}
        directory.files[record_name("a.raw")] = str(owner).replace("'", '"').encode()
    w.cache.delete(key)
    await reconcile(w.context, key)
    assert w.context.making == {}
    assert any(name.startswith("a.raw.trash-") for name in directory.files) is not whole


async def test_a_host_that_is_silent_is_asked_again_to_remove_it() -> None:
    w, host, directory = await world()
    key = blank(w)
    w.context.making[key] = Begun("uid", "kvm1", PATH, "a.raw")
    w.cache.delete(key)
    host.fail["create_volume"] = HostTimeout("no answer")
    await reconcile(w.context, key)
    assert key in w.context.making
    del host.fail["create_volume"]
    await reconcile(w.context, key)
    assert w.context.making == {}
    assert any(name.startswith("a.raw.trash-") for name in directory.files)
