"""A VM's power: when it should run, what a person asked for once, and what was decided of both."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import ConfigDict, Field

from crds.base import Model, Rule, rules


class RunPolicy(StrEnum):
    """When the VM should run."""

    ALWAYS = "Always"
    RERUN_ON_FAILURE = "RerunOnFailure"
    MANUAL = "Manual"
    HALTED = "Halted"


class PowerAction(StrEnum):
    """What a person can ask for once."""

    START = "Start"
    SHUTDOWN = "Shutdown"
    FORCE_OFF = "ForceOff"
    REBOOT = "Reboot"
    RESET = "Reset"
    PAUSE = "Pause"
    RESUME = "Resume"


class PowerRequest(Model):
    """Something asked for once; a new id is a new request."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "self.id != oldSelf.id || self.action == oldSelf.action",
                "must be a new one for another action: a request is carried out once an id",
                field_path=".id",
            )
        )
    )

    id: str = Field(min_length=1, max_length=64)
    """Any text; the request is carried out when it differs from the last one. An id that is there when the object is
    created is recorded and never carried out, so that re-applied manifests reboot nothing."""
    action: PowerAction
    """Start, Shutdown (by the guest), ForceOff, Reboot (by the guest), Reset, Pause or Resume."""


class PowerState(StrEnum):
    """Whether the VM should run now."""

    ON = "On"
    OFF = "Off"


class Power(Model):
    """Whether the VM should run now, and why: the run policy, applied to what has happened so far."""

    state: PowerState
    """On or Off."""
    reason: str
    """RunPolicy, PowerRequest, ForceOff (a power request too), GuestShutdown or Crashed."""
    run_policy: RunPolicy
    """The policy that this was decided under."""
    since: datetime
    """When it was decided."""


class PowerRequestPhase(StrEnum):
    """How far a power request is."""

    RECORDED = "Recorded"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    REFUSED = "Refused"


class PowerRequestStatus(Model):
    """The last power request that was seen."""

    id: str
    """Its id."""
    phase: PowerRequestPhase
    """Recorded (there when the object was created), Running, Succeeded or Refused."""
    message: str | None = None
    """Why it was refused."""
    completed_at: datetime | None = None
    """When it was done."""
