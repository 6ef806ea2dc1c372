"""A VM whose host was silent for a while: what it was before the silence decides what its end means."""

from __future__ import annotations

import pytest

from crds.virtual_machine import VirtualMachine
from reconcilers.virtual_machine.power import was_running


def vm(phase: str, *past: tuple[str, str]) -> VirtualMachine:
    return VirtualMachine.model_validate(
        {
            "apiVersion": "hostler.dev/v1alpha1",
            "kind": "VirtualMachine",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
            "spec": {"runPolicy": "Manual", "pool": "default", "memory": {"size": "64Mi"}},
            "status": {
                "phase": phase,
                "phaseTransitionTimestamps": [{"phase": p, "at": f"2026-01-01T00:00:{at}Z"} for p, at in past],
            },
        }
    )


@pytest.mark.parametrize(
    ("phase", "past", "expected"),
    [
        ("Running", (), True),
        ("Starting", (), False),
        ("Stopped", (), False),
        ("Unknown", (), False),
        ("Unknown", (("Starting", "01"), ("Running", "02"), ("Unknown", "09")), True),
        ("Unknown", (("Starting", "02"), ("Running", "02"), ("Unknown", "09")), True),
        ("Unknown", (("Running", "02"), ("Stopped", "03"), ("Unknown", "09")), False),
        ("Unknown", (("Running", "02"), ("Starting", "05"), ("Unknown", "09")), False),
    ],
)
def test_what_it_was_before_the_silence(phase: str, past: tuple[tuple[str, str], ...], *, expected: bool) -> None:
    assert was_running(vm(phase, *past)) is expected
