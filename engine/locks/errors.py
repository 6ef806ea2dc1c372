"""What can go wrong with locks, typed by what to do next.

EngineError
  LockError
    Held                 somebody else has it, or comes first; the message says who, for the user: try again later
      RecoveryFailed     the holder is dead, and what it left could not be settled: `__cause__` says why; try later
    SessionLost          this process may no longer act under any of its locks: end the work, touch nothing
    GrantOver            this grant was released: a bug of the caller
    CallTooLong          the call could outlast the lock: shorten it, or wait for the session's next renewal
    NotCovered           a child wants what its parent does not hold: a bug of the caller
    Unreadable           the Lease does not say what it should: a person changed it, and must look
"""

from engine.errors import EngineError


class LockError(EngineError):
    """Root of everything that locks raise on purpose, but for ApiErrors."""


class Held(LockError):
    """`blockers`: one line each for whoever stands in the way, ready for a user. `operations`: their names."""

    def __init__(self, blockers: tuple[str, ...], operations: tuple[str, ...] = ()) -> None:
        super().__init__("; ".join(blockers))
        self.blockers = blockers
        self.operations = operations


class RecoveryFailed(Held):
    """Left by a process that is dead; replaying it or rolling it back did not end well."""


class SessionLost(LockError):
    """For this process for ever: whatever it holds belongs to whoever takes it over."""


class GrantOver(LockError):
    """It was released, or its parent's was."""


class CallTooLong(LockError):
    """Another process could be given the lock before the call has ended."""


class NotCovered(LockError):
    """The parent holds no such lock, or shares one that the child wants alone."""


class Unreadable(LockError):
    """Not taken for free: nobody knows who holds it."""
