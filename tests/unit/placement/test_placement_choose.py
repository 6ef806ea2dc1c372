"""Placement: what is never chosen, what more room does, and what people are told."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.base import LabelSelector
from crds.host_pool import Overcommit, PlacementPolicy, PoolPlacement
from crds.quantity import to_bytes
from placement import Candidate, Request, choose, memory_overhead, rejection, size

GIB = 2**30
NAMES = st.sampled_from([f"kvm{n}" for n in range(1, 9)])
SOME = st.frozensets(st.sampled_from(["fast", "slow"]))
POLICIES = st.sampled_from(
    [
        PoolPlacement(policy=policy, overcommit=Overcommit(memory=memory, cpu=cpu))
        for policy in PlacementPolicy
        for memory in ("50%", "100%", "150%")
        for cpu in ("100%", "400%")
    ]
)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=NAMES,
        labels=st.sampled_from([{}, {"rack": "r1"}]),
        schedulable=st.booleans(),
        why_not=st.just("is cordoned"),
        cpus=st.integers(0, 16),
        memory=st.integers(0, 16 * GIB),
        used_cpus=st.integers(0, 16),
        used_memory=st.integers(0, 16 * GIB),
        storage_domains=SOME,
        networks=SOME,
        cpu_models=SOME,
        uefi=st.booleans(),
    ),
    unique_by=lambda host: host.name,
    max_size=5,
)
REQUESTS = st.builds(
    Request,
    cpus=st.integers(1, 8),
    memory=st.integers(1, 8 * GIB),
    host=st.none() | NAMES,
    host_selector=st.sampled_from([None, LabelSelector(), LabelSelector(match_labels={"rack": "r1"})]),
    storage_domains=SOME,
    networks=SOME,
    hosts=st.none() | st.frozensets(NAMES),
    cpu_model=st.sampled_from([None, "fast"]),
    uefi=st.booleans(),
)


def host(name: str, **changes) -> Candidate:
    base = Candidate(
        name=name,
        cpus=4,
        memory=8 * GIB,
        storage_domains=frozenset({"fast"}),
        networks=frozenset({"lan"}),
        cpu_models=frozenset({"EPYC"}),
        uefi=True,
    )
    return replace(base, **changes)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, CANDIDATES, POLICIES)
def test_a_rejected_host_is_never_chosen_and_every_host_is_judged(request, hosts, policy):
    decision = choose(request, hosts, policy)
    assert set(decision.scores) | set(decision.rejected) == {h.name for h in hosts}
    assert not set(decision.scores) & set(decision.rejected)
    assert (decision.host is None) == (not decision.scores)
    if decision.host is not None:
        chosen = next(h for h in hosts if h.name == decision.host)
        assert rejection(request, chosen, policy.overcommit) is None
        assert request.memory + chosen.used_memory <= chosen.memory * int(policy.overcommit.memory[:-1]) / 100
        assert decision.scores[decision.host] == max(decision.scores.values())


@settings(max_examples=60, deadline=None)
@given(REQUESTS, CANDIDATES, POLICIES, st.randoms())
def test_the_order_of_candidates_does_not_matter(request, hosts, policy, random):
    shuffled = list(hosts)
    random.shuffle(shuffled)
    assert choose(request, hosts, policy) == choose(request, shuffled, policy)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, CANDIDATES, POLICIES)
def test_the_explanation_names_every_host_once(request, hosts, policy):
    request = replace(request, host=None)
    words = re.findall(r"\bkvm\d\b", choose(request, hosts, policy).explanation)
    assert sorted(words) == sorted(h.name for h in hosts)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, CANDIDATES, POLICIES, st.integers(0, 7), st.integers(1, 8 * GIB))
def test_more_free_memory_never_makes_a_host_unfit_nor_lose_under_spread(request, hosts, policy, index, more):
    if not hosts:
        return
    policy = policy.model_copy(update={"policy": PlacementPolicy.SPREAD})
    before = choose(request, hosts, policy)
    lucky = hosts[index % len(hosts)]
    richer = replace(lucky, used_memory=max(0, lucky.used_memory - more))
    after = choose(request, [richer if h is lucky else h for h in hosts], policy)
    assert set(before.scores) <= set(after.scores)
    if before.host == lucky.name:
        assert after.host == lucky.name


@settings(max_examples=60, deadline=None)
@given(REQUESTS, CANDIDATES, POLICIES, st.integers(1, GIB), st.integers(0, 4))
def test_a_larger_request_never_fits_where_a_smaller_one_does_not(request, hosts, policy, memory, cpus):
    larger = replace(request, memory=request.memory + memory, cpus=request.cpus + cpus)
    assert set(choose(larger, hosts, policy).scores) <= set(choose(request, hosts, policy).scores)


def test_no_host_fits_in_words():
    request = Request(cpus=1, memory=2 * GIB, storage_domains=frozenset({"fast"}))
    hosts = [
        host("kvm1", used_memory=8 * GIB - int(1.2 * GIB)),
        host("kvm2", storage_domains=frozenset()),
        host("kvm3", storage_domains=frozenset()),
    ]
    decision = choose(request, hosts, PoolPlacement())
    assert decision.explanation == (
        "0 of 3 hosts fit: kvm1 has 1.2Gi of 2Gi memory free; kvm2, kvm3 do not reach storage domain fast"
    )


def test_a_choice_in_words():
    request = Request(cpus=1, memory=GIB)
    hosts = [host("kvm1"), host("kvm2", used_memory=GIB), host("kvm3", schedulable=False, why_not="is cordoned")]
    assert choose(request, hosts, PoolPlacement()).explanation == (
        "kvm1, by policy Spread from 2 of 3 hosts; kvm2 would do too; kvm3 is cordoned"
    )


def test_a_pool_without_hosts_in_words():
    assert choose(Request(cpus=1, memory=1), [], PoolPlacement()).explanation == "the pool has no hosts"


def test_a_long_list_of_hosts_is_cut():
    hosts = [host(f"kvm{n:03}", memory=0) for n in range(200)]
    explanation = choose(Request(cpus=1, memory=GIB), hosts, PoolPlacement()).explanation
    assert "and 180 more have 0 of 1Gi memory free" in explanation


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(PlacementPolicy.SPREAD, "kvm3"), (PlacementPolicy.PACK, "kvm2"), (PlacementPolicy.NONE, "kvm1")],
)
def test_policies_choose(policy, expected):
    hosts = [
        host("kvm1", used_memory=2 * GIB),
        host("kvm2", used_memory=4 * GIB),
        host("kvm3", used_memory=1 * GIB),
    ]
    assert choose(Request(cpus=1, memory=GIB), hosts, PoolPlacement(policy=policy)).host == expected


@pytest.mark.parametrize(
    ("request_changes", "host_changes", "why"),
    [
        ({"host": "kvm2"}, {}, "is not kvm2, the only host allowed"),
        ({"host_selector": LabelSelector(match_labels={"a": "b"})}, {}, "does not match the hostSelector"),
        ({"hosts": frozenset({"kvm2"})}, {}, "does not hold the VM's local disks"),
        ({"only": frozenset({"kvm2"})}, {}, "may not take the VM before it is known how it ended on kvm2"),
        ({}, {"schedulable": False, "why_not": "is in maintenance"}, "is in maintenance"),
        ({"storage_domains": frozenset({"a", "b"})}, {}, "does not reach storage domain a, b"),
        ({"networks": frozenset({"dmz"})}, {}, "does not have network dmz"),
        ({"cpu_model": "Zen"}, {}, "does not have CPU model Zen"),
        ({"uefi": True}, {"uefi": False}, "does not have UEFI firmware"),
        ({"cpus": 3}, {"cpus": 1, "used_cpus": 2}, "has 2 of 3 CPUs free"),
        ({"memory": 9 * GIB}, {}, "has 8Gi of 9Gi memory free"),
    ],
)
def test_each_filter_says_why(request_changes, host_changes, why):
    request = replace(Request(cpus=1, memory=GIB), **request_changes)
    assert rejection(request, host("kvm1", **host_changes), Overcommit()) == why


def test_overcommit_lets_more_in():
    request = Request(cpus=1, memory=10 * GIB)
    assert rejection(request, host("kvm1"), Overcommit(memory="150%")) is None


def test_overhead_grows_with_cpus_and_memory():
    assert memory_overhead(GIB, 1) < memory_overhead(GIB, 2) < memory_overhead(64 * GIB, 2)
    assert memory_overhead(GIB, 1) > 100 * 2**20


@given(st.integers(0, 2**62))
def test_a_size_for_people_is_a_quantity_near_the_truth(amount):
    text = size(amount)
    assert len(text) <= 7
    assert abs(to_bytes(text) - amount) <= max(1, amount * 0.0051)


def test_a_named_host_that_is_not_in_the_pool_is_said():
    decision = choose(Request(cpus=1, memory=GIB, host="kvm9"), [host("kvm1")], PoolPlacement())
    assert decision.host is None
    assert decision.explanation == "the pool has no host kvm9, the only one that spec.placement.host allows"
