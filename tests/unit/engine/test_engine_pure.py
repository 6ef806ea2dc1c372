"""The engine's pure parts: keys, clocks' formats, results, conditions, merge patches, errors, logs."""

import io
import json
import logging
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import errors, logs, metrics
from engine.clock import SystemClock, micro_timestamp, timestamp
from engine.conditions import condition, merge
from engine.keys import Key
from engine.kube import Resource
from engine.queue import Priority
from engine.result import Done, Failed, FailureKind, RequeueAfter, Result, WaitFor, earliest
from engine.status import canonical, merge_difference, without_none

NOON = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)


def test_key_of_objects_in_a_namespace_and_without() -> None:
    inside = {"kind": "VirtualMachine", "metadata": {"namespace": "ns", "name": "web"}}
    assert str(Key.of(inside)) == "VirtualMachine/ns/web"
    assert str(Key.of({"kind": "Host", "metadata": {"name": "kvm1"}})) == "Host/kvm1"
    with pytest.raises(KeyError):
        Key.of({"metadata": {"name": "x"}})


def test_timestamps_are_utc_whatever_zone_comes_in() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    assert timestamp(there) == "2026-11-20T12:00:00Z"
    assert micro_timestamp(there) == "2026-11-20T12:00:00.250000Z"
    assert SystemClock().now().tzinfo is UTC


def test_paths() -> None:
    gadgets = Resource("example.org", "v1", "Gadget", "gadgets", namespaced=True)
    assert gadgets.api_version == "example.org/v1"
    assert gadgets.path() == "/apis/example.org/v1/gadgets"
    assert gadgets.path("ns", "a", "status") == "/apis/example.org/v1/namespaces/ns/gadgets/a/status"
    nodes = Resource("", "v1", "Node", "nodes", namespaced=False)
    assert nodes.api_version == "v1"
    assert nodes.path("", "n1") == "/api/v1/nodes/n1"


def test_earliest_of_nothing_is_done() -> None:
    assert earliest() == Done()
    assert earliest(Done(), Done()) == Done()


def test_earliest_requeue_wins_with_the_highest_priority() -> None:
    result = earliest(RequeueAfter(60, "slow", Priority.USER), RequeueAfter(5, "fast"), Done())
    assert result == RequeueAfter(5, "fast", Priority.USER)


def test_waits_are_joined_and_bounded_by_the_soonest() -> None:
    result = earliest(WaitFor("a", 60, "for a"), RequeueAfter(30, "x"), WaitFor("b", 90, "for b"))
    assert isinstance(result, WaitFor)
    assert result.facts == {"a", "b"}
    assert result.at_most == 30


def test_gravest_failure_wins_and_keeps_what_others_wait_for() -> None:
    result = earliest(
        Failed(FailureKind.WAIT_FOR_USER, "no such pool"),
        WaitFor("a", 60, "for a"),
        Failed(FailureKind.RETRY_SOON, "flaky", facts=frozenset({"b"})),
    )
    assert result == Failed(FailureKind.RETRY_SOON, "no such pool; flaky", 60, frozenset({"a", "b"}))


_results = st.one_of(
    st.just(Done()),
    st.builds(RequeueAfter, st.integers(1, 99), st.just("x"), st.sampled_from(Priority)),
    st.builds(WaitFor, st.sampled_from("abc"), st.integers(1, 99), st.just("x")),
    st.builds(Failed, st.sampled_from(FailureKind), st.just("x"), st.none() | st.integers(1, 99)),
)


@given(st.lists(_results, max_size=5))
def test_earliest_loses_no_fact_and_no_time(results: list[Result]) -> None:
    joined = earliest(*results)
    waited = {result.fact for result in results if isinstance(result, WaitFor)}
    assert waited <= (joined.facts if isinstance(joined, WaitFor | Failed) else frozenset())
    assert any(isinstance(result, Failed) for result in results) == isinstance(joined, Failed)
    if all(isinstance(result, Done) for result in results):
        assert joined == Done()


def test_condition_and_its_unknown() -> None:
    assert condition("Ready", None, "HostUnreachable", "kvm1", 3) == {
        "type": "Ready",
        "status": "Unknown",
        "reason": "HostUnreachable",
        "message": "kvm1",
        "observedGeneration": 3,
    }
    assert condition("Ready", True, "Running", "", 1)["status"] == "True"


def test_transition_time_moves_only_with_the_status() -> None:
    first = merge([], [condition("Ready", False, "Starting", "", 1)], NOON)
    later = NOON + timedelta(minutes=1)
    same = merge(first, [condition("Ready", False, "Creating", "disk", 2)], later)
    assert (same[0]["lastTransitionTime"], same[0]["reason"]) == ("2026-11-20T12:00:00Z", "Creating")
    changed = merge(same, [condition("Ready", True, "Running", "", 2)], later)
    assert changed[0]["lastTransitionTime"] == "2026-11-20T12:01:00Z"


def test_conditions_are_sorted_and_others_dropped_or_kept() -> None:
    old = merge([], [condition("B", True, "x", "", 1), condition("A", True, "x", "", 1)], NOON)
    assert [each["type"] for each in old] == ["A", "B"]
    new = [condition("C", True, "x", "", 2)]
    assert [each["type"] for each in merge(old, new, NOON)] == ["C"]
    kept = merge(old, new, NOON, keep_others=True)
    assert kept[:2] == old
    assert kept[2]["type"] == "C"


def test_canonical_ignores_order_of_keys_and_conditions_but_not_of_lists() -> None:
    ready, stalled = {"type": "Ready", "status": "True"}, {"type": "Stalled", "status": "False"}
    assert canonical({"a": 1, "conditions": [ready, stalled]}) == canonical({"conditions": [stalled, ready], "a": 1})
    assert canonical({"a": [1, 2]}) != canonical({"a": [2, 1]})


def apply_merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = apply_merge_patch(result.get(name), value)
    return result


_leaves = st.none() | st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.lists(st.integers(0, 2), max_size=2)
_trees = st.recursive(_leaves, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8)


@given(_trees.map(without_none), _trees)
def test_merge_difference_makes_exactly_the_new_value(old: Any, new: Any) -> None:
    patched = apply_merge_patch({"f": old}, {"f": merge_difference(old, new)})
    wanted = without_none(new)
    assert patched == ({} if wanted is None else {"f": wanted})


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Expired),
        (413, "RequestEntityTooLarge", errors.ApiError),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerUnavailable),
        (504, "Timeout", errors.ServerUnavailable),
    ],
)
def test_errors_are_typed(status: int, reason: str, kind: type[errors.ApiError]) -> None:
    error = errors.from_response(status, {"reason": reason, "message": "said so"}, {})
    assert type(error) is kind
    assert (error.status, error.reason, error.message) == (status, reason, "said so")


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [({"Retry-After": "7"}, {}, 7), ({}, {"retryAfterSeconds": 3}, 3), ({}, {}, 1), ({"Retry-After": "Fri"}, {}, 1)],
)
def test_retry_after(headers: dict[str, str], details: dict[str, Any], seconds: float) -> None:
    error = errors.from_response(429, {"details": details}, headers)
    assert isinstance(error, errors.TooManyRequests)
    assert error.retry_after == seconds


def emitted(form: Any) -> str:
    stream = io.StringIO()
    before = logging.root.handlers[:], logging.root.level
    try:
        logs.configure(form, logging.INFO, stream)
        with logs.bind(Key("Host", "", "kvm1"), "abc123"):
            try:
                raise ValueError("broken")
            except ValueError:
                logging.getLogger("test").exception("it %s", "failed", extra={"host": "kvm1"})
        logging.getLogger("test").info("outside")
    finally:
        logging.root.handlers[:], level = before
        logging.root.setLevel(level)
    return stream.getvalue()


def test_json_logs_name_object_and_pass() -> None:
    first, second = (json.loads(line) for line in emitted("json").splitlines())
    assert first["object"] == {"kind": "Host", "namespace": "", "name": "kvm1"}
    assert (first["correlationId"], first["host"], first["message"]) == ("abc123", "kvm1", "it failed")
    assert "ValueError: broken" in first["exception"]
    assert not {"object", "correlationId"} & second.keys()


def test_text_logs_name_object_and_pass() -> None:
    text = emitted("text")
    assert "Host/kvm1 [abc123]: it failed host=kvm1" in text
    assert "ValueError: broken" in text


def test_driver_calls_are_observed() -> None:
    from prometheus_client import REGISTRY

    labels = {"method": "define", "outcome": "ok"}
    before = REGISTRY.get_sample_value("hostler_driver_call_seconds_count", labels) or 0
    metrics.observe_driver_call("define", 0.25, "ok")
    assert REGISTRY.get_sample_value("hostler_driver_call_seconds_count", labels) == before + 1
