"""What guest agents say, and when they are asked.

An agent is asked when it connects, twice again soon after (addresses come late), each minute while there is no
address, and then as often as the host is audited. An agent that hangs costs one thread of the slow lane for a few
seconds: at most one such question at a time is under way on a host.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import libvirt

from drivers.errors import HypervisorError
from drivers.libvirt.domains import AGENT_TIMEOUT, lookup
from drivers.model import GuestFacts, GuestInterfaceFacts

_NO_AGENT = frozenset({
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_NO_DOMAIN,
})  # fmt: skip

WITHOUT_ADDRESS_SECONDS = 60.0
FIRST_DELAYS = (0.0, 2.0, 3.0)
"""Seconds before each of the first questions: at once, 2 s and 5 s after the agent connected."""


def query(connection: libvirt.virConnect, uuid: str) -> GuestFacts | None:
    """Ask the agent, blocking for at most a few of its time-outs; None where none answers."""
    domain = lookup(connection, uuid)
    if domain is None:
        return None
    try:
        domain.agentSetResponseTimeout(AGENT_TIMEOUT)
        # 0: whatever this agent knows; naming the groups fails on agents that lack one of them.
        return read_guest(domain.guestInfo(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() in _NO_AGENT:
            return None
        raise


def read_guest(info: dict[str, Any]) -> GuestFacts:
    """Read libvirt's flat dictionary (`if.0.addr.1.addr` and the like). Pure."""
    interfaces = []
    for index in range(int(info.get("if.count", 0))):
        prefix = f"if.{index}"
        addresses = (
            str(info.get(f"{prefix}.addr.{number}.addr", ""))
            for number in range(int(info.get(f"{prefix}.addr.count", 0)))
        )
        shown = tuple(address for address in addresses if _worth_showing(address))
        name = str(info.get(f"{prefix}.name", ""))
        if name != "lo":
            interfaces.append(GuestInterfaceFacts(name, info.get(f"{prefix}.hwaddr"), shown))
    return GuestFacts(
        hostname=info.get("hostname"),
        os=info.get("os.pretty-name") or info.get("os.name"),
        interfaces=tuple(interfaces),
    )


def _worth_showing(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local)


def has_address(facts: GuestFacts | None) -> bool:
    """Whether the guest shows any address."""
    return facts is not None and any(interface.addresses for interface in facts.interfaces)


class GuestWatch:
    """Asks the agents of one host's domains, for as long as each is connected."""

    def __init__(self, ask: Callable[[str], Awaitable[GuestFacts | None]], audit_seconds: float) -> None:
        """ask: question one domain's agent and keep the answer; raises HypervisorError."""
        self._ask = ask
        self._audit_seconds = audit_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._one = asyncio.Semaphore(1)

    def watch(self, uuid: str, connected: bool) -> None:
        """Take note whether a domain's agent is connected."""
        task = self._tasks.get(uuid)
        if connected and (task is None or task.done()):
            self._tasks[uuid] = asyncio.get_running_loop().create_task(self._follow(uuid))
        elif not connected and task is not None:
            task.cancel()
            del self._tasks[uuid]

    def stop(self) -> None:
        """Ask nobody any more."""
        for uuid in list(self._tasks):
            self.watch(uuid, connected=False)

    async def _follow(self, uuid: str) -> None:
        silent = 0
        known = False
        for first in self._delays():
            pause = self._audit_seconds if known else min(WITHOUT_ADDRESS_SECONDS * 2**silent, self._audit_seconds)
            # Jitter keeps the agents of a host from being asked in step.
            await asyncio.sleep(pause * random.uniform(0.9, 1.1) if first is None else first)  # noqa: S311
            try:
                async with self._one:
                    facts = await self._ask(uuid)
            except HypervisorError:
                silent += 1
                continue
            silent = silent + 1 if facts is None else 0
            known = has_address(facts)

    @staticmethod
    def _delays() -> Iterator[float | None]:
        return itertools.chain(FIRST_DELAYS, itertools.repeat(None))
