"""How a lab begins and ends: everything up, in parallel where it helps; everything gone, and proof of it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import guest, hosts, images
from lab.control import Control, with_lab_variables
from lab.controlplane import binaries, run
from lab.errors import LabError
from lab.leftovers import find_leftovers, remove_leftovers
from lab.network import MAXIMUM_HOSTS, Fabric
from lab.progress import Progress
from lab.state import ENVIRONMENT_VARIABLE, State, write_atomically

DEFAULT_HOSTS = 3
IMAGE_NAME = "guest.qcow2"
# What `down` removes from the state folder. Logs stay: they may be why one takes the lab down.
STORED = ("bin", "control", "controlplane", "env", "facts.json", "hosts", "images", "kubeconfig", "pki", "shared")


def up(state: State, progress: Progress, *, host_count: int = DEFAULT_HOSTS, control_plane: bool = True) -> None:
    """Bring everything up, or repair what is missing. Raises LabError that says what failed."""
    if not 0 <= host_count <= MAXIMUM_HOSTS:
        raise LabError(f"a lab has 0 to {MAXIMUM_HOSTS} hosts")
    _forget_former_logs(state)
    state.create()
    with state.lock("lifecycle"):
        fabric, control = Fabric(state), Control(state)
        with progress.step("networks"):
            if not fabric.is_up():
                # Their cables went with the old fabric: the hosts boot again, on the new one.
                hosts.down(state)
            fabric.up()
            control.up(fabric)
        _write_programs(state)
        parts: list[Callable[[], None]] = [lambda: _images_up(state, control, progress)]
        if host_count:
            parts.append(lambda: _hosts_up(state, fabric, host_count, progress))
        if control_plane:
            parts.append(lambda: _control_plane_up(state, control, progress))
        _all_of(parts)
        _give_to_caller(state)


def down(state: State, progress: Progress) -> None:
    """End everything, remove what it stored, and verify. Raises LabError with what stays, if something does."""
    if Control(state).is_inside():
        raise LabError("this is a process of the lab itself: run `down` outside of it")
    if not state.folder.exists() and not find_leftovers(state):
        progress.say(f"no lab in {state.folder}")
        return
    state.create()
    with state.lock("lifecycle"):
        with progress.step("ending the lab"):
            hosts.down(state)
            run.down(state)
            remove_leftovers(state)
        if left := find_leftovers(state):
            raise LabError("still there:\n" + "\n".join(left))
        for name in STORED:
            _remove(state.folder / name)
    _remove(state.records)
    progress.say(f"nothing is left: no process, namespace, mount or loop device (logs: {state.log('any').parent})")


def _images_up(state: State, control: Control, progress: Progress) -> None:
    with progress.step("guest image"):
        try:
            image = guest.build(binaries.cache_folder(), progress.say)
        except RuntimeError as error:
            raise LabError(f"building the guest image failed: {error}") from error
        images.publish(state, image.path, IMAGE_NAME, image.sha256)
        images.up(state, control)


def _hosts_up(state: State, fabric: Fabric, count: int, progress: Progress) -> None:
    with progress.step(f"{count} hosts" if count > 1 else "1 host"):
        hosts.up(state, fabric, count)


def _control_plane_up(state: State, control: Control, progress: Progress) -> None:
    programs = binaries.ensure(progress)
    with progress.step("control plane"):
        run.up(state, control, programs)


def _all_of(parts: list[Callable[[], None]]) -> None:
    """Run all at once; raise LabError with every failure, after all have ended."""
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        futures = [pool.submit(part) for part in parts]
    failures = [error for future in futures if (error := future.exception())]
    if not failures:
        return
    unexpected = [error for error in failures if not isinstance(error, LabError)]
    if unexpected:
        raise unexpected[0]
    raise LabError("\n".join(str(error) for error in failures))


def _write_programs(state: State) -> None:
    """bin/lab, and the file to source for a shell that knows the lab."""
    root = Path(__file__).resolve().parent.parent
    program = state.folder / "bin" / "lab"
    program.parent.mkdir(exist_ok=True)
    command = ["env", f"PYTHONPATH={root}", sys.executable, "-m", "lab", "--state", str(state.folder)]
    write_atomically(program, f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', 0o755)
    variables = with_lab_variables(state, {"PATH": ""})
    lines = ["# source this file: kubectl and lab then speak of this lab"]
    lines += [f"export {name}={shlex.quote(variables[name])}" for name in (ENVIRONMENT_VARIABLE, "KUBECONFIG")]
    lines += [f'export PATH={shlex.quote(str(program.parent))}:"$PATH"', 'PS1="(lab) ${PS1-}"']
    write_atomically(state.folder / "env", "\n".join(lines) + "\n")


def _forget_former_logs(state: State) -> None:
    """A lab that begins anew must not be judged by what an earlier one in the same folder has logged."""
    if not (state.folder / "env").exists() and not find_leftovers(state):
        _remove(state.log("any").parent)


def _give_to_caller(state: State) -> None:
    """Who called through sudo may read the kubeconfig."""
    user, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if user and group and state.kubeconfig.exists():
        os.chown(state.kubeconfig, int(user), int(group))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
