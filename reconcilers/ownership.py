"""Who wins: the only code that may say where a VM may be started and which of its domains may be destroyed.

The truth about a VM lies in several places: the API (placement, candidates, epoch) and the hosts (domains and the
identity in their metadata). `ownership` weighs them, as a pure function over facts, so that it can be tested over all
small worlds. Its rules are those of docs/safety.md:

- a domain of somebody else is never touched;
- a candidate that cannot be asked blocks a start, since it may run the VM;
- absent is not stopped: a candidate whose fresh list lacks the VM may only be retried itself, for a create sent earlier
  may still arrive there; a domain that is off *with a reason* is a fact, and frees the candidate;
- a domain is destroyed only when a higher epoch of the same VM is seen running on another host;
- a higher epoch on a host than in the API means that the API is older than reality, never that the domain is stale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from drivers.model import ACTIVE, DomainObservation, DomainState, Identity, StopReason


class Owner(StrEnum):
    """Whose domain it is."""

    OURS = "Ours"
    """Stamped by this installation for this namespace and name (under this uid or one that is dead)."""
    OTHERS = "Others"
    """Stamped by another installation or for another object, or not stamped at all."""


@dataclass(frozen=True)
class Claim:
    """What the API says of the VM."""

    installation: str
    namespace: str
    name: str
    uuid: str
    epoch: int
    candidates: frozenset[str]
    """Hosts that may hold the VM."""


@dataclass(frozen=True)
class HostFact:
    """What one host says of the VM."""

    host: str
    fresh: bool
    """Whether its list is complete and current: only then is an absent domain not there."""
    domain: DomainObservation | None
    """The newest observation of the domain with the VM's UUID, or stamped with its name."""


@dataclass(frozen=True)
class RunsOn:
    """The VM is active on this host."""

    host: str
    domain: DomainObservation
    fresh: bool
    """Whether the host can be asked now; otherwise this is what was seen last."""


@dataclass(frozen=True)
class MayStart:
    """The VM runs nowhere, and may be started."""

    only: frozenset[str] | None
    """On one of these hosts, where an earlier start may still be under way; None: on any host."""
    stopped: DomainObservation | None = None
    """How it was seen to end, where that is known."""


@dataclass(frozen=True)
class MustWait:
    """Nobody can say whether the VM runs: these hosts may hold it and cannot be asked."""

    hosts: tuple[str, ...]


@dataclass(frozen=True)
class AskPerson:
    """Only a person can resolve this."""

    reason: str
    message: str


@dataclass(frozen=True)
class Ownership:
    """The answer."""

    answer: RunsOn | MayStart | MustWait | AskPerson
    epoch: int
    """The highest epoch seen anywhere; a new decision takes the next one."""
    destroy: tuple[str, ...] = ()
    """Hosts whose domain of this VM is stale for certain and may be destroyed."""
    remnants: tuple[str, ...] = ()
    """Hosts that still define the VM although it is off there: may be undefined."""
    others: tuple[str, ...] = ()
    """While it runs: other hosts that hold it too, or are candidates and cannot be asked: they stay candidates."""


def owner_of(identity: Identity | None, claim: Claim) -> Owner:
    """Whose a domain is, by its metadata. A dead uid under the same name is ours: the object was made again."""
    if identity is None:
        return Owner.OTHERS
    same = (identity.installation, identity.namespace, identity.name) == (
        claim.installation,
        claim.namespace,
        claim.name,
    )
    return Owner.OURS if same else Owner.OTHERS


def ownership(claim: Claim, facts: tuple[HostFact, ...]) -> Ownership:
    """Weigh what the API and all hosts say of one VM. Facts: one for every host that is known, in any order."""
    seen = [(fact, fact.domain) for fact in facts if fact.domain is not None]
    epochs = [d.identity.epoch for _, d in seen if d.identity is not None and owner_of(d.identity, claim) is Owner.OURS]
    epoch = max([claim.epoch, *epochs])
    strangers = [(f, d) for f, d in seen if owner_of(d.identity, claim) is Owner.OTHERS]
    if strangers:
        return Ownership(_stranger(strangers), epoch)
    active = sorted(
        ((_epoch(d), f, d) for f, d in seen if d.state in ACTIVE), key=lambda item: (-item[0], item[1].host)
    )
    remnants = tuple(sorted(f.host for f, d in seen if f.fresh and d.state not in ACTIVE))
    if active:
        others = {f.host for _, f, _ in active[1:]}.union(_silent(claim.candidates - {active[0][1].host}, facts))
        return replace(_active(active, epoch, remnants), others=tuple(sorted(others)))
    return Ownership(_inactive(claim, facts), epoch, (), remnants)


def _epoch(domain: DomainObservation) -> int:
    return domain.identity.epoch if domain.identity is not None else 0


def _stranger(strangers: list[tuple[HostFact, DomainObservation]]) -> AskPerson:
    places = ", ".join(sorted(f"{d.name} on {f.host}" for f, d in strangers))
    return AskPerson(
        "OwnedByOther",
        f"a domain with this VM's UUID or name belongs to somebody else ({places}): remove it there, or rename this VM",
    )


def _active(active: list[tuple[int, HostFact, DomainObservation]], epoch: int, remnants: tuple[str, ...]) -> Ownership:
    top, fact, domain = active[0]
    rest = active[1:]
    if any(other == top for other, _, _ in rest):
        hosts = ", ".join(sorted([fact.host, *(f.host for e, f, _ in rest if e == top)]))
        return Ownership(
            AskPerson("RunsTwice", f"the VM is active on several hosts at once ({hosts}): stop all but one by hand"),
            epoch,
        )
    # Only a winner that is seen running *now* condemns the others, and only on hosts that can be asked.
    certain = fact.fresh and domain.state is DomainState.RUNNING
    destroy = tuple(sorted(f.host for _, f, _ in rest if certain and f.fresh))
    return Ownership(RunsOn(fact.host, domain, fact.fresh), epoch, destroy, remnants)


def _inactive(claim: Claim, facts: tuple[HostFact, ...]) -> MayStart | MustWait:
    silent = _silent(claim.candidates, facts)
    if silent:
        return MustWait(silent)
    by_host = {fact.host: fact for fact in facts}
    domains = {h: by_host[h].domain for h in claim.candidates}
    unresolved = frozenset(h for h, d in domains.items() if d is None or not _ended(d))
    stopped = next((d for _, d in sorted(domains.items()) if d is not None and _ended(d)), None)
    return MayStart(unresolved or None, stopped)


def _silent(hosts: frozenset[str], facts: tuple[HostFact, ...]) -> tuple[str, ...]:
    fresh = {fact.host for fact in facts if fact.fresh}
    return tuple(sorted(hosts - fresh))


def _ended(domain: DomainObservation) -> bool:
    return domain.stop_reason not in (None, StopReason.UNKNOWN)
