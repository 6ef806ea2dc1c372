"""Locks of several processes: sets, sharing, waiting, scopes, and what the dead leave."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine

import pytest

from engine import errors
from engine.locks import CallTooLong, GrantOver, Held, NotCovered, RecoveryFailed, Scope, SessionLost, Timing
from engine.locks.record import parse
from tests.unit.engine.locking import DB, POOL, WEB, Bed, Process, claim, crowd, held_by, run

Test = Callable[[Bed], Coroutine[None, None, None]]


def virtual_time(test: Test) -> Callable[[], None]:
    @functools.wraps(test)
    def wrapped() -> None:
        async def inside() -> None:
            await test(Bed())

        run(inside())

    del wrapped.__wrapped__  # pytest would see the argument
    return wrapped


@virtual_time
async def test_a_set_costs_a_write_each_to_take_and_to_give_back(bed: Bed) -> None:
    one = await bed.process("one")
    for token in (1, 2):
        before = bed.writes("lock.")
        async with await one.locks.acquire(claim("a", WEB, DB, shared=(POOL,))) as grant:
            assert [grant.token(lockable) for lockable in (POOL, WEB, DB)] == [token] * 3
            assert held_by(bed, POOL, WEB, DB) == [["a"]] * 3
        assert bed.writes("lock.") - before == 6
        assert held_by(bed, POOL, WEB, DB) == [[]] * 3
    order = [write.key.name for write in bed.server.writes if "lock." in write.key.name][:3]
    assert order == [POOL.lease_name, DB.lease_name, WEB.lease_name]
    await grant.release()


@virtual_time
async def test_a_conflict_names_the_holder_and_takes_nothing(bed: Bed) -> None:
    one, two = await bed.process("one"), await bed.process("two")
    await one.locks.acquire(claim("default/nightly", WEB))
    with pytest.raises(
        Held, match=r"^Machine default/web is held alone by default/nightly \(works on .*\), in process pod one, since "
    ):
        await two.locks.acquire(claim("b", WEB, shared=(POOL,)))
    assert bed.lease(POOL) is None
    with pytest.raises(Held):
        await one.locks.acquire(claim("default/nightly", WEB))


@virtual_time
async def test_some_share_and_one_who_waits_alone_comes_before_new_ones(bed: Bed) -> None:
    one, two = await bed.process("one"), await bed.process("two")
    first = await one.locks.acquire(claim("a", shared=(POOL,)))
    second = await two.locks.acquire(claim("b", shared=(POOL,)))
    assert first.token(POOL) == 1 and second.token(POOL) == 2
    alone = two.inside.run(two.locks.acquire(claim("c", POOL), wait=60))
    await asyncio.sleep(1)
    with pytest.raises(Held, match="is waited for by c"):
        await one.locks.acquire(claim("d", shared=(POOL,)))
    await first.release()
    await second.release()
    grant = await alone
    assert grant.token(POOL) == 3 and held_by(bed, POOL) == [["c"]]


@virtual_time
async def test_the_queue_is_in_order_of_priority_then_age(bed: Bed) -> None:
    one, two = await bed.process("one"), await bed.process("two")
    first = await one.locks.acquire(claim("a", WEB))
    order: list[str] = []

    async def work(process: Process, name: str, priority: int) -> None:
        async with await process.locks.acquire(claim(name, WEB, DB, priority=priority), wait=120):
            order.append(name)
            await asyncio.sleep(3)

    tasks = []
    for process, name, priority in ((one, "old", 0), (two, "young", 0), (one, "high", 5)):
        tasks.append(process.inside.run(work(process, name, priority)))
        await asyncio.sleep(0.5)
    await first.release()
    await asyncio.gather(*tasks)
    assert order == ["high", "old", "young"]


@virtual_time
async def test_who_waits_too_long_leaves_the_queue(bed: Bed) -> None:
    one, two = await bed.process("one"), await bed.process("two")
    await one.locks.acquire(claim("a", shared=(POOL,)))
    began = asyncio.get_running_loop().time()
    with pytest.raises(Held):
        await two.locks.acquire(claim("b", POOL, WEB), wait=5)
    assert 5 <= asyncio.get_running_loop().time() - began < 6
    cancelled = two.inside.run(two.locks.acquire(claim("c", POOL, WEB), wait=50))
    await asyncio.sleep(2)
    cancelled.cancel()
    await asyncio.sleep(2)
    assert all(not parse(lease).waiters for lease in map(bed.lease, (POOL, WEB)) if lease)
    await one.locks.acquire(claim("d", shared=(POOL,)))


@virtual_time
async def test_a_lost_answer_does_not_take_twice(bed: Bed) -> None:
    one = await bed.process("one")
    one.faults.lost_replies = 0.6
    taken = 0
    for number in range(12):
        try:
            async with await one.locks.acquire(claim(f"a{number}", WEB, DB)) as grant:
                taken += 1
                assert held_by(bed, DB, WEB) == [[grant.claim.operation]] * 2
        except (errors.ApiError, Held, SessionLost):
            pass
        if one.session.lost:
            break
    one.faults.heal()
    await asyncio.sleep(30)
    assert taken
    assert one.session.lost or held_by(bed, WEB, DB) == [[], []]


@virtual_time
async def test_a_cancelled_claim_leaves_nothing_also_when_its_write_arrives_late(bed: Bed) -> None:
    one, two = await bed.process("one"), await bed.process("two")
    one.faults.slow = (0.3, 0.6)
    for number in range(8):
        task = one.inside.run(one.locks.acquire(claim(f"a{number}", WEB)))
        await asyncio.sleep(0.4 + number / 8)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and task.exception() is None:
            await task.result().release()
    one.faults.heal()
    await asyncio.sleep(20)
    await two.locks.acquire(claim("b", WEB))


@virtual_time
async def test_a_child_works_under_its_parent_and_releases_nothing(bed: Bed) -> None:
    one = await bed.process("one")
    parent = await one.locks.acquire(claim("a", WEB, shared=(POOL,)), scope=Scope.COMMAND)
    async with parent:
        async with await one.locks.acquire(claim("child", WEB), parent=parent) as child:
            child.check(1)
            assert child.token(WEB) == parent.token(WEB)
        with pytest.raises(GrantOver):
            child.check()
        with pytest.raises(NotCovered, match="wants Pool main"):
            parent.child(claim("child", POOL))
        with pytest.raises(NotCovered):
            parent.child(claim("child", shared=(DB,)))
        late = parent.child(claim("child", shared=(WEB,)))
    assert held_by(bed, WEB) == [["a"]]
    await parent.release()
    assert held_by(bed, WEB, POOL) == [[], []]
    with pytest.raises(GrantOver):
        late.check()


@virtual_time
async def test_scope_none_takes_nothing_but_needs_the_session(bed: Bed) -> None:
    one = await bed.process("one")
    async with await one.locks.acquire(claim("a", WEB), scope=Scope.NONE) as grant:
        grant.check(5)
        assert bed.lease(WEB) is None
        one.session.lose("test")
        with pytest.raises(SessionLost):
            grant.check()


@virtual_time
async def test_no_call_may_outlast_the_take_over(bed: Bed) -> None:
    one = await bed.process("one")
    grant = await one.locks.acquire(claim("a", WEB))
    assert 30 < grant.time_left() <= 38
    grant.check(30)
    with pytest.raises(CallTooLong):
        grant.check(39)


@virtual_time
async def test_the_dead_are_replayed_before_their_lock_is_anothers(bed: Bed) -> None:
    one, two = await bed.process("one"), await bed.process("two")
    await one.locks.acquire(claim("a", WEB, DB, shared=(POOL,)))
    died = asyncio.get_running_loop().time()
    one.kill()
    grant = await two.locks.acquire(claim("b", WEB), wait=120)
    waited = asyncio.get_running_loop().time() - died
    assert Timing().grace - Timing().interval <= waited < Timing().grace + 5
    [(abandoned, under)] = two.recovered
    assert (abandoned.operation, abandoned.process) == ("a", "pod one")
    assert [under.token(lockable) for lockable in (POOL, WEB, DB)] == [2, 2, 2] and under.taken_over
    assert grant.token(WEB) == 3 and not grant.taken_over
    assert held_by(bed, POOL, WEB, DB) == [[], ["b"], []]
    assert bed.server.get("Lease", "session.one", "default") is None


@virtual_time
async def test_what_cannot_be_settled_stays_held_until_it_can(bed: Bed) -> None:
    one, two, three = [await bed.process(name) for name in ("one", "two", "three")]
    await one.locks.acquire(claim("a", WEB, DB))
    one.kill()
    two.trouble = RuntimeError("the host does not answer")
    with pytest.raises(
        RecoveryFailed, match=r"a \(works on a\) was left by process pod one, .*: the host does not answer"
    ):
        await two.locks.acquire(claim("b", WEB), wait=120)
    assert held_by(bed, WEB, DB) == [["a"], ["a"]]
    grant = await three.locks.acquire(claim("c", DB))
    assert len(three.recovered) == 1
    assert held_by(bed, WEB, DB) == [[], ["c"]] and grant.token(DB) == 4


@virtual_time
async def test_the_same_operation_goes_on_without_the_hook(bed: Bed) -> None:
    one, two, three = [await bed.process(name) for name in ("one", "two", "three")]
    await one.locks.acquire(claim("a", WEB, DB))
    one.kill()
    grant = await two.locks.acquire(claim("a", WEB, DB), wait=120)
    assert grant.taken_over and not two.recovered and grant.token(WEB) == 2
    await grant.leave()
    assert held_by(bed, WEB, DB) == [["a"], ["a"]]
    three.trouble = RuntimeError("not now")
    with pytest.raises(Held, match="not now"):
        await three.locks.acquire(claim("b", WEB))
    again = await three.locks.acquire(claim("a", WEB, DB))
    assert again.taken_over and again.token(WEB) == 4
    await again.release()
    assert held_by(bed, WEB, DB) == [[], []]


@virtual_time
async def test_the_lost_release_nothing(bed: Bed) -> None:
    one = await bed.process("one")
    grant = await one.locks.acquire(claim("a", WEB))
    one.session.lose("test")
    with pytest.raises(SessionLost):
        grant.check()
    await grant.release()
    assert held_by(bed, WEB) == [["a"]]
    with pytest.raises(SessionLost):
        await one.locks.acquire(claim("b", DB))


@virtual_time
async def test_what_cannot_be_released_now_is_released_later(bed: Bed) -> None:
    one = await bed.process("one")
    grant = await one.locks.acquire(claim("a", WEB))
    one.faults.answers = {500: 1.0}
    released = one.inside.run(grant.release())
    await asyncio.sleep(6.5)
    assert held_by(bed, WEB) == [["a"]]
    one.faults.heal()
    await released
    await one.locks.close()
    assert held_by(bed, WEB) == [[]] and not one.session.lost


@virtual_time
async def test_a_deleted_objects_lease_goes_unless_it_is_held(bed: Bed) -> None:
    one = await bed.process("one")
    async with await one.locks.acquire(claim("a", WEB)):
        await one.locks.forget(WEB)
        assert bed.lease(WEB) is not None
    await one.locks.forget(WEB)
    await one.locks.forget(WEB)
    assert bed.lease(WEB) is None


@virtual_time
async def test_many_operations_on_few_objects_all_get_their_turn(bed: Bed) -> None:
    assert await crowd(bed, operations=40, objects=6) < 60
