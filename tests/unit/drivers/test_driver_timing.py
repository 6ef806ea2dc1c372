"""When things are asked, in virtual time."""

import asyncio
import itertools

import pytest

from drivers.errors import HostTimeout
from drivers.libvirt.guest import GuestWatch
from drivers.model import GuestFacts, GuestInterfaceFacts
from drivers.pauses import FIRST_DELAY, LAST_DELAY, delays
from drivers.reader import RETRY_SECONDS, Reader
from tests.virtual_time import virtual_time

pytestmark = virtual_time

ADDRESS = GuestFacts("web", None, (GuestInterfaceFacts("eth0", None, ("192.0.2.1",)),))
NONE_YET = GuestFacts("web", None, (GuestInterfaceFacts("eth0", None, ()),))


class Agent:
    """Answers in turn; the last answer again and again."""

    def __init__(self, *answers: GuestFacts | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []

    async def __call__(self, uuid: str) -> GuestFacts | None:
        assert uuid == "a"
        self.asked.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def watched(agent: Agent, seconds: float) -> list[float]:
    begun = asyncio.get_running_loop().time()
    watch = GuestWatch(agent, 300)
    watch.watch("a", connected=True)
    watch.watch("a", connected=True)
    await asyncio.sleep(seconds)
    watch.stop()
    await asyncio.sleep(1000)
    return [time - begun for time in agent.asked]


async def test_an_agent_is_asked_at_once_and_soon_again() -> None:
    asked = await watched(Agent(ADDRESS), 200)
    assert asked[:3] == pytest.approx([0, 2, 5])
    assert len(asked) == 3, "with an address known, the next question is the audit's"


async def test_without_an_address_an_agent_is_asked_each_minute() -> None:
    asked = await watched(Agent(*[NONE_YET] * 5, ADDRESS), 450)
    assert 54 <= asked[3] - asked[2] <= 66
    assert len(asked) == 6, "and seldom once there is one"


async def test_an_agent_that_hangs_is_asked_ever_less() -> None:
    asked = await watched(Agent(HostTimeout("no answer")), 3600)
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert pauses[-1] > 250
    assert len(asked) < 20


async def test_an_agent_that_left_is_not_asked() -> None:
    agent = Agent(NONE_YET)
    watch = GuestWatch(agent, 300)
    watch.watch("a", connected=True)
    await asyncio.sleep(1)
    watch.watch("a", connected=False)
    await asyncio.sleep(1000)
    assert len(agent.asked) == 1


async def test_requests_to_read_are_joined_and_none_is_lost() -> None:
    begun: list[str] = []

    async def read(uuid: str) -> None:
        begun.append(uuid)
        await asyncio.sleep(1)

    reader = Reader(read, lambda: None)
    for _ in range(5):
        reader.request("a")
    reader.request("b")
    await asyncio.sleep(0.5)
    reader.request("a")
    reader.request("a")
    await asyncio.sleep(5)
    assert sorted(begun) == ["a", "a", "b"], "one reading, and one more for what came during it"
    assert not reader.behind


async def test_a_failed_reading_is_repeated_until_it_works() -> None:
    times: list[float] = []

    async def read(uuid: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise HostTimeout(f"{uuid} does not answer")

    told: list[bool] = []
    reader = Reader(read, lambda: told.append(reader.behind))
    reader.request("a")
    assert not reader.behind, "a reading under way is no failure"
    await asyncio.sleep(RETRY_SECONDS * 2.5)
    assert reader.behind, "what is known is not up to date"
    await asyncio.sleep(RETRY_SECONDS * 5)
    assert len(times) == 4
    assert not reader.behind
    assert told == [True, True, True, False]


async def test_a_reset_forgets_what_was_to_be_read() -> None:
    async def read(uuid: str) -> None:
        await asyncio.sleep(10)
        raise AssertionError(f"{uuid} was read all the same")

    reader = Reader(read, lambda: None)
    reader.request("a")
    reader.request("a")
    await asyncio.sleep(1)
    reader.reset()
    assert not reader.behind
    await asyncio.sleep(100)


async def test_tries_to_connect_slow_down_and_never_end() -> None:
    pauses = delays()
    found = [next(pauses) for _ in range(50)]
    assert 0.8 * FIRST_DELAY <= found[0] <= 1.2 * FIRST_DELAY
    assert all(0.8 * LAST_DELAY <= pause <= 1.2 * LAST_DELAY for pause in found[10:])
    assert len({round(pause, 6) for pause in found[10:]}) > 10, "with jitter"
