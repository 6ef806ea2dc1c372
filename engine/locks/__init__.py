"""Locks on objects, between all work of all processes: which work may touch what, now.

A process has one *session* (`Session`, kept by a `SessionThread`); all its locks live as long as that. An operation
makes a *claim* of all the locks that it needs and gets all of them or none, as a *grant*:

    claim = Claim(
        "default/nightly", "takes a snapshot of web", exclusive=[web], shared=[base], priority=5, since=created
    )
    async with await locks.acquire(claim, wait=60) as grant:
        if grant.taken_over:
            ...                              # an earlier process worked on this: see what it did, then go on
        grant.check(20)                      # right before each call, with that call's deadline in seconds
        await host.do_something(timeout=20, name=f"overlay-{grant.token(web)}")

`Held` says in words for the user who stands in the way; `SessionLost` means: stop, touch nothing, another process will
look after it. What is written to an object carries `grant.token(of)`, and what carries a lower one is refused there: no
check in a process can do that for it, because the process may be frozen right after.

How long: `Scope.EXECUTION` until the `async with` ends; `Scope.COMMAND` until `grant.release()` (the work goes on in
the background; children get `parent=grant` and work under the same locks, which they never release); `Scope.NONE` takes
none. A process that ends in good order with work unfinished calls `grant.leave()`: the same operation has the locks
again at once, in whichever process it goes on. After a crash it has them after `Timing.grace`, as `taken_over`; whoever
else wants one of them by then has the work replayed or rolled back first, through the `Recover` that `Locks` was made
with.

At the start, in the process's event loop:

    session = Session(f"{pod_uid}.{secrets.token_hex(4)}", namespace, process=pod_name)
    thread = SessionThread(session, lambda: KubeClient.from_kubeconfig(path))
    await thread.start()                     # alive from here on; session.when_lost(…) tells the end
    locks = Locks(client, session, namespace=namespace, recover=replay_or_roll_back)
    …
    await locks.close()                      # at the end: after the grants were released or left
    await thread.stop()

An object that is deleted for good: `locks.forget(lockable)` removes its Lease.
"""

from engine.locks.errors import (
    CallTooLong,
    GrantOver,
    Held,
    LockError,
    NotCovered,
    RecoveryFailed,
    SessionLost,
    Unreadable,
)
from engine.locks.grant import Abandoned, Claim, Grant, Recover, Scope
from engine.locks.manager import Locks
from engine.locks.record import Lockable
from engine.locks.session import Session, SessionThread, Timing

__all__ = [
    "Abandoned",
    "CallTooLong",
    "Claim",
    "Grant",
    "GrantOver",
    "Held",
    "LockError",
    "Lockable",
    "Locks",
    "NotCovered",
    "Recover",
    "RecoveryFailed",
    "Scope",
    "Session",
    "SessionLost",
    "SessionThread",
    "Timing",
    "Unreadable",
]
