"""StorageDomain: what no order of events may ever lead to, by Hypothesis over what hosts can read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from crds.storage_domain import StorageDomain, StoragePhase
from reconcilers.standing import Standing
from reconcilers.storage_domain.decide import (
    BLANK_SECONDS,
    GATHER_SECONDS,
    HostFact,
    Observed,
    Pending,
    RecordId,
    Withdraw,
    WriteMarker,
    decide,
)
from reconcilers.storage_domain.marker import Absent, Blank, Broken, Found, Marker, Silent, Unusable, parse

OURS, ID, OTHER_ID = "us", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"


def a_marker(installation: str, name: str, scope: str, id_: str, host: str | None, nonce: str) -> Marker:
    return Marker(id_, installation, name, scope, host, nonce, "2026-11-20T12:00:00Z")


MARKERS = st.builds(
    a_marker,
    st.sampled_from([OURS, OURS, "them"]),
    st.sampled_from(["fast", "fast", "slow"]),
    st.sampled_from(["Shared", "HostLocal"]),
    st.sampled_from([ID, OTHER_ID]),
    st.sampled_from([None, "kvm1", "kvm2"]),
    st.sampled_from(["n1", "n2"]),
)
READINGS = st.one_of(
    st.builds(Found, MARKERS),
    st.just(Absent()),
    st.builds(Blank, st.floats(0, 1000)),
    st.just(Broken("odd")),
    st.just(Unusable("PathMissing", "no such directory")),
    st.just(Silent()),
)
HOSTS = st.lists(
    st.builds(HostFact, st.sampled_from(["kvm1", "kvm2", "kvm3"]), READINGS, st.booleans(), st.booleans()),
    unique_by=lambda h: h.name,
    max_size=3,
).map(tuple)
OBSERVED = st.builds(
    Observed,
    installation=st.just(OURS),
    hosts=HOSTS,
    monotonic=st.just(1000.0),
    gathered_for=st.sampled_from([0.0, 29.0, 31.0]),
    pending=st.none() | st.builds(Pending, st.sampled_from(["kvm1", "kvm2"]), MARKERS, st.sampled_from([0.0, 100.0])),
    refused=st.sampled_from([(), ("kvm2",)]),
    holds_disks=st.booleans(),
)


def a_domain(scope: str, id_: str | None, mode: str = "Active", paused: bool = False) -> StorageDomain:
    return StorageDomain.parse(
        {
            "kind": "StorageDomain",
            "metadata": {"name": "fast", "uid": "u", "annotations": {"hostler.dev/paused": "x"} if paused else {}},
            "spec": {"type": "directory", "directory": {"path": "/p", "scope": scope}, "pools": ["d"], "mode": mode},
            "status": {"id": id_} if id_ else {},
        }
    )


DOMAINS = st.sampled_from(
    [
        a_domain(scope, id_, mode, paused)
        for scope in ("Shared", "HostLocal")
        for id_ in (None, ID)
        for mode in ("Active", "Maintenance")
        for paused in (False, True)
    ]
)


@settings(max_examples=150, deadline=None)
@given(DOMAINS, OBSERVED)
def test_a_marker_is_written_only_where_storage_is_new(domain, seen):
    plan = decide(domain, seen)
    by_name = {host.name: host for host in seen.hosts}
    writes = [step for step in plan.steps if isinstance(step, WriteMarker)]
    for step in writes:
        host = by_name[step.host]
        assert isinstance(host.reading, Absent | Blank)
        assert not host.excused
        if isinstance(host.reading, Blank):
            assert step.into_blank
            assert seen.monotonic - host.reading.since >= BLANK_SECONDS
    if domain.metadata.paused_by is not None or domain.spec.mode == "Maintenance":
        assert plan.steps == ()
    if writes and domain.spec.directory.scope == "Shared":
        assert domain.status.id is None
        assert not seen.holds_disks
        assert seen.pending is None
        assert not any(isinstance(h.reading, Found | Broken | Unusable) and not h.excused for h in seen.hosts)
        assert seen.gathered_for >= GATHER_SECONDS or not any(
            isinstance(h.reading, Silent) and not h.excused for h in seen.hosts
        )
    if writes and domain.spec.directory.scope == "HostLocal" and domain.status.id is not None:
        assert not any(by_name[step.host].initialized for step in writes)
        assert all(step.id == ID for step in writes)


@settings(max_examples=150, deadline=None)
@given(DOMAINS, OBSERVED)
def test_an_id_is_recorded_once_and_only_from_a_marker_of_ours(domain, seen):
    plan = decide(domain, seen)
    for step in plan.steps:
        if isinstance(step, RecordId):
            assert domain.status.id is None
            read = [h.reading.marker for h in seen.hosts if isinstance(h.reading, Found)]
            assert any(m.id == step.id for m in read)
            if seen.pending is None:
                assert any((m.id, m.installation, m.name) == (step.id, OURS, "fast") for m in read)
        if isinstance(step, Withdraw):
            assert seen.pending is not None
            assert step.host == seen.pending.host


@settings(max_examples=150, deadline=None)
@given(DOMAINS, OBSERVED)
def test_a_host_reaches_the_domain_only_by_its_own_marker(domain, seen):
    plan = decide(domain, seen)
    assert [r.name for r in plan.reach] == [h.name for h in seen.hosts]
    for reach, host in zip(plan.reach, seen.hosts, strict=True):
        if reach.reachable:
            assert isinstance(host.reading, Found)
            m = host.reading.marker
            assert (m.id, m.installation, m.name) == (domain.status.id, OURS, "fast")
            assert m.scope == domain.spec.directory.scope
        else:
            assert reach.reason != "Reachable"
            assert reach.message
    if plan.phase is StoragePhase.ACTIVE:
        assert all(r.reachable for r in plan.reach)
    if plan.verdict.standing is Standing.STALLED:
        assert plan.verdict.message


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | MARKERS.map(Marker.encode) | st.just(bytes(1024)))
def test_any_content_reads_as_something(data):
    assert isinstance(parse(data, 1.0), Found | Blank | Broken)


def test_a_marker_reads_back_as_it_was_written():
    m = a_marker(OURS, "fast", "Shared", ID, None, "n")
    assert parse(m.encode(), 0.0) == Found(m)
    assert len(m.encode()) == 1024
    assert isinstance(parse(m.encode().replace(b'"version": 1', b'"version": 2'), 0.0), Broken)
