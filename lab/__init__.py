"""A data centre on one machine: a real Kubernetes control plane, real KVM hosts, faults, and an oracle.

The laboratory stands alone: it knows nothing of the operator that is tried out in it. Everything
of one lab lives in its state folder and in anonymous namespaces, so several run side by side.

`python -m lab --help` is the command line, `lab.Lab` the handle for programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.api import Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> object:
    # Small programs of the lab import this package too, and must not pay for everything.
    if name == "Lab":
        from lab.api import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
