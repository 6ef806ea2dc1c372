"""Who wins: the rules of docs/safety.md as properties, over all small worlds.

A world is up to three hosts. Each host is one of ANSWERS; each may be a candidate or not; the API knows an epoch. All
combinations are tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import pytest

from drivers.model import DomainObservation, DomainState, Identity, StopReason
from reconcilers.ownership import (
    ACTIVE,
    AskPerson,
    Claim,
    HostFact,
    MayStart,
    MustWait,
    Owner,
    Ownership,
    RunsOn,
    owner_of,
    ownership,
)
from tests.unit.reconcilers.fakes import INSTALLATION, domain

HOSTS = ("kvm1", "kvm2", "kvm3")
UUID = "uid-web"


@dataclass(frozen=True)
class Answer:
    """What a host says of the VM."""

    fresh: bool
    state: DomainState | None = None
    reason: StopReason | None = None
    epoch: int = 1
    owner: str = "ours"
    """ours, reborn (a dead uid under our name), foreign (another installation), unstamped."""

    def domain(self) -> DomainObservation | None:
        if self.state is None:
            return None
        identity = Identity(INSTALLATION, "default", "web", UUID, self.epoch)
        if self.owner == "reborn":
            identity = Identity(INSTALLATION, "default", "web", "dead", self.epoch)
        elif self.owner == "foreign":
            identity = Identity("another", "default", "web", UUID, self.epoch)
        return domain(
            "default.web",
            uid=UUID,
            state=self.state,
            stop_reason=self.reason,
            identity=None if self.owner == "unstamped" else identity,
        )


def answers(hosts: int) -> list[Answer]:
    """Everything a host may say; three hosts at once get fewer epochs and owners."""
    epochs = (1, 2, 3) if hosts < 3 else (1, 2)
    found = [Answer(fresh=fresh) for fresh in (True, False)]
    states = [(DomainState.RUNNING, None), (DomainState.PAUSED, None)]
    states += [(DomainState.SHUT_OFF, reason) for reason in (StopReason.GUEST_SHUTDOWN, StopReason.UNKNOWN)]
    if hosts < 3:
        states += [(DomainState.SUSPENDED, None), (DomainState.SHUTTING_DOWN, None)]
        states += [(DomainState.CRASHED, StopReason.CRASHED), (DomainState.SHUT_OFF, None)]
    for fresh, (state, reason), epoch in itertools.product((True, False), states, epochs):
        found.append(Answer(fresh, state, reason, epoch))
    for owner in ("reborn", "foreign", "unstamped") if hosts < 3 else ("foreign",):
        found += [Answer(fresh, DomainState.RUNNING, None, 1, owner) for fresh in (True, False)]
        found.append(Answer(True, DomainState.SHUT_OFF, StopReason.UNKNOWN, 1, owner))
    return found


@dataclass(frozen=True)
class Case:
    """A world, and what `ownership` says of it."""

    claim: Claim
    facts: tuple[HostFact, ...]
    result: Ownership

    def fact(self, host: str) -> HostFact | None:
        return self.by_host.get(host)

    @cached_property
    def by_host(self) -> dict[str, HostFact]:
        return {f.host: f for f in self.facts}

    @cached_property
    def domains(self) -> list[tuple[HostFact, DomainObservation]]:
        return [(f, f.domain) for f in self.facts if f.domain is not None]

    @cached_property
    def ours(self) -> list[tuple[HostFact, DomainObservation]]:
        return [(f, d) for f, d in self.domains if owner_of(d.identity, self.claim) is Owner.OURS]

    @cached_property
    def active(self) -> list[tuple[HostFact, DomainObservation]]:
        return [(f, d) for f, d in self.ours if d.state in ACTIVE]

    @cached_property
    def strangers(self) -> bool:
        return len(self.ours) < len(self.domains)


def case(claim: Claim, facts: tuple[HostFact, ...]) -> Case:
    return Case(claim, facts, ownership(claim, facts))


def worlds(hosts: int) -> Iterator[Case]:
    """All worlds of so many hosts; of those that differ only in the names of hosts, one."""
    names = HOSTS[:hosts]
    epochs = (0, 2) if hosts < 3 else (1,)
    for said in itertools.combinations_with_replacement(itertools.product(answers(hosts), (True, False)), hosts):
        facts = tuple(HostFact(name, a.fresh, a.domain()) for name, (a, _) in zip(names, said, strict=True))
        candidates = frozenset(name for name, (_, is_candidate) in zip(names, said, strict=True) if is_candidate)
        extended = [candidates] if candidates else [candidates, frozenset({"unknown"})]
        for known, written in itertools.product(extended, epochs):
            yield case(Claim(INSTALLATION, "default", "web", UUID, written, known), facts)


def epoch(found: DomainObservation) -> int:
    assert found.identity is not None
    return found.identity.epoch


# The rules ------------------------------------------------------------------------------------------------------------


def never_start_while_it_may_run(c: Case) -> None:
    """I1: a start needs that nothing of ours is active anywhere, and that every candidate answers now."""
    if isinstance(c.result.answer, MayStart):
        assert not c.active
        assert not c.strangers
        for host in c.claim.candidates:
            fact = c.fact(host)
            assert fact is not None
            assert fact.fresh


def absent_is_not_stopped(c: Case) -> None:
    """A candidate is free only by a domain that is off with a reason; the others may only be retried themselves."""
    if not isinstance(c.result.answer, MayStart):
        return
    unresolved = set()
    for host in c.claim.candidates:
        fact = c.fact(host)
        assert fact is not None
        if fact.domain is None or fact.domain.stop_reason in (None, StopReason.UNKNOWN):
            unresolved.add(host)
    assert c.result.answer.only == (unresolved or None)


def waits_name_the_silent_candidates(c: Case) -> None:
    if isinstance(c.result.answer, MustWait):
        silent = {h for h in c.claim.candidates if (f := c.fact(h)) is None or not f.fresh}
        assert set(c.result.answer.hosts) == silent
        assert silent
        assert not c.active


def other_hosts_do_not_block(c: Case) -> None:
    """A host that is no candidate, and of which nothing is known, holds nobody up."""
    everyone_answers = all((f := c.fact(h)) is not None and f.fresh for h in c.claim.candidates)
    if not c.active and not c.strangers and everyone_answers:
        assert isinstance(c.result.answer, MayStart)


def destroys_only_what_is_stale_for_certain(c: Case) -> None:
    """A higher epoch of the same VM must be seen running elsewhere, now; the host must answer, the domain be ours."""
    for host in c.result.destroy:
        fact = c.fact(host)
        assert fact is not None
        assert fact.fresh
        assert fact.domain is not None
        assert owner_of(fact.domain.identity, c.claim) is Owner.OURS
        winners = [
            (f, d)
            for f, d in c.active
            if f.host != host and f.fresh and d.state is DomainState.RUNNING and epoch(d) > epoch(fact.domain)
        ]
        assert winners
        assert isinstance(c.result.answer, RunsOn)
        assert host != c.result.answer.host


def never_destroys_the_newest(c: Case) -> None:
    if c.active:
        top = max(epoch(d) for _, d in c.active)
        newest = {f.host for f, d in c.active if epoch(d) == top}
        assert not newest.intersection(c.result.destroy)


def never_touches_a_stranger(c: Case) -> None:
    if c.strangers:
        assert isinstance(c.result.answer, AskPerson)
        assert c.result.answer.reason == "OwnedByOther"
        assert c.result.destroy == ()
        assert c.result.remnants == ()


def an_equal_epoch_twice_asks_a_person(c: Case) -> None:
    if c.strangers or not c.active:
        return
    top = max(epoch(d) for _, d in c.active)
    twice = sum(epoch(d) == top for _, d in c.active) > 1
    assert isinstance(c.result.answer, AskPerson) is twice
    if twice:
        assert isinstance(c.result.answer, AskPerson)
        assert c.result.answer.reason == "RunsTwice"
        assert c.result.destroy == c.result.remnants == ()


def the_highest_epoch_runs(c: Case) -> None:
    """A higher epoch on a host is never stale, whatever the API says."""
    if isinstance(c.result.answer, RunsOn):
        host = c.result.answer.host
        fact = c.fact(host)
        assert fact is not None
        assert fact.domain is c.result.answer.domain
        assert c.result.answer.fresh is fact.fresh
        assert epoch(c.result.answer.domain) == max(epoch(d) for _, d in c.active)
    assert c.result.epoch == max([c.claim.epoch, *(epoch(d) for _, d in c.ours)])


def remnants_are_off_and_ours_and_answering(c: Case) -> None:
    for host in c.result.remnants:
        fact = c.fact(host)
        assert fact is not None
        assert fact.fresh
        assert fact.domain is not None
        assert fact.domain.state not in ACTIVE
        assert owner_of(fact.domain.identity, c.claim) is Owner.OURS


def whoever_may_hold_it_stays_a_candidate(c: Case) -> None:
    """While it runs: every other host with an active domain of ours, and every candidate that cannot be asked."""
    if isinstance(c.result.answer, RunsOn):
        own = c.result.answer.host
        silent = {h for h in c.claim.candidates if (f := c.fact(h)) is None or not f.fresh}
        holding = {f.host for f, _ in c.active}
        assert set(c.result.others) == (silent | holding) - {own}


RULES = (
    never_start_while_it_may_run,
    absent_is_not_stopped,
    waits_name_the_silent_candidates,
    other_hosts_do_not_block,
    destroys_only_what_is_stale_for_certain,
    never_destroys_the_newest,
    never_touches_a_stranger,
    an_equal_epoch_twice_asks_a_person,
    the_highest_epoch_runs,
    remnants_are_off_and_ours_and_answering,
    whoever_may_hold_it_stays_a_candidate,
)


@pytest.mark.parametrize("hosts", [0, 1, 2, 3])
def test_the_rules_hold_in_every_small_world(hosts):
    count = 0
    for found in worlds(hosts):
        count += 1
        for rule in RULES:
            rule(found)
    assert count >= {0: 4, 1: 150, 2: 9_000, 3: 13_000}[hosts]


def test_every_answer_occurs_in_the_small_worlds():
    kinds = {(type(w.result.answer), bool(w.result.destroy), bool(w.result.remnants)) for w in worlds(2)}
    assert {kind for kind, _, _ in kinds} == {RunsOn, MayStart, MustWait, AskPerson}
    assert (RunsOn, True, False) in kinds
    assert (MayStart, False, True) in kinds


def test_the_order_of_hosts_does_not_matter():
    for found in worlds(2):
        assert ownership(found.claim, found.facts[::-1]) == found.result


def test_the_names_of_hosts_do_not_matter():
    """A world and its mirror: the answers are the same, but for the names."""
    mirror = {"kvm1": "kvm2", "kvm2": "kvm1"}
    for found in worlds(2):
        facts = tuple(HostFact(mirror[f.host], f.fresh, f.domain) for f in found.facts)
        candidates = frozenset(mirror.get(host, host) for host in found.claim.candidates)
        other = ownership(replace(found.claim, candidates=candidates), facts)
        assert type(other.answer) is type(found.result.answer)
        assert set(other.destroy) == {mirror[host] for host in found.result.destroy}
        assert set(other.remnants) == {mirror[host] for host in found.result.remnants}


# Read aloud ----------------------------------------------------------------------------------------------------------


def claim(*candidates: str, at: int = 1) -> Claim:
    return Claim(INSTALLATION, "default", "web", UUID, at, frozenset(candidates))


def says(host: str, *, fresh: bool = True, **answer) -> HostFact:
    return HostFact(host, fresh, Answer(fresh, **answer).domain())


RUNNING = {"state": DomainState.RUNNING}
OFF = {"state": DomainState.SHUT_OFF, "reason": StopReason.GUEST_SHUTDOWN}


def test_a_lost_host_blocks_the_start_although_others_answer():
    found = ownership(claim("kvm1"), (says("kvm1", fresh=False), says("kvm2")))
    assert found.answer == MustWait(("kvm1",))


def test_a_host_that_nobody_knows_any_more_blocks_too():
    assert ownership(claim("gone"), (says("kvm2"),)).answer == MustWait(("gone",))


def test_a_create_that_may_still_arrive_keeps_the_start_on_its_host():
    assert ownership(claim("kvm1"), (says("kvm1"), says("kvm2"))).answer == MayStart(frozenset({"kvm1"}))


def test_a_domain_that_is_off_with_a_reason_frees_its_host():
    found = ownership(claim("kvm1"), (says("kvm1", **OFF), says("kvm2")))
    assert isinstance(found.answer, MayStart)
    assert found.answer.only is None
    assert found.answer.stopped is not None
    assert found.remnants == ("kvm1",)


def test_a_returning_host_with_an_old_copy_loses_it():
    found = ownership(claim("kvm2", at=2), (says("kvm1", **RUNNING, epoch=1), says("kvm2", **RUNNING, epoch=2)))
    assert isinstance(found.answer, RunsOn)
    assert (found.answer.host, found.destroy) == ("kvm2", ("kvm1",))


@pytest.mark.parametrize("winner", [{"fresh": False}, {"state": DomainState.PAUSED}])
def test_an_old_copy_is_kept_while_the_newer_one_is_not_seen_running(winner):
    newer = says("kvm2", **{**RUNNING, "epoch": 2, **winner})
    found = ownership(claim("kvm2", at=2), (says("kvm1", **RUNNING, epoch=1), newer))
    assert found.destroy == ()
    assert found.others == ("kvm1",)


def test_an_api_that_is_older_than_reality_learns_the_epoch():
    found = ownership(claim(at=1), (says("kvm3", **RUNNING, epoch=9),))
    assert (type(found.answer), found.epoch, found.destroy) == (RunsOn, 9, ())


def test_a_vm_that_was_made_again_finds_its_domain():
    found = ownership(claim(), (says("kvm1", **RUNNING, owner="reborn"),))
    assert isinstance(found.answer, RunsOn)


@pytest.mark.parametrize(
    ("identity", "owner"),
    [
        (None, Owner.OTHERS),
        (Identity(INSTALLATION, "default", "web", "dead", 1), Owner.OURS),
        (Identity(INSTALLATION, "default", "other", UUID, 1), Owner.OTHERS),
        (Identity(INSTALLATION, "prod", "web", UUID, 1), Owner.OTHERS),
        (Identity("another", "default", "web", UUID, 1), Owner.OTHERS),
    ],
)
def test_whose_a_domain_is(identity, owner):
    assert owner_of(identity, claim()) is owner
