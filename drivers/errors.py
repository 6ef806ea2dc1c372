"""What a host, or the way to it, can answer instead of doing what it was asked: typed by what to do next.

HypervisorError
├── HostUnavailable      nobody knows whether the call had an effect, or the host cannot be asked: wait for the host
│   ├── NotConnected     there is no connection now: raised at once, never after a wait
│   └── HostTimeout      no answer within the deadline
├── ConnectFailed        the connection was refused for a reason that a person must mend (`reason`: BadURI,
│                        TLSRefused, AuthFailed, HostKeyUnknown, Unresolvable, Unreachable, CredentialsIncomplete)
├── Refused              the host said no, and nothing has changed (`reason`: InvalidDomain, NoSuchBridge,
│   │                    VolumeMissing, VolumeInUse, NoMemory, Unsupported, AlreadyRunning, TrayLocked, NoTray,
│   │                    NoHotPlug, AgentNotConnected, AgentUnresponsive, ChainDiffers, BlockJobActive, NoBlockJob,
│   │                    JobNotReady, OperationFailed)
│   ├── NotFound         there is no such domain, pool, volume or device
│   └── AlreadyExists    there is one already, and it is not the same (a UUID or name that is taken)
└── StorageFull          no space left on the host's storage
"""

from __future__ import annotations


class HypervisorError(Exception):
    """Anything a host, or the way to it, can answer."""

    def __init__(self, message: str, *, reason: str = "OperationFailed") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class HostUnavailable(HypervisorError):
    """Nobody knows whether the call had an effect."""


class NotConnected(HostUnavailable):
    """There is no connection to the host now."""


class HostTimeout(HostUnavailable):
    """No answer within the deadline."""


class ConnectFailed(HypervisorError):
    """The connection was refused for a reason that a person must mend."""


class Refused(HypervisorError):
    """The host said no, and nothing has changed."""


class NotFound(Refused):
    """There is no such domain, pool, volume or device."""


class AlreadyExists(Refused):
    """There is one already, and it is not the same."""


class StorageFull(HypervisorError):
    """No space left on the host's storage."""
