"""A process's sign of life: when it counts, when it is lost, and how others judge it."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from engine.clock import BootClock, LoopClock
from engine.kube import LEASES, KubeClient
from engine.locks import Session, SessionLost, SessionThread, Timing
from engine.locks.witness import Witness
from engine.transport import Transport
from simulator.apiserver import ApiServer
from simulator.channel import ApiChannel, Faults
from simulator.doors import OpenGate
from simulator.loop import Scope as Inside
from tests.unit.engine.locking import NAMESPACE, Bed, run

QUICK = Timing(duration=2, validity=0.8, interval=0.1, request=0.2, longest_call=1.0)


def test_one_write_an_interval_and_never_out_of_date() -> None:
    async def inside() -> None:
        bed = Bed()
        one = await bed.process("one")
        for _ in range(60):
            await asyncio.sleep(1)
            assert one.session.remaining() > one.session.timing.validity - one.session.timing.interval - 0.1
        assert 27 <= bed.writes("session.") <= 31

    run(inside())


def test_the_term_counts_from_the_sending() -> None:
    async def inside() -> None:
        bed = Bed()
        one = await bed.process("one", Timing(request=5.0, validity=8.0, interval=2.0))
        one.faults.slow = (1.0, 1.0)
        longest = 0.0
        for _ in range(300):
            await asyncio.sleep(0.1)
            if asyncio.get_running_loop().time() > 9:
                longest = max(longest, one.session.remaining())
        assert 0 < longest < 8 - 2, "an answer that took two seconds is two seconds old"

    run(inside())


@pytest.mark.parametrize("fault", ["silent", "away", "errors", "conflicts"])
def test_without_answers_it_is_lost_at_its_time_and_stays_lost(fault: str) -> None:
    async def inside() -> None:
        bed = Bed()
        one = await bed.process("one")
        said: list[str] = []
        one.session.when_lost(said.append)
        await asyncio.sleep(3)
        one.faults.silent, one.faults.away = fault == "silent", fault == "away"
        one.faults.answers = {"errors": {500: 1.0}, "conflicts": {409: 1.0}}.get(fault, {})
        began = asyncio.get_running_loop().time()
        while not said:
            await asyncio.sleep(0.05)
        assert 5.5 < asyncio.get_running_loop().time() - began < 8.3
        one.faults.heal()
        await asyncio.sleep(30)
        assert said == ["it was not renewed in time"] and one.session.lost
        with pytest.raises(SessionLost):
            one.session.check()

    run(inside())


def test_some_trouble_does_not_end_it() -> None:
    async def inside() -> None:
        bed = Bed()
        one = await bed.process("one")
        one.faults.lost_replies, one.faults.answers = 0.1, {409: 0.1, 500: 0.1}
        await asyncio.sleep(120)
        assert not one.session.lost

    run(inside())


def test_whoever_deletes_its_lease_ends_it() -> None:
    async def inside() -> None:
        bed = Bed()
        one = await bed.process("one")
        lease = await one.client.get(LEASES, NAMESPACE, "session.one")
        bed.server.erase(next(key for key, _ in bed.server.stored() if key.name == "session.one"))
        await one.client.create(LEASES, {**lease, "metadata": {"name": "session.one", "namespace": NAMESPACE}})
        await asyncio.sleep(2.5)
        assert one.session.lost

    run(inside())


def test_an_identity_is_used_once() -> None:
    async def inside() -> None:
        bed = Bed()
        one = await bed.process("one")
        with pytest.raises(SessionLost, match="was used before"):
            await bed.process("one")
        await one.session.close(one.client)
        assert one.session.lost and bed.server.get("Lease", "session.one", NAMESPACE) is None

    run(inside())


def test_it_opens_although_an_answer_is_lost() -> None:
    async def inside() -> None:
        bed = Bed()
        opening = asyncio.create_task(bed.process("one"))
        await asyncio.sleep(0)
        one = await opening
        again = Session("two", NAMESPACE, process="pod", clock=LoopClock())
        one.faults.lost_replies = 1.0
        task = asyncio.create_task(again.open(one.client))
        await asyncio.sleep(1.7)
        one.faults.heal()
        await task
        assert again.remaining() > 7

    run(inside())


def test_others_are_judged_by_what_changes_not_by_timestamps() -> None:
    async def inside() -> None:
        bed = Bed()
        one, two = await bed.process("one"), await bed.process("two")
        witness = Witness(two.client, NAMESPACE, two.clock)
        for _ in range(20):
            assert await witness.silent("one") == 0
            await asyncio.sleep(5)
        one.inside.frozen = True
        last = asyncio.get_running_loop().time()
        assert await witness.silent("one") == 0
        await asyncio.sleep(9.9)
        assert await witness.silent("one") == 0
        assert not one.session.lost or asyncio.get_running_loop().time() - last > 7
        await asyncio.sleep(2.2)
        assert await witness.silent("one") == pytest.approx(12.1, abs=0.2)
        assert bed.server.get("Lease", "session.one", NAMESPACE) is None
        # Another one, who sees only now that it is gone, counts from now.
        late = Witness(two.client, NAMESPACE, two.clock)
        assert await late.silent("one") < 0.1
        asyncio.get_running_loop().thaw(one.inside)  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
        with pytest.raises(SessionLost):
            one.session.check()

    run(inside())


@pytest.mark.parametrize("timing", [{"validity": 10.0}, {"interval": 7.0}])
def test_times_that_prove_nothing_are_refused(timing: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        Timing(**timing)


class Server:
    """A simulated server that lives in whatever loop asks it."""

    def __init__(self) -> None:
        self.stall = 0.0
        self.threads: set[str] = set()

    async def connect(self) -> KubeClient:
        self.threads.add(threading.current_thread().name)
        rng = random.Random(1)
        self.server = ApiServer(LoopClock(), asyncio.get_running_loop().call_later, rng)
        channel = ApiChannel(self.server, Faults(), Inside("thread"), OpenGate(), rng)
        handle = self.server.handle

        def slow(*arguments):
            time.sleep(self.stall)
            return handle(*arguments)

        self.server.handle = slow  # type: ignore[method-assign]
        return KubeClient(Transport(channel))


async def test_a_stalled_process_keeps_its_session_and_a_stalled_thread_loses_it() -> None:
    server = Server()
    session = Session("one.1", NAMESPACE, process="pod", timing=QUICK)
    thread = SessionThread(session, server.connect)
    await thread.start()
    time.sleep(1.2)  # this loop stands still, for longer than the session is valid
    session.check()
    assert server.threads == {"session"}
    server.stall = 1.5
    time.sleep(1.2)
    with pytest.raises(SessionLost):
        session.check()
    server.stall = 0.0
    await thread.stop()
    assert session.lost


async def test_an_orderly_end_takes_the_lease_along() -> None:
    server = Server()
    session = Session("one.2", NAMESPACE, process="pod", timing=QUICK)
    thread = SessionThread(session, server.connect)
    await thread.start()
    session.check()
    assert server.server.get("Lease", "session.one.2", NAMESPACE)["spec"]["holderIdentity"] == "one.2"  # type: ignore[index]
    await thread.stop()
    assert session.lost and server.server.get("Lease", "session.one.2", NAMESPACE) is None


async def test_a_thread_that_cannot_begin_says_why() -> None:
    async def refuse() -> KubeClient:
        raise ValueError("no kubeconfig")

    thread = SessionThread(Session("one.3", NAMESPACE, process="pod"), refuse)
    with pytest.raises(ValueError, match="no kubeconfig"):
        await thread.start()


def test_the_boot_clock_runs() -> None:
    before = BootClock().monotonic()
    assert 0 <= BootClock().monotonic() - before < 5
