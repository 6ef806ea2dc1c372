"""libvirt's own event loop, in one daemon thread for the whole process.

Keepalive and events need a loop that libvirt knows before the first connection is opened. libvirt's default loop in a
thread of its own is used, and not its asyncio binding: that one touches the asyncio loop from whichever thread makes
a call. Callbacks therefore run in this thread, one after another for all hosts: they may only hand over to the
asyncio loop.
"""

from __future__ import annotations

import threading
from typing import Any

import libvirt

_lock = threading.Lock()
_users = 0
_thread: threading.Thread | None = None
_registered = False


def acquire() -> None:
    """Have the loop running from now until the matching `release`. Call it before a connection is opened."""
    global _users, _thread, _registered
    with _lock:
        if not _registered:
            # libvirt writes each error to stderr unless somebody takes it; ours travel as exceptions.
            libvirt.registerErrorHandler(_swallow, None)
            libvirt.virEventRegisterDefaultImpl()
            _registered = True
        _users += 1
        if _thread is None:
            _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
            _thread.start()


def release() -> None:
    """One user less; the last one ends the thread and waits for it."""
    global _users, _thread
    with _lock:
        _users -= 1
        if _users > 0 or _thread is None:
            return
        ending, _thread = _thread, None
    # The loop sleeps until something happens: a timeout that is due at once is what wakes it.
    wake = libvirt.virEventAddTimeout(0, _nothing, None)
    ending.join(timeout=5)
    libvirt.virEventRemoveTimeout(wake)


def _run() -> None:
    me = threading.current_thread()
    while _thread is me:
        libvirt.virEventRunDefaultImpl()


def _nothing(timer: int, opaque: Any) -> None:
    del timer, opaque


def _swallow(context: Any, error: tuple[Any, ...]) -> None:
    del context, error
