"""The example in docs/tasks.md, as it stands there."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.operations import Operation, Request, Target
from simulator import loop as virtual
from simulator.operating import OperationWorld

PAGE = Path(__file__).parents[3] / "docs" / "tasks.md"


@dataclass
class File:
    size: int
    since: float | None = None
    maker: str = "somebody"

    @property
    def percent(self) -> int:
        return 100 if self.since is None else min(100, int((asyncio.get_running_loop().time() - self.since) * 10))

    @property
    def whole(self) -> bool:
        return self.percent == 100


class Shelf:
    def __init__(self) -> None:
        self.files = {"a": File(700)}
        self.free = 1000
        self.deaf = False

    async def stat(self, name: str) -> File | None:
        return self.files.get(name)

    async def copy(self, source: str, name: str, maker: str, timeout: float) -> None:
        now = asyncio.get_running_loop().time()
        self.files.setdefault(name, File(self.files[source].size, now, maker))
        if self.deaf:
            raise ConnectionError("the shelf hung up")

    async def remove(self, name: str, timeout: float) -> None:
        self.files.pop(name, None)

    async def rename(self, old: str, new: str, timeout: float) -> bool:
        if new in self.files:
            return False
        self.files[new] = self.files.pop(old)
        return True


def example() -> Operation[Any]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    operation: Operation[Any] = names["CopyFile"]()
    return operation


def copy_file(name: str = "a", **parameters: Any) -> Request:
    return Request("CopyFile", Target("File", "default", name, "uid-a"), {"name": "b"} | parameters)


@pytest.mark.parametrize(
    ("request_", "shelf", "phase", "left"),
    [
        (copy_file(), {}, "Succeeded", {"a", "b"}),
        (copy_file(), {"deaf": True}, "Succeeded", {"a", "b"}),
        (copy_file(name="x"), {}, "Failed", {"a"}),
        (copy_file(), {"free": 1}, "Failed", {"a"}),
        (copy_file(), {"files": {"a": File(7), "b": File(8)}}, "RolledBack", {"a", "b"}),
    ],
)
def test_the_example_on_the_page(request_: Request, shelf: dict[str, Any], phase: str, left: set[str]) -> None:
    async def inside() -> None:
        world_of_files = Shelf()
        vars(world_of_files).update(shelf)
        world = OperationWorld(1, types=(example(),), hands=world_of_files)
        world.process()
        name = await world.ask(request_)
        await world.ended(name)
        await asyncio.sleep(5)
        assert (world.phase(name), set(world_of_files.files)) == (phase, left)
        assert world.holders() == []

    virtual.run(inside())


def test_the_example_is_taken_back_when_it_is_deleted() -> None:
    async def inside() -> None:
        shelf = Shelf()
        world = OperationWorld(1, types=(example(),), hands=shelf)
        world.process()
        name = await world.ask(copy_file())
        await world.until(lambda: len(shelf.files) == 2)
        world.delete(name)
        await world.until(lambda: world.phase(name) == "Gone", 30)
        assert set(shelf.files) == {"a"}

    virtual.run(inside())


def test_the_page_names_every_reason() -> None:
    sources = "".join(
        path.read_text() for path in (PAGE.parents[1] / "engine" / "operations").glob("*.py") if path.stem != "__init__"
    )
    reasons = set(re.findall(r'(?:stuck\(self\.journal, |say_waiting\(obj, |_wait\()"([A-Z]\w+)"', sources))
    assert {"TakesLong", "UnknownType", "CannotPlan", "Waiting", "UnknownStep"} <= reasons
    assert not [reason for reason in reasons if f"`{reason}`" not in PAGE.read_text()]
