"""The list of checks, and how one is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from drivers.contract import block_checks, connection_checks, device_checks, domain_checks, fault_checks, storage_checks
from drivers.contract.bed import Bed

CHECK_SECONDS = 240.0
"""No check may take longer, whatever the host does."""

_MODULES = (connection_checks, domain_checks, device_checks, storage_checks, block_checks, fault_checks)


@dataclass(frozen=True)
class Check:
    """One promise and how it is tried."""

    name: str
    promise: str
    """What the driver promises, in a sentence."""
    run: Callable[[Bed], Awaitable[None]]
    needs_faults: bool


@dataclass(frozen=True)
class Outcome:
    """What a check came to; error is None when the promise was kept."""

    check: Check
    seconds: float
    error: BaseException | None


class Contract:
    """All that a driver promises."""

    @staticmethod
    def checks() -> tuple[Check, ...]:
        """Every check there is, in a good order."""
        return tuple(
            Check(
                name=run.__name__,
                promise=" ".join((run.__doc__ or "").split()),
                run=run,
                needs_faults=module is fault_checks,
            )
            for module in _MODULES
            for run in module.CHECKS
        )

    @staticmethod
    async def run_check(bed: Bed, check: Check) -> None:
        """Run one check on a clean bed and clean up after it. Raises what it found."""
        async with asyncio.timeout(CHECK_SECONDS):
            await bed.settle()
            try:
                await check.run(bed)
            finally:
                await bed.clean()

    @classmethod
    async def run(cls, bed: Bed, checks: Sequence[Check] | None = None) -> list[Outcome]:
        """Run checks (all that the bed can run), each whatever became of the others."""
        outcomes = []
        for check in cls.checks() if checks is None else checks:
            if check.needs_faults and bed.faults is None:
                continue
            begun = asyncio.get_running_loop().time()
            error: BaseException | None = None
            try:
                await cls.run_check(bed, check)
            except Exception as found:
                error = found
            outcomes.append(Outcome(check, asyncio.get_running_loop().time() - begun, error))
        return outcomes
