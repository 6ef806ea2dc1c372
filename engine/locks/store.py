"""The Lease of a lock in the API: read, and changed by compare-and-set only.

A write without an answer may still be under way. It is settled by the next write: that one carries the same version, so
only one of both can be taken.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from engine import errors
from engine.clock import Clock, micro_timestamp
from engine.keys import Object
from engine.kube import LEASES, KubeClient
from engine.locks.errors import Held
from engine.locks.record import ANNOTATION, SUBJECT, Lockable, Record, parse, render

_LARGEST = 200_000
"""Bytes of a record; annotations may take 262,144 together."""
_REMEMBERED = 500
"""Locks whose Lease is kept as we wrote it: who locks them again need not read first."""
_PAUSE = (0.005, 0.02)
_LONGEST_PAUSE = 1.0

Transition = Callable[[Record], Record]
"""The record as it should be; idempotent. It may raise, and then nothing is written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was last seen of one lock. `lease`: None before its first grant."""

    record: Record
    lease: Object | None = None


class LockStore:
    """Lock Leases of one namespace."""

    def __init__(self, client: KubeClient, namespace: str, clock: Clock, rng: random.Random, patience: float) -> None:
        """`patience`: seconds for one change, with all its repetitions."""
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._rng = rng
        self._patience = patience
        self._last: OrderedDict[str, Stored] = OrderedDict()

    def last(self, lockable: Lockable) -> Stored | None:
        """As we wrote it last, or None. Others may have written since; compare-and-set finds out."""
        return self._last.get(lockable.lease_name)

    async def read(self, lockable: Lockable) -> Stored:
        """From the server. An ApiError, or Unreadable."""
        self._last.pop(lockable.lease_name, None)
        try:
            lease = await self._client.get(LEASES, self._namespace, lockable.lease_name)
        except errors.NotFound:
            return Stored(Record())
        return Stored(parse(lease), lease)

    async def change(
        self,
        lockable: Lockable,
        transition: Transition,
        *,
        known: Stored | None = None,
        settle: bool = False,
        patience: float = 0.0,
    ) -> Stored:
        """What is stored once the transition has been made, or what is there already if it changes nothing.

        `known`: seen before, so that it need not be read. `settle`: write in any case, for an earlier write of ours may
        still be under way. `patience`: seconds, if more than usual. An ApiError when it did not come about in time:
        then it may come about later.
        """
        until = self._clock.monotonic() + max(self._patience, patience)
        pause = self._rng.uniform(*_PAUSE)
        stored = known
        while True:
            try:
                async with asyncio.timeout(until - self._clock.monotonic()):
                    stored = stored if stored is not None else await self.read(lockable)
                    wanted = transition(stored.record)
                    if wanted == stored.record and not settle:
                        return stored
                    return await self._write(lockable, stored, wanted)
            except TimeoutError as error:
                message = f"{lockable.lease_name}: no answer in {self._patience:g} s"
                raise errors.ServerUnavailable(0, "Timeout", message) from error
            except (errors.Conflict, errors.AlreadyExists, errors.NotFound) as error:
                failure: errors.ApiError = error
            except errors.TooManyRequests as error:
                failure, pause = error, max(pause, error.retry_after)
            except errors.ServerUnavailable as error:
                failure = error
            if self._clock.monotonic() + pause > until:
                raise failure
            await asyncio.sleep(pause)
            pause = min(pause * self._rng.uniform(1.5, 2.5), _LONGEST_PAUSE)
            stored = None

    async def _write(self, lockable: Lockable, stored: Stored, record: Record) -> Stored:
        annotation, holder = render(record)
        if len(annotation) > _LARGEST:
            raise Held((f"{lockable} is held or waited for by as many as a Lease can name",))
        now = micro_timestamp(self._clock.now())
        old = stored.lease
        spec: Object = {"leaseTransitions": record.token, "renewTime": now}
        if holder:
            spec |= {"holderIdentity": holder, "acquireTime": now}
            if old is not None and record.token == stored.record.token:
                spec["acquireTime"] = old["spec"].get("acquireTime", now)
        annotations = {ANNOTATION: annotation, SUBJECT: str(lockable)}
        if old is None:
            metadata = {"name": lockable.lease_name, "namespace": self._namespace, "annotations": annotations}
            new = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
            return self._remember(lockable, Stored(record, await self._client.create(LEASES, new)))
        metadata = {**old["metadata"], "annotations": {**(old["metadata"].get("annotations") or {}), **annotations}}
        new = {**old, "metadata": metadata, "spec": spec}
        return self._remember(lockable, Stored(record, await self._client.replace(LEASES, new)))

    def _remember(self, lockable: Lockable, stored: Stored) -> Stored:
        self._last[lockable.lease_name] = stored
        self._last.move_to_end(lockable.lease_name)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return stored
