"""Events of a connection, handed over to the asyncio loop. What an event says is not believed, only what is read
after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import libvirt

from drivers.libvirt.channel import close_soon


class Happening(StrEnum):
    """What an event was about, as far as somebody waits for it."""

    CHANGED = "changed"
    """Anything that a new reading of the domain will show."""
    STARTED = "started"
    STOPPED = "stopped"
    DEVICE_REMOVED = "device-removed"
    DEVICE_KEPT = "device-kept"
    """The guest refused to give a device up."""


@dataclass(frozen=True)
class Event:
    """One event of a domain."""

    happening: Happening
    uuid: str
    detail: int = 0
    """Of STOPPED: libvirt's number of the cause."""
    alias: str = ""
    """Of the device events."""


Sink = Callable[[Event], None]
"""Takes an event, in libvirt's thread; it must only hand it over."""

_CHANGES = (
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_TRAY_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_DISK_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
    libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
    libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
)


class EventConnection:
    """A connection that carries all events of a host and nothing else, until `close`."""

    def __init__(
        self,
        connection: libvirt.virConnect,
        sink: Sink,
        pool_changed: Callable[[], None],
        lost: Callable[[EventConnection], None],
    ) -> None:
        """Blocking. All callbacks are called in libvirt's thread. Raises libvirtError."""
        self._connection = connection
        with contextlib.suppress(libvirt.libvirtError):
            # Drivers within this process have no connection that could be lost.
            connection.registerCloseCallback(lambda *_: lost(self), None)
        self._domain_callbacks = [
            self._register(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, _lifecycle, sink),
            self._register(libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, _device_removed, sink),
            self._register(libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, _device_kept, sink),
            *(self._register(event, _changed, sink) for event in _CHANGES),
        ]
        self._pool_callbacks: list[int] = []
        # A daemon without a storage driver has no such events; its pools fail by themselves.
        with contextlib.suppress(libvirt.libvirtError):
            self._pool_callbacks.append(
                connection.storagePoolEventRegisterAny(
                    None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, _pool_lifecycle, pool_changed
                )
            )

    def close(self) -> None:
        """Deregister and close, soon. Never blocks."""
        close_soon(self._connection, self._deregister)

    def _deregister(self) -> None:
        """Blocking. A registered event keeps its connection, and its socket, from ever being closed."""
        deregister = [(self._connection.domainEventDeregisterAny, callback) for callback in self._domain_callbacks]
        deregister += [(self._connection.storagePoolEventDeregisterAny, callback) for callback in self._pool_callbacks]
        for call, callback in deregister:
            # The registration is gone on our side even where the daemon cannot be told.
            with contextlib.suppress(libvirt.libvirtError):
                call(callback)
        # It refuses when the close callback has been called already.
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.unregisterCloseCallback()

    def _register(self, event: int, callback: Callable[..., None], sink: Sink) -> int:
        return self._connection.domainEventRegisterAny(None, event, callback, sink)


def _lifecycle(connection: Any, domain: libvirt.virDomain, event: int, detail: int, sink: Sink) -> None:
    del connection
    happening = {
        libvirt.VIR_DOMAIN_EVENT_STARTED: Happening.STARTED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED: Happening.STOPPED,
    }.get(event, Happening.CHANGED)
    sink(Event(happening, domain.UUIDString(), detail=detail))


def _device_removed(connection: Any, domain: libvirt.virDomain, alias: str, sink: Sink) -> None:
    del connection
    sink(Event(Happening.DEVICE_REMOVED, domain.UUIDString(), alias=alias))


def _device_kept(connection: Any, domain: libvirt.virDomain, alias: str, sink: Sink) -> None:
    del connection
    sink(Event(Happening.DEVICE_KEPT, domain.UUIDString(), alias=alias))


def _changed(connection: Any, domain: libvirt.virDomain, *details: Any) -> None:
    del connection
    sink: Sink = details[-1]
    sink(Event(Happening.CHANGED, domain.UUIDString()))


def _pool_lifecycle(
    connection: Any, pool: libvirt.virStoragePool, event: int, detail: int, changed: Callable[[], None]
) -> None:
    del connection, pool, event, detail
    changed()
