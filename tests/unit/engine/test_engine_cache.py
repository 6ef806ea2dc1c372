"""The cache: newest wins, deleted stays deleted, lists repair, indexes follow, copies are private."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.cache import Cache
from engine.keys import Key, Object


def thing(name: str = "a", version: int = 1, *, uid: str | None = None, namespace: str = "ns", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "test/v1", "kind": "Thing", "metadata": metadata, "spec": spec}


A = Key("Thing", "ns", "a")


def version_of(cache: Cache, key: Key = A) -> str | None:
    obj = cache.get(key)
    return obj["metadata"]["resourceVersion"] if obj else None


def test_older_never_overwrites_newer_and_versions_compare_as_numbers() -> None:
    cache = Cache()
    assert cache.upsert(thing(version=10, size=2))
    assert not cache.upsert(thing(version=9, size=1))
    assert version_of(cache) == "10"
    assert cache.upsert(thing(version=11, size=3))


def test_same_content_in_a_newer_version_is_remembered_but_no_change() -> None:
    cache = Cache()
    heard: list[Key] = []
    cache.upsert(thing(version=1, size=1))
    cache.watch(lambda key, old, new: heard.append(key))
    assert not cache.upsert(thing(version=5, size=1))
    assert version_of(cache) == "5"
    assert heard == []


def test_what_nobody_reads_is_stripped() -> None:
    cache = Cache()
    obj = thing(version=1)
    obj["metadata"]["managedFields"] = [{"manager": "x"}]
    obj["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}
    cache.upsert(obj)
    held = cache.get(A)
    assert held is not None
    assert held["metadata"]["annotations"] == {"mine": "1"}
    assert "managedFields" not in held["metadata"]
    assert obj["metadata"]["managedFields"], "what was handed in is left alone"


def test_a_copy_is_private() -> None:
    cache = Cache()
    cache.upsert(thing(version=1, size=1))
    copy = cache.get(A)
    assert copy is not None
    copy["spec"]["size"] = 99
    held = cache.get(A)
    assert held is not None
    assert held["spec"]["size"] == 1


def test_deleted_uid_never_returns_but_a_successor_does() -> None:
    cache = Cache()
    cache.upsert(thing(version=5))
    assert cache.delete(A)
    assert not cache.upsert(thing(version=4))
    assert not cache.upsert(thing(version=6))
    assert cache.get(A) is None
    assert cache.upsert(thing(version=7, uid="second"))


def test_delete_with_another_uid_leaves_the_successor() -> None:
    cache = Cache()
    cache.upsert(thing(version=7, uid="second"))
    assert not cache.delete(A, uid="first")
    assert version_of(cache) == "7"
    assert not cache.upsert(thing(version=8, uid="first"))


def test_a_late_report_of_a_predecessor_is_ignored() -> None:
    cache = Cache()
    cache.upsert(thing(version=7, uid="second"))
    assert not cache.upsert(thing(version=6, uid="first"))


def test_replace_reports_what_changed_and_what_vanished() -> None:
    cache = Cache()
    cache.upsert(thing("kept", 1))
    cache.upsert(thing("gone", 2))
    cache.upsert(thing("old", 3, size=1))
    changed = cache.replace("Thing", [thing("kept", 1), thing("old", 8, size=2), thing("new", 9)], "10")
    assert {key.name for key in changed} == {"gone", "old", "new"}
    assert {key.name for key in cache.keys("Thing")} == {"kept", "old", "new"}


def test_replace_keeps_what_is_newer_than_the_list_and_raises_no_dead() -> None:
    cache = Cache()
    cache.upsert(thing("created-after", 12))
    cache.upsert(thing("deleted-after", 3))
    cache.delete(Key("Thing", "ns", "deleted-after"), "uid-deleted-after")
    cache.upsert(thing("edited-after", 11, size=2))
    listed = [thing("deleted-after", 3), thing("edited-after", 4, size=1)]
    assert cache.replace("Thing", listed, "10") == set()
    assert {key.name for key in cache.keys("Thing")} == {"created-after", "edited-after"}
    assert version_of(cache, Key("Thing", "ns", "edited-after")) == "11"


def test_replace_of_one_namespace_leaves_the_others() -> None:
    cache = Cache()
    cache.upsert(thing("a", 1, namespace="one", uid="1"))
    cache.upsert(thing("a", 2, namespace="two", uid="2"))
    assert cache.replace("Thing", [], "10", namespace="one") == {Key("Thing", "one", "a")}
    assert cache.keys("Thing") == [Key("Thing", "two", "a")]


def test_a_store_put_back_in_time_is_believed() -> None:
    cache = Cache()
    cache.upsert(thing("a", 100, size=2))
    cache.upsert(thing("gone-then-back", 50))
    cache.delete(Key("Thing", "ns", "gone-then-back"))
    cache.upsert(thing("too-new", 90))
    mark = cache.mark("Thing")
    listed = [thing("a", 10, size=1), thing("gone-then-back", 11)]
    changed = cache.replace("Thing", listed, "20", mark=mark)
    assert {key.name for key in changed} == {"a", "gone-then-back", "too-new"}
    assert version_of(cache) == "10"
    assert cache.mark("Thing") == 11
    assert cache.upsert(thing("a", 21, size=3)), "life goes on from there"


def test_index_follows_changes_and_covers_what_is_there() -> None:
    cache = Cache()
    cache.upsert(thing("a", 1, hosts=["h1", "h2"]))
    cache.add_index("Thing", "host", lambda obj: obj["spec"].get("hosts", ()))
    cache.upsert(thing("b", 2, hosts=["h2"]))
    assert [key.name for key in cache.keys_by_index("Thing", "host", "h2")] == ["a", "b"]
    cache.upsert(thing("a", 3, hosts=["h3"]))
    assert [obj["metadata"]["name"] for obj in cache.by_index("Thing", "host", "h2")] == ["b"]
    assert cache.by_index("Thing", "host", "h1") == []
    cache.delete(A)
    assert cache.by_index("Thing", "host", "h3") == []


def test_unknown_index_is_an_error() -> None:
    with pytest.raises(KeyError):
        Cache().by_index("Thing", "nope", "x")


def test_failing_index_function_leaves_the_cache_as_it_was() -> None:
    cache = Cache()
    cache.add_index("Thing", "first", lambda obj: ["x"])
    cache.add_index("Thing", "size", lambda obj: [str(obj["spec"]["size"])])
    cache.upsert(thing(version=1, size=1))
    with pytest.raises(KeyError):
        cache.upsert(thing(version=2))
    assert version_of(cache) == "1"
    assert len(cache.by_index("Thing", "size", "1")) == 1


def test_listeners_hear_old_and_new_and_one_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache()
    heard: list[tuple[str, Any, Any]] = []

    def broken(key: Key, old: Object | None, new: Object | None) -> None:
        raise RuntimeError("broken listener")

    cache.watch(broken)
    cache.watch(lambda key, old, new: heard.append((key.name, old and old["spec"], new and new["spec"])))
    cache.upsert(thing(version=1, size=1))
    cache.upsert(thing(version=2, size=2))
    cache.delete(A)
    assert heard == [("a", None, {"size": 1}), ("a", {"size": 1}, {"size": 2}), ("a", {"size": 2}, None)]
    assert caplog.text.count("a cache listener failed\n") == 3


def test_synced_needs_every_kind() -> None:
    cache = Cache()
    cache.mark_synced("Thing")
    assert cache.synced(["Thing"])
    assert not cache.synced(["Thing", "Other"])


def test_compare_names_vanished_and_outdated() -> None:
    cache = Cache()
    for name, version in (("same", 1), ("behind", 2), ("gone", 3), ("fresh", 30), ("dead", 4)):
        cache.upsert(thing(name, version))
    cache.delete(Key("Thing", "ns", "dead"))
    listed = [thing("same", 1), thing("behind", 9), thing("missing", 8), thing("dead", 4)]
    found = cache.compare("Thing", listed, "20")
    assert {key.name for key in found.vanished} == {"gone"}
    assert {key.name for key in found.outdated} == {"behind", "missing"}
    assert not found.rewound


def test_a_store_that_went_back_and_has_overtaken_the_cache_since_is_found_out() -> None:
    """Its list is newer than all that was seen, and knows an older state of what we hold, or what we saw deleted."""
    for listed in (thing("edited", 10), thing("edited", 10, uid="another"), thing("deleted", 5)):
        cache = Cache()
        cache.upsert(thing("edited", 90, size=2))
        cache.upsert(thing("deleted", 5))
        cache.delete(Key("Thing", "ns", "deleted"), "uid-deleted", "95")
        mark = cache.mark("Thing")
        assert not cache.compare("Thing", [thing("edited", 90)], "200").rewound
        assert cache.compare("Thing", [listed], "200").rewound
        cache.replace("Thing", [listed], "200", mark=mark)
        assert version_of(cache, Key.of(listed)) != listed["metadata"]["resourceVersion"], "not by itself"
        cache.replace("Thing", [listed], "200", mark=mark, rewound=True)
        assert version_of(cache, Key.of(listed)) == listed["metadata"]["resourceVersion"]


def test_a_list_that_is_older_than_a_deletion_is_no_store_that_went_back() -> None:
    cache = Cache()
    cache.upsert(thing("a", 5))
    cache.delete(A, "uid-a", "95")
    assert not cache.compare("Thing", [thing("a", 5)], "94").rewound


class CacheMachine(RuleBasedStateMachine):
    """A server with a history, and a cache that hears of it late, twice, out of order, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache()
        self.cache.add_index("Thing", "size", lambda obj: [str(obj["spec"]["size"])])
        self.revision = 0
        self.server: dict[str, Object] = {}
        self.history: list[tuple[str, Object]] = []
        self.lists: list[tuple[int, list[Object], int]] = []
        self.heard: dict[str, int] = {}
        self.heard_deleted: set[str] = set()

    names = st.sampled_from(["a", "b", "c"])

    @rule(name=names, size=st.integers(1, 3))
    def change(self, name: str, size: int) -> None:
        self.revision += 1
        held = self.server.get(name)
        uid = held["metadata"]["uid"] if held else f"{name}-{self.revision}"
        self.server[name] = thing(name, self.revision, uid=uid, size=size)
        self.history.append(("MODIFIED", self.server[name]))

    @rule(name=names)
    def remove(self, name: str) -> None:
        if name in self.server:
            self.revision += 1
            uid = self.server.pop(name)["metadata"]["uid"]
            self.history.append(("DELETED", thing(name, self.revision, uid=uid)))

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        if not self.history:
            return
        verb, obj = data.draw(st.sampled_from(self.history))
        key, uid = Key.of(obj), obj["metadata"]["uid"]
        if verb == "DELETED":
            self.cache.delete(key, uid, obj["metadata"]["resourceVersion"])
            self.heard_deleted.add(uid)
        else:
            self.cache.upsert(obj)
            if uid not in self.heard_deleted:
                version = int(obj["metadata"]["resourceVersion"])
                self.heard[key.name] = max(self.heard.get(key.name, 0), version)

    @rule()
    def begin_list(self) -> None:
        self.lists.append((self.revision, list(self.server.values()), self.cache.mark("Thing")))

    @rule()
    def finish_list(self) -> None:
        if not self.lists:
            return
        version, objects, mark = self.lists.pop(0)
        before = {key: self.cache.get(key) for key in self.cache.keys("Thing")}
        assert not self.cache.compare("Thing", objects, str(version)).rewound
        changed = self.cache.replace("Thing", objects, str(version), mark=mark)
        after = {key: self.cache.get(key) for key in self.cache.keys("Thing")}
        for key in before.keys() ^ after.keys():
            assert key in changed
        if version == self.revision:
            held = {key.name for key in after}
            expected = {obj["metadata"]["name"] for obj in objects}
            assert held == expected - {
                obj["metadata"]["name"] for obj in objects if obj["metadata"]["uid"] in self.heard_deleted
            }

    @invariant()
    def nothing_older_than_heard_and_nothing_dead(self) -> None:
        for obj in self.cache.list("Thing"):
            name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
            assert uid not in self.heard_deleted
            later = [
                int(seen["metadata"]["resourceVersion"])
                for verb, seen in self.history
                if seen["metadata"]["uid"] == uid and verb == "MODIFIED"
            ]
            assert int(obj["metadata"]["resourceVersion"]) in later
            if self.heard.get(name, 0):
                alive = [v for v in later if v <= self.heard[name]]
                assert not alive or int(obj["metadata"]["resourceVersion"]) >= max(alive)

    @invariant()
    def index_agrees(self) -> None:
        for size in ("1", "2", "3"):
            held = [Key.of(obj) for obj in self.cache.list("Thing") if str(obj["spec"]["size"]) == size]
            assert sorted(held) == self.cache.keys_by_index("Thing", "size", size)


CacheMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestCacheMachine = CacheMachine.TestCase
