"""What to do about a storage domain: who writes its marker, and when never, as a pure function.

The rules:

- a marker of ours that is found while no id is recorded is adopted: a crash, a reinstall or a restored API lost it;
- a Shared domain is first used when every connected host can open the path; its id is recorded once they all have read
  the marker that one of them wrote. A marker that they do not all see is taken away again: the path is not shared;
- once the id is recorded, a Shared domain's marker is never written again: one that is not there is not mounted. The
  same holds for each HostLocal directory once it has been initialized or holds a disk.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from crds.storage_domain import HostReach, StorageDomain, StorageMode, StoragePhase, StorageScope
from reconcilers.relations import listed
from reconcilers.standing import Verdict, progressing, ready, stalled
from reconcilers.storage_domain.marker import Absent, Blank, Broken, Found, Marker, Reading, Silent, Unusable, judge

GATHER_SECONDS = 30.0
"""How long a first use waits for the other hosts once one is connected."""
VERIFY_SECONDS = 75.0
"""How long the others may take to see the marker: NFS clients remember for a minute that a file is absent."""
BLANK_SECONDS = 30.0
"""How long a marker must have been empty before its writing counts as cut off."""
REFUSED_SECONDS = 60.0
"""How long after a path was found not to be shared it is tried again."""
WAITING_BOUND = 90.0
UNREACHABLE_SECONDS = 15.0
"""Seconds between two looks while some host does not reach the domain."""


@dataclass(frozen=True)
class HostFact:
    """One host of the domain's pools, those of the home pool first."""

    name: str
    reading: Reading
    initialized: bool = False
    """HostLocal: its directory has been marked once, or holds disks."""
    excused: bool = False
    """In maintenance, only observed or not operational: what it does not reach is not the storage's fault."""


@dataclass(frozen=True)
class Pending:
    """A marker that this process wrote and that not all hosts have read yet."""

    host: str
    marker: Marker
    age: float


@dataclass(frozen=True)
class Observed:
    """What `decide` goes by."""

    installation: str
    hosts: tuple[HostFact, ...]
    monotonic: float
    gathered_for: float = 0.0
    """Seconds since the first host was seen connected."""
    pending: Pending | None = None
    refused: tuple[str, ...] = ()
    """Hosts that did not see the marker at the last try, while that is no longer ago than REFUSED_SECONDS."""
    holds_disks: bool = False
    unknown_pools: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    """What refers to the domain, for a deletion."""
    audit_seconds: float = 300.0


@dataclass(frozen=True)
class WriteMarker:
    """Write a marker on this host, with this id (None: a new one)."""

    host: str
    id: str | None
    into_blank: bool


@dataclass(frozen=True)
class RecordId:
    """Write the id down; everyone has read it."""

    id: str


@dataclass(frozen=True)
class Withdraw:
    """Remove the marker that we wrote: these hosts do not see it."""

    host: str
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Release:
    """The domain is deleted and nothing refers to it. Its files and its marker stay as they are."""


Step = WriteMarker | RecordId | Withdraw | Release


@dataclass(frozen=True)
class Plan:
    """What to do, and how the domain stands meanwhile."""

    steps: tuple[Step, ...]
    phase: StoragePhase
    verdict: Verdict
    reach: tuple[HostReach, ...]
    again: float


def decide(domain: StorageDomain, seen: Observed) -> Plan:
    """What to do now."""
    reach = tuple(_reach(domain, seen, host) for host in seen.hosts)
    phase, verdict = _standing(domain, seen, reach)
    unreachable = any(not r.reachable and not h.excused for r, h in zip(reach, seen.hosts, strict=True))
    again = min(UNREACHABLE_SECONDS, seen.audit_seconds) if unreachable else seen.audit_seconds
    plan = Plan((), phase, verdict, reach, again)
    if domain.metadata.deleting:
        return _leaving(plan, seen)
    if domain.spec.mode is StorageMode.MAINTENANCE:
        return Plan((), StoragePhase.MAINTENANCE, ready("Maintenance", "spec.mode is Maintenance"), reach, again)
    if seen.unknown_pools or not seen.hosts:
        return plan
    if domain.status.id is None:
        plan = _first_use(domain, seen, plan)
    elif domain.spec.directory.scope is StorageScope.HOST_LOCAL:
        plan = Plan(_initialize(domain, seen), phase, verdict, reach, again)
    if domain.metadata.paused_by is not None:
        return Plan((), plan.phase, plan.verdict, reach, plan.again)
    return plan


# First use -----------------------------------------------------------------------------------------------------------


def _first_use(domain: StorageDomain, seen: Observed, plan: Plan) -> Plan:
    if seen.pending is not None:
        return _verifying(domain, seen, seen.pending, plan)
    ours = _ours(domain, seen)
    if ours:
        return _adopt(domain, ours, plan)
    shared = domain.spec.directory.scope is StorageScope.SHARED
    if shared and _bad(plan, seen):
        return plan
    if seen.holds_disks:
        message = f"disks lie here but no host has the marker in {domain.spec.directory.path}: mount it on the hosts"
        return _stands(plan, stalled("MarkerMissing", message), UNREACHABLE_SECONDS)
    usable = [host for host in seen.hosts if isinstance(host.reading, Absent | Blank) and not host.excused]
    waiting = [h.name for h in seen.hosts if isinstance(h.reading, Silent) and not h.excused]
    if not usable and _bad(plan, seen):
        return plan
    if not usable or (waiting and shared and seen.gathered_for < GATHER_SECONDS):
        names = listed(waiting or [host.name for host in seen.hosts])
        return _stands(plan, progressing("WaitingForHosts", f"waits for hosts {names}", WAITING_BOUND), 5.0)
    if seen.refused:
        return _stands(plan, _not_shared(domain, seen.refused), UNREACHABLE_SECONDS)
    return _mark(domain, seen, usable[0], plan)


def _mark(domain: StorageDomain, seen: Observed, host: HostFact, plan: Plan) -> Plan:
    blank = next((h for h in seen.hosts if isinstance(h.reading, Blank) and not h.excused), None)
    if blank is not None and not _was_cut_off(blank, seen):
        verdict = progressing("Initializing", "somebody is writing the marker just now, or was cut off", WAITING_BOUND)
        return _stands(plan, verdict, BLANK_SECONDS)
    step = WriteMarker((blank or host).name, None, into_blank=blank is not None)
    verdict = _verdict_of_try(domain, "the storage is marked as this domain's")
    return Plan((step,), plan.phase, verdict, plan.reach, 1.0)


def _verifying(domain: StorageDomain, seen: Observed, pending: Pending, plan: Plan) -> Plan:
    asked = [h for h in seen.hosts if not isinstance(h.reading, Silent) and not h.excused]
    unseen = tuple(h.name for h in asked if not _bears(h.reading, pending.marker))
    if domain.spec.directory.scope is StorageScope.HOST_LOCAL:
        unseen = tuple(name for name in unseen if name == pending.host)
    if not unseen and any(host.name == pending.host for host in asked):
        return Plan((RecordId(pending.marker.id),), plan.phase, plan.verdict, plan.reach, 0.0)
    if pending.age < VERIFY_SECONDS:
        verdict = _verdict_of_try(domain, f"waits for all hosts to see the marker: {listed(list(unseen))}")
        return _stands(plan, verdict, 3.0)
    step = Withdraw(pending.host, unseen)
    return Plan((step,), plan.phase, _not_shared(domain, unseen), plan.reach, UNREACHABLE_SECONDS)


def _adopt(domain: StorageDomain, ours: Counter[str], plan: Plan) -> Plan:
    if len(ours) > 1 and domain.spec.directory.scope is StorageScope.SHARED:
        message = (
            f"hosts have different storage at {domain.spec.directory.path}, each marked as this domain "
            f"({listed(sorted(ours))}): mount the same one on all of them"
        )
        return _stands(plan, stalled("NotShared", message), UNREACHABLE_SECONDS)
    most = min(ours, key=lambda found: (-ours[found], found))
    return Plan((RecordId(most),), plan.phase, plan.verdict, plan.reach, 0.0)


def _ours(domain: StorageDomain, seen: Observed) -> Counter[str]:
    """Ids of the markers that name this domain, and on how many hosts each was read."""
    found = Counter[str]()
    for host in seen.hosts:
        if isinstance(host.reading, Found) and _is_reached(domain, seen, host):
            found[host.reading.marker.id] += 1
    return found


def _was_cut_off(host: HostFact, seen: Observed) -> bool:
    return isinstance(host.reading, Blank) and seen.monotonic - host.reading.since >= BLANK_SECONDS


def _bears(reading: Reading, marker: Marker) -> bool:
    return isinstance(reading, Found) and (reading.marker.id, reading.marker.nonce) == (marker.id, marker.nonce)


def _verdict_of_try(domain: StorageDomain, message: str) -> Verdict:
    """While a refused path is tried again it stays what it was called, until it works."""
    before = domain.status.condition("Ready")
    if before is not None and before.reason == "NotShared":
        return stalled("NotShared", before.message)
    return progressing("Initializing", message, VERIFY_SECONDS + WAITING_BOUND)


def _not_shared(domain: StorageDomain, unseen: tuple[str, ...]) -> Verdict:
    path = domain.spec.directory.path
    return stalled(
        "NotShared",
        f"host {listed(list(unseen))} does not see what another host writes to {path}: "
        "mount the same storage on all hosts, or use scope HostLocal",
    )


# HostLocal, in use ---------------------------------------------------------------------------------------------------


def _initialize(domain: StorageDomain, seen: Observed) -> tuple[Step, ...]:
    """Mark the directories that hosts have never used."""
    return tuple(
        WriteMarker(host.name, domain.status.id, into_blank=isinstance(host.reading, Blank))
        for host in seen.hosts
        if not host.initialized and not host.excused and (isinstance(host.reading, Absent) or _was_cut_off(host, seen))
    )


# Standing ------------------------------------------------------------------------------------------------------------


def _reach(domain: StorageDomain, seen: Observed, host: HostFact) -> HostReach:
    reason, message = judge(domain, seen.installation, host.name, host.reading)
    reachable = reason == "Reachable" and domain.status.id is not None
    if reason == "Reachable" and not reachable:
        reason, message = "NotInitialized", "the domain is not in use yet"
    local = domain.spec.directory.scope is StorageScope.HOST_LOCAL
    if local and not host.initialized and isinstance(host.reading, Absent):
        reason, message = "NotInitialized", "the host's directory is not in use yet"
    return HostReach(
        name=host.name,
        reachable=reachable,
        reason=reason,
        message=message,
        initialized=local and (host.initialized or reachable),
    )


def _is_reached(domain: StorageDomain, seen: Observed, host: HostFact) -> bool:
    return judge(domain, seen.installation, host.name, host.reading)[0] == "Reachable"


def _bad(plan: Plan, seen: Observed) -> list[HostReach]:
    """Hosts that answer and on which something must be mended."""
    wrong = (Found, Broken, Unusable)
    return [
        reach
        for reach, host in zip(plan.reach, seen.hosts, strict=True)
        if not reach.reachable and not host.excused and isinstance(host.reading, wrong)
    ]


def _standing(domain: StorageDomain, seen: Observed, reach: tuple[HostReach, ...]) -> tuple[StoragePhase, Verdict]:
    """How the domain stands when nothing special is under way."""
    fallback = StoragePhase.PENDING if domain.status.id is None else StoragePhase.INACTIVE
    if seen.unknown_pools:
        pools = listed(list(seen.unknown_pools))
        return fallback, stalled("PoolNotFound", f"there is no HostPool {pools}: create it, or change spec.pools")
    if not seen.hosts:
        return fallback, stalled("NoHosts", f"HostPool {listed(domain.spec.pools)} has no hosts")
    reached = [r for r in reach if r.reachable]
    answering = [
        (r, h) for r, h in zip(reach, seen.hosts, strict=True) if not r.reachable and not isinstance(h.reading, Silent)
    ]
    # What was never used is under way, and what is being written may be.
    wrong = [r for r, h in answering if not h.excused and r.reason != "NotInitialized" and not _is_new(domain, h)]
    if domain.status.id is not None and reached:
        fallback = StoragePhase.DEGRADED if len(reached) < len(reach) else StoragePhase.ACTIVE
    if wrong:
        messages = "; ".join(f"host {r.name}: {r.message}" for r in wrong[:10])
        return fallback, stalled(wrong[0].reason, messages[:1024])
    if not reached:
        return fallback, progressing("WaitingForHosts", "no host of its pools can be asked", WAITING_BOUND)
    silent = [r.name for r in reach if not r.reachable]
    if silent:
        return fallback, ready("Degraded", f"not reached by hosts that are not available: {listed(silent)}")
    return fallback, ready("Active", f"reached by {len(reached)} hosts")


def _is_new(domain: StorageDomain, host: HostFact) -> bool:
    return domain.status.id is None and isinstance(host.reading, Blank)


def _stands(plan: Plan, verdict: Verdict, again: float) -> Plan:
    return Plan((), plan.phase, verdict, plan.reach, min(again, plan.again))


def _leaving(plan: Plan, seen: Observed) -> Plan:
    if not seen.users:
        return Plan((Release(),), plan.phase, plan.verdict, plan.reach, plan.again)
    message = f"deletion waits for what lies here: {listed(sorted(seen.users))}"
    return Plan((), plan.phase, stalled("InUse", message), plan.reach, 30.0)
