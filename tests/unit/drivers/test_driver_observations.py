"""The observation store: older never overwrites newer."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.model import DomainObservation, DomainState, GuestFacts, GuestInterfaceFacts
from drivers.observations import ObservationStore, Ticket

UUIDS = ("a", "b", "c")
GUEST = GuestFacts("web", "Debian", (GuestInterfaceFacts("eth0", None, ("192.0.2.1",)),))


def domain(uuid: str, version: int = 0, state: DomainState = DomainState.RUNNING) -> DomainObservation:
    return DomainObservation(
        uuid=uuid,
        name=uuid,
        state=state,
        stop_reason=None,
        persistent=True,
        identity=None,
        sections=(),
        cpus=1,
        memory=version,
        images=(f"/images/{uuid}",),
    )


World = dict[str, int]
"""The host's truth: which domains there are, and in which version."""


@settings(deadline=None)
@given(st.data())
def test_the_last_question_wins_in_whatever_order_answers_arrive(data: st.DataObject) -> None:
    """Questions are asked while the world changes; each answer is true of some moment after its question."""
    store = ObservationStore()
    worlds: list[World] = [{}]
    asked: list[tuple[Ticket, int, str | None]] = []
    for step in range(data.draw(st.integers(1, 12))):
        world = dict(worlds[-1])
        uuid = data.draw(st.sampled_from(UUIDS))
        if data.draw(st.booleans()):
            world[uuid] = step + 1
        else:
            world.pop(uuid, None)
        worlds.append(world)
        # Each change causes a question about its domain; a complete list is asked for now and then.
        asked.append((store.ticket(float(step)), len(worlds) - 1, uuid))
        if data.draw(st.booleans()):
            asked.append((store.ticket(float(step)), len(worlds) - 1, None))
    asked.append((store.ticket(99.0), len(worlds) - 1, None))
    sequence = -1
    for ticket, since, uuid in data.draw(st.permutations(asked)):
        world = worlds[data.draw(st.integers(since, len(worlds) - 1))]
        if uuid is None:
            store.listed(ticket, {name: domain(name, version) for name, version in world.items()})
        else:
            store.seen(ticket, uuid, domain(uuid, world[uuid]) if uuid in world else None)
        inventory = store.inventory()
        if inventory is not None:
            assert inventory.sequence >= sequence
            sequence = inventory.sequence
    inventory = store.inventory()
    assert inventory is not None
    assert {seen.uuid: seen.memory for seen in inventory.domains} == worlds[-1]
    assert inventory.listed_at == 99.0


def test_nothing_is_complete_before_the_first_list() -> None:
    store = ObservationStore()
    store.seen(store.ticket(1.0), "a", domain("a"))
    assert store.inventory() is None
    store.listed(store.ticket(2.0), {"a": domain("a")})
    inventory = store.inventory()
    assert inventory is not None
    assert (inventory.domains, inventory.listed_at) == ((domain("a"),), 2.0)


def test_an_overtaken_answer_resurrects_nothing() -> None:
    store = ObservationStore()
    old = store.ticket(1.0)
    store.listed(store.ticket(2.0), {})
    assert not store.seen(old, "a", domain("a"))
    assert store.get("a") is None
    gone = store.ticket(3.0)
    older = store.ticket(2.5)
    assert older.number > gone.number
    store.seen(older, "a", None)
    assert not store.seen(gone, "a", domain("a"))
    assert store.get("a") is None


def test_an_older_list_takes_nothing_away() -> None:
    store = ObservationStore()
    old = store.ticket(1.0)
    store.seen(store.ticket(2.0), "a", domain("a"))
    assert store.listed(old, {}) == frozenset()
    assert store.get("a") == domain("a")
    assert store.listed(store.ticket(3.0), {}) == frozenset({"a"})
    assert store.get("a") is None


def test_only_changes_are_told() -> None:
    store = ObservationStore()
    assert store.listed(store.ticket(1.0), {"a": domain("a"), "b": domain("b")}) == {"a", "b"}
    assert store.listed(store.ticket(2.0), {"a": domain("a"), "b": domain("b", 1)}) == {"b"}
    assert not store.seen(store.ticket(3.0), "a", domain("a"))
    assert store.seen(store.ticket(4.0), "a", domain("a", 1))


def test_what_a_guest_said_stays_while_it_runs() -> None:
    store = ObservationStore()
    assert not store.guest("a", GUEST), "an unknown domain has no guest"
    store.listed(store.ticket(1.0), {"a": domain("a")})
    assert store.guest("a", GUEST)
    assert not store.guest("a", GUEST), "no news"
    store.seen(store.ticket(2.0), "a", domain("a", 1))
    assert store.get("a") == replace(domain("a", 1), guest=GUEST)
    store.seen(store.ticket(3.0), "a", domain("a", 1, DomainState.SHUT_OFF))
    assert not store.guest("a", GUEST), "a late answer of a guest that is off"
    store.seen(store.ticket(4.0), "a", domain("a", 2))
    assert store.get("a") == domain("a", 2), "a new run begins unknown"


def users_of(store: ObservationStore, path: str) -> set[str]:
    inventory = store.inventory()
    return set() if inventory is None else {domain.uuid for domain in inventory.having(path)}


def test_images_are_indexed() -> None:
    store = ObservationStore()
    shared = replace(domain("b"), images=("/images/a", "/images/b"))
    store.listed(store.ticket(1.0), {"a": domain("a"), "b": shared})
    assert users_of(store, "/images/a") == {"a", "b"}
    store.seen(store.ticket(2.0), "a", None)
    assert users_of(store, "/images/a") == {"b"}
    assert users_of(store, "/images/none") == set()
    store.listed(store.ticket(3.0), {})
    assert users_of(store, "/images/a") == set()
