"""The state of the Kubernetes API, kept and put back: what a backup of etcd and its restoring do to a cluster.

As with a plain restore, revision numbers go back as well, and nobody who watched is told.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from lab.control import Control
from lab.controlplane import run
from lab.controlplane.binaries import ensure
from lab.errors import LabError
from lab.processes import send
from lab.progress import Progress
from lab.state import State


def take(state: State, name: str) -> None:
    """Keep the present state under this name (it replaces an older one). Raises LabError."""
    process = state.process("etcd")
    if process is None:
        raise LabError(f"the lab in {state.folder} has no control plane: run `python -m lab up`")
    kept = _kept(state, name)
    shutil.rmtree(kept, ignore_errors=True)
    # While it stands still, its files are what it would find after a power cut: whole, thanks to its log.
    send(process, signal.SIGSTOP)
    try:
        shutil.copytree(run.etcd_folder(state), kept)
    finally:
        send(process, signal.SIGCONT)


def restore(state: State, name: str) -> None:
    """Put the kept state back and start the control plane on it; the API is away for some seconds. Raises LabError."""
    kept = _kept(state, name)
    if not kept.is_dir():
        raise LabError(f"no state is kept under the name {name}: `lab etcd snapshot {name}` keeps one")
    run.down(state)
    shutil.rmtree(run.etcd_folder(state))
    shutil.copytree(kept, run.etcd_folder(state))
    run.up(state, Control(state), ensure(Progress()))


def _kept(state: State, name: str) -> Path:
    if not name.isidentifier():
        raise LabError(f"{name!r} cannot name a kept state: letters, digits and underscores")
    return state.folder / "controlplane" / "snapshots" / name
