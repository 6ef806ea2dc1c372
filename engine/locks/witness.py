"""Whether the sessions of others are alive: judged by what is seen to change, on our own clock, never by timestamps."""

from dataclasses import dataclass

from engine import errors
from engine.clock import Clock
from engine.keys import Key
from engine.kube import LEASES, KubeClient
from engine.locks.record import LEFT
from engine.locks.session import lease_name

_LOOK_EVERY = 1.0
"""Seconds; many may ask about one session."""

_Version = tuple[str, str]
"""uid and resourceVersion"""


@dataclass(slots=True)
class _Seen:
    version: _Version | None
    """None: there is no such Lease, so it can never be renewed again (an identity is used once)."""
    at: float
    """When the answer of the first look that showed this had come."""
    duration: float = 0.0
    looked: float = 0.0
    """When it was last looked for."""


class Witness:
    """Remembers what it saw of each session; looks only when it is asked."""

    def __init__(self, client: KubeClient, namespace: str, clock: Clock) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    async def silent(self, identity: str) -> float:
        """Seconds since the last possible sign of life of a session that is surely lost; 0 while it may be alive.

        Looks at the Lease once. An unchanged one is deleted as it is, so that what was found is true from then on.
        """
        if identity == LEFT:
            return float("inf")
        seen = self._seen.get(identity)
        now = self._clock.monotonic()
        if seen is None or (seen.version is not None and now >= seen.looked + _LOOK_EVERY):
            if seen is not None:
                seen.looked = now
            seen = self._seen[identity] = await self._look(identity, seen)
        return self._clock.monotonic() - seen.at if seen.version is None else 0.0

    async def _look(self, identity: str, before: _Seen | None) -> _Seen:
        sent = self._clock.monotonic()
        name = lease_name(identity)
        try:
            lease = await self._client.get(LEASES, self._namespace, name)
        except errors.NotFound:
            return _Seen(None, self._clock.monotonic())
        metadata = lease["metadata"]
        version = (metadata["uid"], metadata["resourceVersion"])
        if before is None or before.version != version:
            now = self._clock.monotonic()
            return _Seen(version, now, float(lease["spec"]["leaseDurationSeconds"]), looked=now)
        if sent < before.at + before.duration:
            return before
        return await self._end(name, version, before)

    async def _end(self, name: str, version: _Version, seen: _Seen) -> _Seen:
        """Delete the Lease of a session that was silent for too long, unless it moves after all."""
        uid, resource_version = version
        try:
            key = Key(LEASES.kind, self._namespace, name)
            await self._client.delete(LEASES, key, uid=uid, resource_version=resource_version)
        except errors.NotFound:
            return _Seen(None, self._clock.monotonic())
        except errors.ApiError:
            return seen  # the next look tells
        return _Seen(None, seen.at)
