"""Asking what is to be done about a VM, in a few words."""

from __future__ import annotations

from typing import Any

from crds.virtual_machine import VirtualMachine
from drivers.model import DomainState, Identity, StopReason
from reconcilers.ownership import MayStart, Ownership, RunsOn
from reconcilers.virtual_machine.decide import decide
from reconcilers.virtual_machine.plan import Observed, Plan
from tests.unit.reconcilers.builders import VmBuilder, after, vm, written
from tests.unit.reconcilers.fakes import INSTALLATION, domain

NOW = after(1000)
NOWHERE = Ownership(MayStart(None), 1)


def runs(
    host: str = "kvm1", *, fresh: bool = True, destroy: tuple[str, ...] = (), state: str = "running", **changes: Any
) -> Ownership:
    epoch = changes.pop("epoch", 1)
    uid = changes.pop("stamped", "uid-web")
    remnants = changes.pop("remnants", ())
    identity = Identity(INSTALLATION, "default", "web", uid, epoch)
    found = domain("default.web", uid="uid-web", state=DomainState(state), identity=identity, **changes)
    return Ownership(RunsOn(host, found, fresh), epoch, destroy, remnants)


def ended(reason: StopReason, *, epoch: int = 1) -> Ownership:
    identity = Identity(INSTALLATION, "default", "web", "uid-web", epoch)
    found = domain("default.web", uid="uid-web", state=DomainState.SHUT_OFF, stop_reason=reason, identity=identity)
    return Ownership(MayStart(None, found), epoch, (), ("kvm1",))


def look(built: VmBuilder, owned: Ownership, **changes: Any) -> Plan:
    return decide(built.build(), Observed(**{"now": NOW, "ownership": owned, "lost": frozenset(), **changes}))


def verdict(plan: Plan) -> tuple[str, str]:
    assert plan.verdict is not None
    return plan.verdict.standing.value, plan.verdict.reason


def applied(obj: VirtualMachine, plan: Plan) -> VirtualMachine:
    found: VirtualMachine = written(obj, **plan.fields)
    return found


def halted(since: float = 990) -> VmBuilder:
    return vm(policy="Halted").running_on("kvm1").power("Off", since=since)
